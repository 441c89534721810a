#!/bin/sh
# Builds query.wasm beside query.c, or to the path given. The committed module is this script's output with clang 14.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "${CLANG:-clang}" --target=wasm32 -O3 -msimd128 -mbulk-memory -nostdlib -ffreestanding -Wall -Wextra -Werror \
  -Wl,--no-entry -Wl,--strip-all -Wl,--compress-relocations -Wl,-z,stack-size=16384 -o "${1:-$here/query.wasm}" "$here/query.c"
