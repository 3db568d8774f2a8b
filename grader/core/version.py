"""Which kit this is: stated in a release, in each submission, and beside each grade."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess

from grader.course import ROOT

# Written into a release, which has no history to ask.
FILE = ROOT / "grader" / "VERSION"
HASHES = ROOT / "grader" / "HEADERS"


def number() -> str:
    """The VMM's own version."""
    found = re.search(r'^#define VERSION\s+"([^"]+)"', (ROOT / "common/core/options.c").read_text(), re.M)
    return found[1] if found else "0"


def kit_version() -> str:
    """Like "1.0-6f58eab", with "-edited" where files differ from that commit; "1.0" without a history."""
    if FILE.exists():
        return FILE.read_text().strip()
    commit = _git("rev-parse", "--short", "HEAD")
    edited = "-edited" if commit and _git("status", "--porcelain", "--untracked-files=no") else ""
    return "-".join(filter(None, [number(), commit])) + edited


def tracked_files() -> list[str]:
    """The kit's own files by their paths from its folder; empty where there is no history to ask."""
    return [name for name in _git("ls-files", "-z").split("\0") if name]


def blob_hash(content: bytes) -> str:
    """git's name for this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def kit_files() -> dict[str, str]:
    """The kit's own files by their paths, with git's name for each content; in a release the headers."""
    text = HASHES.read_text() if HASHES.exists() else _git("ls-files", "-s", "-z").replace("\0", "\n")
    return {match[2]: match[1] for match in re.finditer(r"^\d+ ([0-9a-f]+) \d+\t(.+)$", text, re.M)}


def git_refusal() -> str:
    """git's own words where it is there and does not work on this clone, which may belong to another user."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, env={**os.environ, "LC_ALL": "C"},
                              text=True, errors="replace", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              check=False)
    except FileNotFoundError:
        return "git is not installed" if (ROOT / ".git").exists() else ""
    said = done.stderr.strip()
    return said if done.returncode != 0 and (ROOT / ".git").exists() else ""


def _git(*words: str) -> str:
    """What a git command prints; empty where this is no clone, or git does not work: see git_refusal."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, text=True, errors="surrogateescape",
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
