"""The tools of Mini-KVM Labs: building, running, grading, and the kit's own tests.

What holds for all of them stands here: texts, names and pipes are UTF-8 whatever the locale, and Ctrl-C ends
them without a traceback.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

if sys.getfilesystemencoding() != "utf-8":
    os.environ["PYTHONUTF8"] = "1"     # for the tools that this one starts
    with open("/proc/self/cmdline", "rb") as _file:
        _words = _file.read().split(b"\0")[:-1]
    os.execv(sys.executable, [_words[0], b"-X", b"utf8", *_words[1:]])


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C ends every command without a traceback; the interpreter then ends by SIGINT, for a shell 130."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _end
