#!/bin/sh
# Installs the missing packages for the named parts of the kit:
#     setup.sh build grade vm test
# It installs them as root or with passwordless sudo; else it prints the command.
#     setup.sh --python              prints the interpreter to use: one with pexpect, if there is one, and
#                                    rather one with Capstone, too
#     setup.sh --command PACKAGE...  prints the command that installs these packages on this machine
#     setup.sh --try PART...         the same, but prints nothing if it can't install
#     setup.sh --doctor              if Python is missing: reports which packages are installed

# find_python MODULES: an interpreter that has them. They are not imported, which takes too long for Capstone.
# The system's is tried first: another may be the script of a tool that chooses one, which takes its time.
find_python() {
    for python in /usr/bin/python3 python3; do
        "$python" -c 'import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, sys.argv[1].split(","))))' "$1" </dev/null 2>/dev/null &&
            echo "$python" && return 0
    done
    return 1
}

have() {
    command -v "$1"
}

# clang's runtime libraries are a separate package in Debian 12, and part of clang elsewhere.
# shellcheck disable=SC2317,SC2329 # called by need
have_fuzzer() {
    find "$(clang -print-resource-dir)/lib" -name 'libclang_rt.fuzzer*' | grep -q .
}

packages=
report=
# need PACKAGE COMMAND...: the package is missing if the command fails.
need() {
    package=$1
    shift
    if "$@" >/dev/null 2>&1; then
        [ -z "$report" ] || echo "OK    $package"
        return
    fi
    case " $packages " in
    *" $package "*) ;;
    *)
        packages=${packages:+$packages }$package
        [ -z "$report" ] || echo "FAIL  $package: missing"
        ;;
    esac
}

need_parts() {
    for part in "$@"; do
        case $part in
        python)
            need python3 have python3
            ;;
        build)
            have gcc >/dev/null || need gcc have clang
            need libc6-dev test -e /usr/include/stdio.h
            need nasm have nasm
            ;;
        grade)
            need python3-pexpect find_python pexpect
            need check pkg-config --exists check
            need pkg-config have pkg-config
            [ -w /dev/kvm ] || need_parts vm
            ;;
        explain)
            need python3-pexpect find_python pexpect,capstone
            need python3-capstone find_python pexpect,capstone
            ;;
        debug)
            need gdb have gdb
            ;;
        vm)
            need qemu-system-x86 have qemu-system-x86_64
            ;;
        handouts)
            need pandoc have pandoc
            need weasyprint have weasyprint
            need fonts-dejavu-core test -e /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
            ;;
        format)
            need clang-format have clang-format
            ;;
        test)
            need_parts format explain debug
            need gcc have gcc
            need clang have clang
            need libclang-rt-dev have_fuzzer
            need flake8 have flake8
            need git have git
            need mypy have mypy
            need patch have patch
            need shellcheck have shellcheck
            need strace have strace
            need zstd have zstd
            ;;
        machines)
            need debootstrap have debootstrap
            need git have git
            ;;
        *)
            echo "setup.sh: no such part: $part" >&2
            exit 2
            ;;
        esac
    done
}

# The command to type to install packages.
install_command() {
    if ! have apt-get >/dev/null; then
        echo "install the equivalents of these Debian packages: $*"
    elif [ "$(id -u)" = 0 ]; then
        echo "apt-get update && apt-get install --no-install-recommends $*"
    else
        echo "sudo apt-get update && sudo apt-get install --no-install-recommends $*"
    fi
}

quiet=
case $1 in
--python)
    find_python pexpect,capstone || find_python pexpect || echo python3
    exit 0
    ;;
--command)
    shift
    install_command "$@"
    exit 0
    ;;
--doctor)
    have python3 >/dev/null && exit 0
    report=yes
    need_parts python build grade vm
    echo "fix:  $(install_command "$packages")"
    exit 1
    ;;
--try)
    quiet=yes
    shift
    ;;
esac

need_parts "$@"
[ -z "$packages" ] && exit 0

sudo=
if ! have apt-get >/dev/null; then
    may_install=
elif [ "$(id -u)" = 0 ]; then
    may_install=yes
elif sudo -n true 2>/dev/null; then
    may_install=yes
    sudo=sudo
else
    may_install=
fi

if [ -z "$may_install" ]; then
    # One command for everything that a learner needs, not a new one at each step.
    case " $* " in *" grade "*) need_parts vm ;; esac
    [ -n "$quiet" ] || echo "Missing packages. Install them with:
    $(install_command "$packages")" >&2
    exit 1
fi

install() {
    # shellcheck disable=SC2086 # both are lists of words
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages
}

echo "Installing: $packages" >&2
{ install || { $sudo apt-get update -q && install; }; } >&2 && exit 0
echo "The installation failed. Run it yourself:
    $(install_command "$packages")" >&2
exit 1
