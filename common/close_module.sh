#!/bin/sh
# close_module.sh OBJECT TARGET [elf_i386] < NAMES
#
# Writes OBJECT as TARGET so that it exports only NAMES. All other names become local, so none can replace
# a library's function. Its code runs only when one of NAMES is called: module.ld rejects the sections that
# the C library runs by itself, and this script rejects symbols of nm's type i (the program chooses their
# code at start) and of type u, which objcopy can't make local. All of its code is in .text: another section
# that can be executed (readelf's flag X) is rejected.
#
# nm gets the format as an option. To find it out it would load plugins for the objects of other compilers,
# which takes more time than all the rest.
object=$1 target=$2 machine=${3:-elf_x86_64}
format=elf64-x86-64
[ "$machine" = elf_x86_64 ] || format=elf32-i386
keep=$(sed -n 's/./--keep-global-symbol=&/p')
# shellcheck disable=SC2086 # a list of options
if ld -m "$machine" -r -d --force-group-allocation -T common/module.ld --orphan-handling=error "$object" \
        -o "$target.new" &&
    symbols=$(nm --target=$format "$target.new") &&
    printf '%s\n' "$symbols" | awk '$2 ~ /^[iu]$/ { print $3 ": neither a plain function nor a variable"; bad = 1 }
                                    END { exit bad }' >&2 &&
    sections=$(readelf -SW "$target.new") &&
    printf '%s\n' "$sections" | awk 'sub(/^ *\[ *[0-9]+\] /, "") && $7 ~ /X/ && $1 != ".text" {
                                         print $1 ": code outside of .text"; bad = 1 }
                                     END { exit bad }' >&2 &&
    objcopy $keep "$target.new" "$target"; then
    rm -f "$target.new"
else
    rm -f "$target.new"
    echo "A module may only have functions and variables: no extra sections, and no code that runs" \
        "before or after main." >&2
    exit 1
fi
