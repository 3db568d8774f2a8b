#!/bin/sh
# close_module.sh OBJECT TARGET [OPTIONS OF LD...] < NAMES
#
# Writes OBJECT as TARGET so that it gives the program what NAMES names, and nothing else. All
# other names become its own, whatever they are: none can take the place of a library's. The code runs only
# when one of those is called: module.ld refuses the sections that the C library runs by itself,
# and a symbol of nm's type i (its code is chosen when the program starts) is refused here. So is type u,
# which objcopy can't make local.
object=$1 target=$2
shift 2
keep=$(sed -n 's/./--keep-global-symbol=&/p')
# shellcheck disable=SC2086 # a list of options
if ld "$@" -r -d --force-group-allocation -T common/module.ld --orphan-handling=error "$object" -o "$target.new" &&
    nm "$target.new" | awk '$2 ~ /^[iu]$/ { print $3 ": neither a plain function nor a variable"; bad = 1 }
                            END { exit bad }' >&2 &&
    objcopy $keep "$target.new" "$target"; then
    rm -f "$target.new"
else
    rm -f "$target.new"
    echo "A module has functions and variables only. It can't have a section of its own, or code that runs" \
        "before or after main." >&2
    exit 1
fi
