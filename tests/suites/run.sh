#!/usr/bin/env bash
# The filesystem exerciser fsx, and longer runs of our own random tests, against a real mount. See README.md beside this.
#   tests/suites/run.sh [SEED]
set -euo pipefail
cd "$(dirname "$0")/../.."
seed=${1:-1}
command -v target/suites/bin/fsx >/dev/null || cargo install -q fsx --version 0.3.2 --locked --root target/suites
# With the tests, so that nothing is built twice.
cargo test -q -p rvf-fs --test mount_model --test mount_stress --no-run
at=$(mktemp -d)
trap 'umount -l "$at/mnt" 2>/dev/null || true; rm -rf "$at"' EXIT
mkdir "$at/mnt"
target/debug/rvf create "$at/s.rvf" --dimension 4 >/dev/null
target/debug/rvf-mount --log-file "$at/log" "$at/s.rvf" "$at/mnt"
for name in ingest/.fsx vectors/.fsx.swp; do
  for run in 0 1 2; do
    echo "fsx on $name, seed $((seed + run))"
    timeout -k 1 120 target/suites/bin/fsx -f tests/suites/fsx.toml -N 1500 -S $((seed + run)) -P "$at" "$at/mnt/$name"
  done
done
umount "$at/mnt"
export RVF_REQUIRE_FUSE=1
RVF_MODEL_SEED=$seed RVF_MODEL_STEPS=20000 timeout -k 1 600 cargo test -q -p rvf-fs --test mount_model
RVF_STRESS_STEPS=2000 timeout -k 1 600 cargo test -q -p rvf-fs --test mount_stress
