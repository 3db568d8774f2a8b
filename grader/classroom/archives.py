"""Reading archives from strangers: zip and tar, plain or compressed. Nothing of them is written anywhere.

A `Budget` bounds what a submission may cost, in all its formats and levels, and is enforced while reading:
the first byte or entry too many ends it. Content is unpacked in pieces, and kept only if it is asked for.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

PACKED_MAX = 32 << 20         # bytes of an archive
UNPACKED_MAX = 256 << 20      # bytes read from it: a kit with all that it has built fits
KEPT_MAX = 32 << 20           # bytes in memory at a time, nested archives included
ENTRIES_MAX = 20_000
DEPTH_MAX = 40                # folders in folders
NAME_MAX = 1000               # bytes of an entry's path
SECONDS_MAX = 30.0            # processor time
HEADER_MAX = 4 << 20          # bytes of a zip file's directory, or of a tar entry's long name
PIECE = 64 << 10
LZMA_MEMORY = 64 << 20

GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"
ZIP = (b"PK\3\4", b"PK\5\6")      # an entry, or the end of an empty file

# How to get an archive's damage: all that the parsers below raise for bytes that are not what they should be.
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
          ValueError, OverflowError, IndexError, NotImplementedError)


class Refused(Exception):
    """This submission is not taken; the text is for its learner."""


class Budget:
    """What reading one submission may still cost."""

    def __init__(self) -> None:
        self._unpacked, self._kept, self._entries = UNPACKED_MAX, KEPT_MAX, ENTRIES_MAX
        self._end = time.thread_time() + SECONDS_MAX

    def unpack(self, count: int) -> None:
        """These bytes are unpacked."""
        self._unpacked -= count
        if self._unpacked < 0:
            raise Refused(f"it unpacks to more than {UNPACKED_MAX >> 20} MB")
        self._tick()

    def keep(self, count: int) -> None:
        """These bytes stay in memory."""
        self._kept -= count
        if self._kept < 0:
            raise Refused(f"it has more than {KEPT_MAX >> 20} MB of sources and archives")

    def enter(self, name: str) -> PurePosixPath:
        """There is one more entry: its path, if it stays inside."""
        self._entries -= 1
        if self._entries < 0:
            raise Refused(f"it has more than {ENTRIES_MAX} entries")
        self._tick()
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise Refused(f"it has an entry that leads out of it: {name[:80]!r}")
        if len(path.parts) > DEPTH_MAX:
            raise Refused(f"it has more than {DEPTH_MAX} folders in one another")
        if len(name) > NAME_MAX:
            raise Refused(f"it has a name of more than {NAME_MAX} characters")
        return path

    def _tick(self) -> None:
        if time.thread_time() > self._end:
            raise Refused(f"it takes more than {SECONDS_MAX:.0f} seconds to read")


@dataclass(frozen=True)
class Member:
    """A file in an archive or folder. `read(limit)` returns its content, or None if that is more than `limit`
    bytes; what is not a plain file has no `read`. Valid until the next member is asked for."""

    name: PurePosixPath
    read: Callable[[int], bytes | None] | None


def is_archive(content: bytes) -> bool:
    """Whether it begins as an archive or a compressed file does."""
    return content.startswith((*ZIP, GZIP, BZIP2, XZ)) or _is_tar(content[:tarfile.BLOCKSIZE])


def members(content: bytes, budget: Budget) -> Iterator[Member]:
    """The files of an archive, in its order. Raises Refused, or one of DAMAGE."""
    if content.startswith(ZIP):
        return _zip_members(content, budget)
    source: _Source = io.BytesIO(content)
    if content.startswith(GZIP):
        return _tar_members(_Stream(_unpacked(source, lambda: _Inflate(31), GZIP, budget)), budget)
    if content.startswith(BZIP2):
        return _tar_members(_Stream(_unpacked(source, bz2.BZ2Decompressor, BZIP2, budget)), budget)
    if content.startswith(XZ):
        return _tar_members(_Stream(_unpacked(source, _xz, XZ, budget)), budget)
    return _tar_members(_Stream(_plain(source, budget)), budget)


# ------------------------------------------------------------------ compressed bytes


class _Machine(Protocol):
    """A decompressor, as bz2 and lzma have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes more."""


class _Source(Protocol):
    """What bytes come from."""

    def read(self, __size: int) -> bytes:
        """At most so many bytes; none at the end."""


class _Inflate:
    """zlib's decompressor as one of those."""

    def __init__(self, wbits: int) -> None:
        self._machine = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._machine.eof

    @property
    def unused_data(self) -> bytes:
        return self._machine.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        piece = self._machine.decompress(self._machine.unconsumed_tail + data, max_length)
        self.needs_input = not self._machine.unconsumed_tail and len(piece) < max_length
        return piece


