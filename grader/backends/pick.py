"""Choosing the back end: BACKEND=auto|kvm|vm, and what the lab needs."""

from __future__ import annotations

from typing import Sequence

from grader.backends.base import Backend
from grader.backends.kvm import KvmBackend

# The kinds of guest that a lab may need; grader/probe.c boots one of each.
KINDS = ("real", "interrupts", "protected", "paging32", "longmode")


def pick_backend(name: str, needs: Sequence[str] = ()) -> Backend:
    """The back end for `name` ("auto", "kvm" or "vm") and guests of the kinds `needs`."""
    return KvmBackend("kvm: the only back end yet")
