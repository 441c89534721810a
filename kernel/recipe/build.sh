#!/bin/sh
# Builds the small kernel: build.sh LINUX-SOURCE.tar.xz OUTPUT-DIRECTORY
#
# The source is GPL-2.0 and not part of this project. Debian has it as a package:
#   apt-get install linux-source-6.1 flex bison bc gcc make libelf-dev lz4 xz-utils
#   sh kernel/recipe/build.sh /usr/src/linux-source-6.1.tar.xz /tmp/small-kernel
#   rvf embed-kernel STORE --image-path /tmp/small-kernel/bzImage
# JOBS is the number of processors to use. Who passes the image on passes on, or offers, the source and this directory.
set -eu
[ $# -eq 2 ] || { echo "usage: build.sh LINUX-SOURCE.tar.xz OUTPUT-DIRECTORY" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
archive=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
mkdir -p "$out/source" "$out/build"
[ -e "$out/source/Makefile" ] || tar -xf "$archive" -C "$out/source" --strip-components=1
cd "$out/source"
# The same source and compiler give the same image.
export KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=rvf KBUILD_BUILD_HOST=rvf
make -s O="$out/build" tinyconfig
scripts/kconfig/merge_config.sh -m -O "$out/build" "$out/build/.config" "$here/config" >/dev/null
make -s O="$out/build" olddefconfig
# A wish that the source does not know, or that something else keeps from coming true, would show at boot only.
grep -E '^CONFIG_|^# CONFIG_.* is not set' "$here/config" | while read -r wish; do
  case $wish in
    "# "*) name=${wish#"# "}; name=${name%" is not set"}
       ! grep -q "^$name=" "$out/build/.config" || { echo "build.sh: $name is on" >&2; exit 1; } ;;
    *) grep -qx "$wish" "$out/build/.config" || { echo "build.sh: $wish does not hold" >&2; exit 1; } ;;
  esac
done
make -s O="$out/build" -j"${JOBS:-$(nproc)}" bzImage
cp "$out/build/arch/x86/boot/bzImage" "$out/build/.config" "$out"
echo "$out/bzImage"
