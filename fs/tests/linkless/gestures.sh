# What is done with branches on a filesystem. $1: an empty directory on it; $2: a mountpoint; $3: whether it has hard links,
# yes or no. `rvf` and `rvf-mount` are in the PATH. Says "gestures: done" at its end.
set -eu

dir=$1 at=$2 links=$3 store=$1/store.rvf said=$(mktemp)
say() { echo "gestures: $*"; }
mounted() { grep -q " $at fuse" /proc/mounts; }
leave() {
  status=$?
  if [ "$status" != 0 ]; then
    say "status $status"
    tail -n 3 "$at/error" || true
  fi
  cd /
  if mounted; then umount -l "$at"; fi
  rm -f "$said"
}
trap leave EXIT
start() {
  rvf-mount --foreground "$store" "$at" &
  daemon=$!
  tries=0
  until mounted; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ] || ! kill -0 "$daemon"; then say "not mounted"; exit 1; fi
    sleep 0.1
  done
  cd "$at"
}
stop() {
  cd /
  umount "$at"
  # The daemon writes what is left to write before it ends.
  wait "$daemon"
}
is() { # is WHAT IT-IS WANTED
  [ "$2" = "$3" ] || { say "$1: '$2' and not '$3'"; exit 1; }
}
refused() { # refused WHAT WORD COMMAND...: it fails, and the reason holds the word
  what=$1 word=$2
  shift 2
  if "$@" 2>"$said"; then say "$what: not refused"; exit 1; fi
  cat error >>"$said" 2>/dev/null || true
  grep -q "$word" "$said" || { say "$what: refused without '$word': $(cat "$said")"; exit 1; }
}
without_links() { # as refused, where there are no hard links; elsewhere the command is run
  if [ "$links" = no ]; then
    refused "$@"
  else
    shift 2
    "$@"
  fi
}
same_as_main() { cmp -s branches/main/vectors.npy "branches/$1/vectors.npy"; }

: >"$dir/first"
found=no
if ln "$dir/first" "$dir/second" 2>/dev/null; then found=yes; fi
is "hard links" "$found" "$links"
rm -f "$dir/first" "$dir/second"

say "create and ingest"
rvf create "$store" --dimension 4 >/dev/null
start
{
  echo id,v0,v1,v2,v3
  for n in 1 2 3 4 5 6 7 8; do echo "$n,$n,1,0,0"; done
} >ingest/rows.csv
is "vectors" "$(ls vectors | grep -vc error)" 8

say "copy"
cp -r branches/main branches/x
cp -r branches/main branches/y
same_as_main x
is "branches" "$(ls branches | tr '\n' ' ')" "main x y "
refused "a copy onto a branch" "branches/x exists" cp -r branches/main branches/x
if [ "$links" = no ]; then
  # FAT takes neither every character nor names that differ in case only.
  refused "a name that the filesystem does not take" "a:b" cp -r branches/main "branches/a:b"
  rm -r "branches/a:b"
  refused "a name that differs in case only" "exists" cp -r branches/main branches/X
fi
is "branches" "$(ls branches | tr '\n' ' ')" "main x y "

say "edit"
echo 9,9,9,9 >branches/x/vectors/77
rm branches/x/vectors/2
is "changes" "$(cat branches/x/diff.jsonl | wc -l)" 2
is "main" "$(ls vectors | grep -vc error)" 8
echo 2 >branches/x/query/k
echo 9,9,9,9 >branches/x/query/in
is "nearest" "$(head -n 1 branches/x/query/out | cut -f 1)" 77

say "a branch of a branch, and renaming"
cp -r branches/x branches/sub
without_links "renaming a branch that others stand on" "no hard links" mv branches/x branches/z
if [ "$links" = yes ]; then mv branches/z branches/x; fi
is "x" "$(cat branches/x/diff.jsonl | wc -l)" 2
mv branches/sub branches/leaf
is "leaf" "$(ls branches/leaf/vectors | grep -vc error)" 8
is "its parent" "$(readlink branches/leaf/parent)" ../x
refused "renaming onto one" "exists" mv branches/leaf branches/y

say "freeze, and open again"
chmod a-w branches/y
refused "a write to a frozen branch" "Read-only" sh -c 'echo 1,1,1,1 >branches/y/vectors/5'
stop
refused "a change of the frozen file" "frozen" rvf delete "$dir/store.y.rvf" --ids 1
start
refused "a write to a frozen branch, later" "Read-only" sh -c 'echo 1,1,1,1 >branches/y/vectors/5'
refused "thawing" "frozen" chmod a+w branches/y
is "leaf, later" "$(ls branches/leaf/vectors | grep -vc error)" 8
same_as_main y

say "compact what branches stand on"
without_links "a compaction that would break them" "cannot be kept" sh -c 'echo compact >ctl'
same_as_main y

say "merge"
echo merge >branches/x/ctl
is "main, merged" "$(ls vectors | grep -vc error)" 8
[ -e vectors/77 ] && [ ! -e vectors/2 ]
is "y" "$(ls branches/y/vectors | grep -vc error)" 8
[ ! -e branches/y/vectors/77 ]

say "remove"
refused "removing a branch that others stand on" "leaf\|not empty" rm -r branches/x
rm -r branches/leaf
rm -r branches/x
rm -r branches/y
is "branches" "$(ls branches | tr '\n' ' ')" "main "

say "compact"
rm vectors/3
echo compact >ctl
is "main, compacted" "$(ls vectors | grep -vc error)" 7
stop
start
is "main, opened again" "$(ls vectors | grep -vc error)" 7
cp -r branches/main branches/again
same_as_main again
stop
rvf check "$store" >/dev/null
rvf branch "$store" "$dir/store.cli.rvf" >/dev/null
rvf derive -t quantize --precision int8 "$store" "$dir/store.int8.rvf" >/dev/null 2>&1
is "what is left" "$(ls -A "$dir" | grep -v lost+found | sort | tr '\n' ' ')" "store.again.rvf store.cli.rvf store.int8.rvf store.rvf "
say "done"
