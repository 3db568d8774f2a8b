"""Reading ELF files as they are, without running or loading them: sections and symbols (elf(5)).

For objects of learners, so nothing in the file is trusted: whatever makes no sense raises NotElf.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

SYMBOL_TABLE, DYNAMIC_SYMBOLS = 2, 11          # section types: SHT_SYMTAB, SHT_DYNSYM
GLOBAL, WEAK, UNIQUE = 1, 2, 10                # bindings: STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE
INDIRECT_FUNCTION = 10                         # symbol type: STT_GNU_IFUNC
UNDEFINED = 0                                  # section index: SHN_UNDEF
RELOCATABLE = 1                                # file type: ET_REL


class NotElf(Exception):
    """The file is no ELF file, or a broken one."""


@dataclass(frozen=True)
class Symbol:
    """A name that the file defines or wants."""

    name: str
    kind: int
    binding: int
    section: int

    @property
    def defined(self) -> bool:
        return self.section != UNDEFINED

    @property
    def visible(self) -> bool:
        """To other files, when they are linked."""
        return self.binding in (GLOBAL, WEAK, UNIQUE)


@dataclass(frozen=True)
class Section:
    """A section's header."""

    name: str
    kind: int
    offset: int
    size: int
    link: int


class Elf:
    """An ELF file's sections and symbols; `bits` is 32 or 64."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        try:
            if self._data[:4] != b"\x7fELF" or self._data[4] not in (1, 2) or self._data[5] != 1:
                raise NotElf(f"{path} is no little-endian ELF file")
            self.bits = 64 if self._data[4] == 2 else 32
            self.type, self.machine = struct.unpack_from("<HH", self._data, 16)
            self.sections = self._read_sections()
            self.symbols = [symbol for section in self.sections
                            if section.kind in (SYMBOL_TABLE, DYNAMIC_SYMBOLS)
                            for symbol in self._read_symbols(section)]
        except (struct.error, IndexError, ValueError, OverflowError) as error:
            raise NotElf(f"{path} is a broken ELF file: {error}") from error

    def _read_sections(self) -> list[Section]:
        if self.bits == 64:
            start, = struct.unpack_from("<Q", self._data, 40)
            size, count, names = struct.unpack_from("<HHH", self._data, 58)
            form = "<IIQQQQII"
        else:
            start, = struct.unpack_from("<I", self._data, 32)
            size, count, names = struct.unpack_from("<HHH", self._data, 46)
            form = "<IIIIIIII"
        headers = [struct.unpack_from(form, self._data, start + size * index) for index in range(count)]
        strings = headers[names][4] if headers else 0
        return [Section(self._text(strings + name), kind, offset, length, link)
                for name, kind, _flags, _address, offset, length, link, _info in headers]

    def _read_symbols(self, table: Section) -> list[Symbol]:
        strings = self.sections[table.link].offset
        form, size = ("<IBBHQQ", 24) if self.bits == 64 else ("<IIIBBH", 16)
        found = []
        for offset in range(table.offset, table.offset + table.size, size):
            fields = struct.unpack_from(form, self._data, offset)
            name, info, section = ((fields[0], fields[1], fields[3]) if self.bits == 64
                                   else (fields[0], fields[3], fields[5]))
            found.append(Symbol(self._text(strings + name), info & 15, info >> 4, section))
        return found

    def _text(self, start: int) -> str:
        return self._data[start:self._data.index(b"\0", start)].decode("utf-8", "replace")
