#!/bin/sh
# Builds query.wasm beside query.c, or to the path given. The committed module is this script's output with clang 14.
# Variables lie low in memory, where their addresses are shorter in the code.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "${CLANG:-clang}" --target=wasm32 -O3 -msimd128 -mbulk-memory -nostdlib -ffreestanding -Wall -Wextra -Werror \
  -Wl,--no-entry -Wl,--strip-all -Wl,--compress-relocations -Wl,-z,stack-size=16384 -Wl,--global-base=16 -o "${1:-$here/query.wasm}" "$here/query.c"
