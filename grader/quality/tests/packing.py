"""Archives as learners, and those who attack, pack them: for the tests of what reads them."""

from __future__ import annotations

import io
import tarfile
import warnings
import zipfile
from typing import Any


def tar(*entries: tuple[str, bytes], mode: str = "w:gz", **special: tuple[bytes, str]) -> bytes:
    """A tar file; `special` entries have a type and what they link to."""
    packed = io.BytesIO()
    opened: Any = tarfile.open  # its types ask for a literal mode
    with opened(fileobj=packed, mode=mode) as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, (kind, link) in special.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.type, entry.linkname = kind, link
            archive.addfile(entry)
    return packed.getvalue()


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0o100644) -> bytes:
    """A zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")      # the same name twice is wanted
        for name, content in entries:
            entry = zipfile.ZipInfo(name or "x")
            entry.filename = name
            entry.external_attr = mode << 16
            entry.compress_type = method
            archive.writestr(entry, content)
    return packed.getvalue()
