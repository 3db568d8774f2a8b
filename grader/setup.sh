#!/bin/sh
# Installs what the named parts of the kit need and is not there yet:
#     setup.sh build grade vm test
# As root, or with sudo that asks no password, it installs by itself; else it prints the command.
# `setup.sh --python` prints the interpreter to use: one that has pexpect, if there is one.

find_python() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import pexpect' </dev/null 2>/dev/null && echo "$python" && return 0
    done
    return 1
}

if [ "$1" = --python ]; then
    find_python || echo python3
    exit 0
fi

packages=
# need PACKAGE COMMAND...: the package is missing when the command fails.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || packages="$packages $package"
}

have() {
    command -v "$1"
}

# clang's runtime libraries are a package of their own in Debian 12, and part of clang elsewhere.
# shellcheck disable=SC2317 # called by need
have_fuzzer() {
    find "$(clang -print-resource-dir)/lib" -name 'libclang_rt.fuzzer*' | grep -q .
}

for part in "$@"; do
    case $part in
    build)
        have gcc >/dev/null || need gcc have clang
        need libc6-dev test -e /usr/include/stdio.h
        need nasm have nasm
        ;;
    grade)
        need python3-pexpect find_python
        need check pkg-config --exists check
        need pkg-config have pkg-config
        ;;
    vm)
        need qemu-system-x86 have qemu-system-x86_64
        ;;
    handouts)
        need pandoc have pandoc
        need weasyprint have weasyprint
        need fonts-dejavu-core test -e /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
        ;;
    test)
        need gcc have gcc
        need clang have clang
        need libclang-rt-dev have_fuzzer
        need clang-format have clang-format
        need flake8 have flake8
        need git have git
        need mypy have mypy
        need patch have patch
        need shellcheck have shellcheck
        ;;
    *)
        echo "setup.sh: no such part: $part" >&2
        exit 2
        ;;
    esac
done
packages=${packages# }
[ -z "$packages" ] && exit 0

if ! have apt-get >/dev/null; then
    echo "Missing here, by their names in Debian: $packages" >&2
    echo "Install them with this system's package manager." >&2
    exit 1
fi

if [ "$(id -u)" = 0 ]; then
    sudo=
elif sudo -n true 2>/dev/null; then
    sudo=sudo
else
    echo "Missing packages. Install them with:" >&2
    echo "    sudo apt-get install --no-install-recommends $packages" >&2
    exit 1
fi

install() {
    # shellcheck disable=SC2086 # both are lists of words
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages
}

echo "Installing: $packages" >&2
{ install || { $sudo apt-get update -q && install; }; } >&2 && exit 0
echo "The installation failed. Try by hand: apt-get install --no-install-recommends $packages" >&2
exit 1
