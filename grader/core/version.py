"""Which kit this is: stated in a release, in each submission, and beside each grade."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess

from grader.course import ROOT

# Written into a release, which has no git history.
FILE = ROOT / "grader" / "VERSION"
HASHES = ROOT / "grader" / "HEADERS"


def number() -> str:
    """The VMM's own version."""
    found = re.search(r'^#define VERSION\s+"([^"]+)"', (ROOT / "common/core/options.c").read_text(), re.M)
    return found[1] if found else "0"


def kit_version() -> str:
    """Like "1.0-6f58eab", with "-edited" if files differ from that commit; "1.0" without git."""
    if FILE.exists():
        return FILE.read_text().strip()
    commit = _git("rev-parse", "--short", "HEAD")
    edited = "-edited" if commit and _git("status", "--porcelain", "--untracked-files=no") else ""
    return "-".join(filter(None, [number(), commit])) + edited


def tracked_files() -> list[str]:
    """The relative paths of the kit's own files; empty without git."""
    return [name for name in _git("ls-files", "-z").split("\0") if name]


def blob_hash(content: bytes) -> str:
    """git's hash of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def kit_files() -> dict[str, str]:
    """The paths of the kit's own files with git's hash of each; in a release only the headers."""
    text = HASHES.read_text() if HASHES.exists() else _git("ls-files", "-s", "-z").replace("\0", "\n")
    return {match[2]: match[1] for match in re.finditer(r"^\d+ ([0-9a-f]+) \d+\t(.+)$", text, re.M)}


def git_refusal() -> str:
    """git's error message if it does not work on this clone, which may belong to another user; else empty."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, env={**os.environ, "LC_ALL": "C"},
                              text=True, errors="replace", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              check=False)
    except FileNotFoundError:
        return "git is not installed" if (ROOT / ".git").exists() else ""
    said = done.stderr.strip()
    return said if done.returncode != 0 and (ROOT / ".git").exists() else ""


def _git(*words: str) -> str:
    """The output of a git command; empty if this is not a clone or git does not work: see git_refusal."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, text=True, errors="surrogateescape",
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