def _xz() -> _Machine:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)


def _unpacked(source: _Source, new: Callable[[], _Machine], magic: bytes,
              budget: Budget) -> Iterator[bytes]:
    """What a decompressor makes of a source, in pieces. More streams that begin with `magic` may follow."""
    machine, data = new(), b""
    while not machine.eof:
        if machine.needs_input and not data:
            data = source.read(PIECE)
            if not data and magic:
                raise EOFError("its end is missing")
            if not data:
                return      # LZMA in a zip file may have no mark of its end
        piece = machine.decompress(data, PIECE)
        data = b""
        budget.unpack(len(piece))
        yield piece
        if machine.eof and magic:
            data = machine.unused_data
            if len(data) < len(magic):
                data += source.read(PIECE)
            if data.startswith(magic):
                budget.enter("")
                machine = new()


def _plain(source: _Source, budget: Budget) -> Iterator[bytes]:
    for piece in iter(lambda: source.read(PIECE), b""):
        budget.unpack(len(piece))
        yield piece


class _Stream:
    """Pieces as a file that is read forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece, self._used = b"", 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes. Raises EOFError where there are fewer, unless there are none."""
        found = [self._take(size)]
        while len(found[-1]) and (left := size - sum(map(len, found))):
            found.append(self._take(left))
        content = b"".join(found)
        if content and len(content) < size:
            raise EOFError("its end is missing")
        return content

    def skip(self, size: int) -> None:
        """Goes on after the next `size` bytes."""
        while size > 0:
            piece = self._take(min(size, PIECE))
            if not piece:
                raise EOFError("its end is missing")
            size -= len(piece)

    def _take(self, size: int) -> bytes:
        while self._used == len(self._piece):
            try:
                self._piece, self._used = next(self._pieces), 0
            except StopIteration:
                return b""
        found = self._piece[self._used:self._used + size]
        self._used += len(found)
        return found


# ------------------------------------------------------------------ tar


