"""Files that are whole at any moment."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: Path, text: str, *, encoding: str = "utf-8", newline: str | None = None) -> None:
    """Writes a text file. Who reads it sees all of the old text or all of the new one, even if several
    processes write it."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "x", encoding=encoding, newline=newline) as file:
            file.write(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
