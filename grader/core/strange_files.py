"""Reading a stranger's files: only regular ones, which can be neither links nor without end."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from grader.execution.runs import CannotGrade

HEADERS_MAX = 100             # headers beside the lab's files
# A header that is taken. Other names are left out: no machine could store some of them.
HEADER = re.compile(r"[\w.+-]{1,100}\.h", re.ASCII)
FILE_MAX = 256 << 10          # bytes of one source file; the longest solution has 16 KB


def read_plain(path: Path, limit: int) -> bytes | None:
    """A file's content, at most a byte more than `limit`; None for a link, a folder, a device, a pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        with open(fd, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise unreadable(error) from error


def unreadable(error: OSError) -> CannotGrade:
    """It is there, and this machine does not let us read it."""
    return CannotGrade(f"{error.filename or 'it'} can't be read: {error.strerror}",
                       "make it readable for you: chmod -R u+rX, or grade as the user whose it is")


def read_source(path: Path) -> bytes:
    """A source file that was named to us. Raises CannotGrade if a submission with it would be refused."""
    content = read_plain(path, FILE_MAX)
    if content is None or len(content) > FILE_MAX:
        raise CannotGrade(f"{path} " + ("is a link or a device, not a file" if content is None else
                                        f"has more than {FILE_MAX >> 10} KB"),
                          "name a C file itself; it is read like a submission")
    return content


def read_headers(folder: Path) -> dict[str, bytes]:
    """The headers beside a source file; those that are not taken from a submission are left out. Raises
    CannotGrade if they are too many."""
    headers: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.h")):
        content = read_plain(path, FILE_MAX) if HEADER.fullmatch(path.name) else None
        if content is not None and len(content) <= FILE_MAX:
            headers[path.name] = content
        if len(headers) > HEADERS_MAX:
            raise CannotGrade(f"{folder} has more than {HEADERS_MAX} headers",
                              "put the file in a folder with only the headers that it includes")
    return headers
