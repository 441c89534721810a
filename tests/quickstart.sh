#!/bin/sh
# Builds rvf and rvf-mount, makes a store from the shipped sample, mounts it, and shows what can be done
# with ls, cat and a query. Leaves nothing mounted and nothing behind outside target/.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; sh -c "$*"; }

command -v cargo >/dev/null || { echo "quickstart: Rust is needed: install rustup or Debian's cargo first" >&2; exit 1; }
[ -e /dev/fuse ] || { echo "quickstart: /dev/fuse is missing: load the fuse module, or run outside the container" >&2; exit 1; }
if [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
  echo "quickstart: mounting as a user needs fusermount3: apt-get install fuse3 (or run as root)" >&2; exit 1
fi

say "Build (a few minutes the first time)"
# The mount and the offline command; what runs embedded programs (rvf-mount-helper) is not needed here.
cargo build --release -p rvf-fs
# An absolute CARGO_TARGET_DIR is where cargo put it; a relative one is relative to here.
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
PATH="$target/release:$PATH"; export PATH

work=$(mktemp -d "${TMPDIR:-/tmp}/rvf-quickstart.XXXXXX")
mnt=$work/mnt
cleanup() {
  if mountpoint -q "$mnt" 2>/dev/null; then umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt"; fi
  rm -rf "$work"
}
trap cleanup EXIT INT TERM
mkdir "$mnt"
data=$PWD/tests/data/debian-packages
cd "$work"

say "A store of 5,000 Debian packages: text embeddings (384 numbers each) with metadata"
run "rvf create packages.rvf --dimension 384 --metric cosine"
run "rvf ingest packages.rvf -i $data/base.f16.npy --ids $data/ids.u64.npy --metadata $data/meta.csv --index"

say "Mount it"
run "rvf-mount packages.rvf mnt"
run "ls mnt"
run "cat mnt/status"
run "ls mnt/segments"
run "cat mnt/segments/000002-vec/header"

say "Look one package up"
run "cat mnt/metadata/7222816631159666.json"
run "cut -c 1-60 mnt/vectors/7222816631159666"

say "Search: what is near the text 'SFTP: SSH File Transfer Protocol, ...'?"
# Query 2 of the sample, as 384 little-endian float32.
tail -c +129 "$data/queries.f32.npy" | tail -c +3073 | head -c 1536 > sftp.f32
run "cat sftp.f32 > mnt/query/in"
run "head -5 mnt/query/out"
run "for id in \$(head -5 mnt/query/out | cut -f1); do cat mnt/metadata/\$id.json; done"

say "The same with a filter: Python packages only"
run "echo \"section = 'python'\" > mnt/query/filter"
run "cat sftp.f32 > mnt/query/in"
run "for id in \$(head -3 mnt/query/out | cut -f1); do cat mnt/metadata/\$id.json; done"

say "One JSON request: neighbours of a stored package, with their names"
run "echo '{\"id\": 7222816631159666, \"k\": 3, \"filter\": \"section = '\\''games'\\''\", \"fields\": [\"name\", \"section\"]}' > mnt/query/in; cat mnt/query/out.json"

say "Add a vector of your own, and find it"
run "mkdir -p new; awk 'BEGIN{for(i=0;i<384;i++)printf \"%s%s\", (i?\",\":\"\"), (i%7)/10; print \"\"}' > new/42"
run "cp new/42 mnt/vectors/42"
run "echo > mnt/query/filter"
run "cat new/42 > mnt/query/in; head -1 mnt/query/out"

say "Unmount"
run "umount mnt 2>/dev/null || fusermount3 -u mnt"
run "rvf check packages.rvf"
