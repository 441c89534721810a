#!/bin/sh
# Compiles the programs: sh bpf/programs/build.sh [OUTPUT DIRECTORY]. Needs clang, llvm-strip and the headers of libbpf
# (apt-get install clang llvm libbpf-dev). The objects that are committed were made by the clang named in BUILT_WITH.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
for program in distance filter ports; do
  # -g is for the BTF of the maps; the rest of the debugging information is dropped, and with it every path.
  ${CLANG:-clang} --target=bpf -mcpu=v3 -O2 -g -ffile-prefix-map="$PWD"=. -Wall -Wextra -Werror -Wno-unused-parameter \
    -I"/usr/include/$(uname -m)-linux-gnu" -c "$program.c" -o "$out/$program.o"
  ${STRIP:-llvm-strip} -g "$out/$program.o"
done
