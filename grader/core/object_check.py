"""What a module's object must not have: ways to act where no test has called it.

The learner's code runs in the process of the VMM and of the unit programs. Called by them it can at worst
do its own exercise wrong. Code that runs before main, or in the place of the C library's, could answer for
the whole program; no exercise needs that. An object that has it counts as one that does not build.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from grader.core.elf import RELOCATABLE, Elf, INDIRECT_FUNCTION, NotElf
from grader.execution.labvm.pack import library_path

RUN_BY_ITSELF = re.compile(r"\.(preinit_array|init_array|fini_array|ctors|dtors|init|fini)\b.*")
FOR_THE_LINKER = re.compile(r"\.(gnu\.lto_|gnu\.warning|interp|dynamic|gnu_debuglink).*")
# Check is linked statically; its functions go by these names.
OF_CHECK = re.compile(r"_?(ck|tcase|srunner|suite)_\w+|tr_\w+")


def faults(path: Path) -> list[str]:
    """What is wrong with the object at `path`, a sentence each; empty: it may be linked."""
    try:
        elf = Elf(path)
    except NotElf as error:
        return [str(error)]
    if elf.type != RELOCATABLE:
        return [f"{path.name} is no object file"]
    found = [f"section {section.name}: code that runs before or after main is not allowed"
             for section in elf.sections if RUN_BY_ITSELF.fullmatch(section.name)]
    found += [f"section {section.name}: it would change how the program is linked"
              for section in elf.sections if FOR_THE_LINKER.fullmatch(section.name)]
    for symbol in elf.symbols:
        if symbol.kind == INDIRECT_FUNCTION:
            found.append(f"{symbol.name}: a function that chooses its code at start is not allowed")
        elif symbol.defined and symbol.visible and _belongs_to_a_library(symbol.name):
            found.append(f"{symbol.name}: a library has this name. If it is a helper of "
                         "yours, make it static or name it otherwise")
    return list(dict.fromkeys(found))


def _belongs_to_a_library(name: str) -> bool:
    return name in _names_of_libc() or OF_CHECK.fullmatch(name) is not None


@functools.lru_cache(maxsize=None)
def _names_of_libc() -> frozenset[str]:
    """The names that the C library defines, and those of a linked program's own parts."""
    path = library_path("libc.so.6")
    symbols = Elf(Path(path)).symbols if path else []
    return frozenset({"_start", "main", "_init", "_fini"}
                     | {symbol.name for symbol in symbols if symbol.defined and symbol.visible})
