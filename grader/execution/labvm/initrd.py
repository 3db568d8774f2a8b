"""The lab VM's only file system, a cpio archive (Linux: driver-api/early-userspace/buffer-format)."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from grader.execution.labvm.kernel import module_content

Entry = tuple[str, int, bytes]  # name, mode, content


def archive(entries: Sequence[Entry]) -> bytes:
    """The entries in cpio's "newc" format."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        # inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name's size, no checksum
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4)
        out += content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def build(init: Path, runner: Path, modules: Sequence[tuple[str, Path]]) -> bytes:
    """The archive with init, the runner, and the modules, whose names give the load order."""
    program, plain, folder = stat.S_IFREG | 0o755, stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
    entries: list[Entry] = [("init", program, init.read_bytes()), ("runner", program, runner.read_bytes())]
    entries.append(("modules", folder, b""))
    for number, (name, path) in enumerate(modules):
        entries.append((f"modules/{number:02}-{name}.ko", plain, module_content(path)))
    return archive(entries)
