"""The tools of Mini-KVM Labs: building, running, grading, and the kit's own tests."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Optional, Type


def _end(kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    """Ctrl-C ends every command without a traceback; the interpreter then ends by SIGINT, for a shell 130."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _end