def _tar_entry(block: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")


def _is_tar(block: bytes) -> bool:
    try:
        _tar_entry(block)
        return True
    except (tarfile.TarError, ValueError):
        return False


def _tar_members(stream: _Stream, budget: Budget) -> Iterator[Member]:
    """The members of a tar file: ustar's, GNU's and pax's."""
    name, size = "", -1      # from an entry that is about the next one
    while (block := stream.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        entry = _tar_entry(block)
        if entry.size < 0:
            raise ValueError("an entry has a negative size")
        if entry.type in _ABOUT_THE_NEXT:
            if entry.size > HEADER_MAX:
                raise Refused(f"it has an entry with a header of {entry.size >> 20} MB")
            content = stream.read(entry.size)
            stream.skip(-entry.size % tarfile.BLOCKSIZE)
            if entry.type == tarfile.GNUTYPE_LONGNAME:
                name = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif entry.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                name, size = _pax(content, name, size)
            budget.enter("")
            continue
        if entry.type == tarfile.GNUTYPE_SPARSE:
            raise Refused("it has a sparse file: pack it without tar's option -S")
        path = budget.enter(name or entry.name)
        length = max(0, size if size >= 0 else entry.size)
        left = 0 if entry.type in _WITHOUT_CONTENT else length + -length % tarfile.BLOCKSIZE
        name, size = "", -1
        if entry.type in tarfile.REGULAR_TYPES:
            file = _TarFile(stream, length)
            yield Member(path, file.read)
            left -= file.taken
        elif entry.type != tarfile.DIRTYPE:
            yield Member(path, None)
        stream.skip(left)


_ABOUT_THE_NEXT = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE,
                   tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_WITHOUT_CONTENT = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
                    tarfile.FIFOTYPE)


class _TarFile:
    """The content of one member, which stands next in the stream."""

    def __init__(self, stream: _Stream, length: int) -> None:
        self._stream, self._length = stream, length
        self.taken = 0

    def read(self, limit: int) -> bytes | None:
        if self._length > limit:
            return None
        self.taken = self._length
        return self._stream.read(self._length)


def _pax(content: bytes, name: str, size: int) -> tuple[str, int]:
    """The path and size that a pax header gives the next entry: records of "LENGTH KEY=VALUE\\n"."""
    start = 0
    while start < len(content) and content[start] != 0:
        blank = content.index(b" ", start, start + 20)
        length = int(content[start:blank])
        key, _, value = content[blank + 1:start + length].rstrip(b"\n").partition(b"=")
        if length <= 0:
            raise ValueError("a pax header has a record of no length")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size":
            size = int(value)
        start += length
    return name, size


# ------------------------------------------------------------------ zip


class _ZipFile(io.BytesIO):
    """A zip file's bytes, of which no great part is read at a time: its directory has to be small."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > HEADER_MAX:
            raise Refused("it has a directory of too many entries")
        return super().read(size)


def _zip_members(content: bytes, budget: Budget) -> Iterator[Member]:
    file = _ZipFile(content)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = budget.enter(info.filename)
            if not info.filename or info.filename.endswith("/"):
                continue
            plain = (info.external_attr >> 28) in (0, 8)      # S_IFREG >> 12, or no type
            yield Member(name, partial(_zip_content, file, info, budget) if plain else None)


def _zip_content(file: BinaryIO, info: zipfile.ZipInfo, budget: Budget, limit: int) -> bytes | None:
    """A member's content: zipfile unpacks all of a bzip2 or LZMA stream at once, whatever its size."""
    if info.flag_bits & 1:
        raise Refused(f"{info.filename[:80]!r} in it is encrypted")
    if info.file_size > limit:
        return None
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile("an entry is not where the directory says")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    file.seek(name_length + extra_length, io.SEEK_CUR)
    source = _Part(file, info.compress_size)
    pieces: list[bytes] = []
    for piece in _zip_pieces(source, info.compress_type, budget):
        pieces.append(piece)
        if sum(map(len, pieces)) > limit:
            return None
    found = b"".join(pieces)
    if zlib.crc32(found) != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename[:80]!r} is damaged")
    return found


def _zip_pieces(source: _Source, method: int, budget: Budget) -> Iterator[bytes]:
    if method == zipfile.ZIP_STORED:
        return _plain(source, budget)
    if method == zipfile.ZIP_DEFLATED:
        return _unpacked(source, lambda: _Inflate(-15), b"", budget)
    if method == zipfile.ZIP_BZIP2:
        return _unpacked(source, bz2.BZ2Decompressor, b"", budget)
    if method == zipfile.ZIP_LZMA:
        return _unpacked(source, lambda: _zip_lzma(source), b"", budget)
    raise NotImplementedError(f"its compression is not known (method {method})")


def _zip_lzma(source: _Source) -> _Machine:
    """A zip entry of LZMA begins with a version, the length of what follows, and the five bytes of .lzma."""
    head = source.read(9)
    if len(head) < 9:
        raise EOFError("its end is missing")
    properties, dictionary = head[4], struct.unpack("<I", head[5:9])[0]
    if properties >= 9 * 5 * 5 or dictionary > LZMA_MEMORY:
        raise ValueError("its LZMA header is not valid")
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{
        "id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": properties % 9, "lp": properties // 9 % 5,
        "pb": properties // 45}])


class _Part:
    """The next `length` bytes of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length

    def read(self, size: int) -> bytes:
        piece = self._file.read(min(size, self._left))
        self._left -= len(piece)
        return piece
