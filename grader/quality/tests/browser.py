"""A headless Chromium, driven over its DevTools protocol through a pipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
TIMEOUT = 120.0  # seconds for an answer; generous for loaded machines


class Browser:
    """One page in a browser of its own."""

    def __init__(self, page: Path) -> None:
        """Opens a page from disk."""
        self._folder = tempfile.mkdtemp()
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # It reads from descriptor 3 and writes to 4.
        command = (f"exec {PROGRAM} --headless=new --no-sandbox --disable-gpu --remote-debugging-pipe "
                   f'--window-size=1000,900 --user-data-dir="$0" about:blank 3<&{theirs_in} 4>&{theirs_out}')
        self._process = subprocess.Popen(["bash", "-c", command, self._folder],
                                         pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._timer = threading.Timer(TIMEOUT, self._process.kill)  # then reading finds the end of file
        self._timer.start()
        self._rest = b""
        self._last = 0
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.errors: list[str] = []
        self.call("Runtime.enable")
        self.call("Network.enable")
        self.requests: list[str] = []
        self.call("Page.navigate", url=page.as_uri())
        while self.evaluate("document.readyState + location.protocol") != "completefile:":
            time.sleep(0.05)

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a call; errors and requests of the page are collected on the way."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters,
                   **({"sessionId": self._session} if self._session else {})}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> Any:
        while b"\0" not in self._rest:
            data = os.read(self._in, 1 << 16)
            if not data:
                raise RuntimeError("the browser has ended, or did not answer in time")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def drawn(self) -> None:
        """Waits until the page has drawn what was asked for."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
                      ".then(() => 0)")

    def key(self, key: str) -> None:
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)
        self.drawn()

    def mouse(self, kind: str, x: float, y: float, **parameters: Any) -> None:
        """Moves, presses, releases or turns the wheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **parameters)
        self.drawn()

    def close(self) -> None:
        """Ends the browser."""
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)
