#!/bin/sh
# Milliseconds from the start of `rvf launch` to the end of the first answer: measure.sh STORE RUNS [ARGS of rvf launch]
# RVF is the program, PORT the port, QUERY what is asked. It needs curl. A store without vector 1 answers a second request instead.
set -eu
[ $# -ge 2 ] || { echo "usage: measure.sh STORE RUNS [ARGS]" >&2; exit 2; }
store=$1 runs=$2
shift 2
rvf=${RVF:-rvf} port=${PORT:-18080} query=${QUERY:-'{"id":1,"k":1}'}
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || :; rm -rf "$work"' EXIT INT TERM
n=0
while [ "$n" -lt "$runs" ]; do
  n=$((n + 1))
  mkfifo "$work/out"
  start=$(date +%s%N)
  "$rvf" launch "$store" --port "$port" "$@" >"$work/out" 2>"$work/err" &
  pid=$!
  read -r line <"$work/out" || { cat "$work/err" >&2; exit 1; }
  curl -sf --data-binary "$query" "http://127.0.0.1:$port/query" >/dev/null \
    || curl -sf "http://127.0.0.1:$port/status" >/dev/null
  end=$(date +%s%N)
  kill "$pid"
  wait "$pid" || :
  pid=
  rm "$work/out"
  echo $(((end - start) / 1000000)) | tee -a "$work/all"
done
sort -n "$work/all" | awk '{ v[NR] = $1 } END { print "median " v[int((NR + 1) / 2)] ", best " v[1] }'
