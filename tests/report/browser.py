"""A headless Chromium driven over its own protocol: just enough to click, hover, read and photograph."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--hide-scrollbars",
)  # fmt: skip


def executable() -> str | None:
    """Path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab; `errors` collects console errors, exceptions and requests that left the file."""

    def __init__(self, *, width: int = 1280, height: int = 900) -> None:
        self.profile = tempfile.mkdtemp()
        self.size = (width, height)
        self.errors: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.last = 0

    def __enter__(self) -> Browser:
        program = executable()
        assert program is not None
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = Path(self.profile) / "DevToolsActivePort"
        for _ in range(300):
            if port_file.exists() and len(port_file.read_text().split()) > 1:
                break
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        self.loop.run_until_complete(self._connect(f"http://127.0.0.1:{port}/json/list"))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(*self.size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.run_until_complete(self._disconnect())
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.profile, ignore_errors=True)
        self.loop.close()

    async def _connect(self, url: str) -> None:
        self.session = aiohttp.ClientSession()
        async with self.session.get(url) as answer:
            tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
        self.socket = await self.session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0)

    async def _disconnect(self) -> None:
        await self.socket.close()
        await self.session.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events that come before are noted."""
        return self.loop.run_until_complete(asyncio.wait_for(self._send(method, parameters), 30))

    async def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.last += 1
        await self.socket.send_json({"id": self.last, "method": method, "params": parameters})
        while True:
            message = json.loads((await self.socket.receive()).data)
            if message.get("id") == self.last:
                assert "error" not in message, message
                return dict(message["result"])
            self._event(message)

    def _event(self, message: dict[str, Any]) -> None:
        kind, found = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(found["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(found["args"]))
        elif kind == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.errors.append(found["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            url = found["request"]["url"]
            if not url.startswith(("file:", "data:", "about:", "blob:")):
                self.errors.append(f"asked the network for {url}")

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        self.size = (width, height)
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )

    def media(self, *, dark: bool = False, kind: str = "screen") -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", media=kind, features=scheme)

    def go(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        for _ in range(200):
            time.sleep(0.03)
            if self.read("document.readyState") == "complete":
                return

    def read(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def place(self, selector: str) -> tuple[float, float]:
        """Middle of an element, scrolled into view."""
        quoted = json.dumps(selector)
        found = self.read(
            f"(() => {{ const e = document.querySelector({quoted}); if (!e) return null;"
            "e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        assert found is not None, f"nothing fits {selector}"
        return found[0], found[1]

    def hover(self, selector: str) -> None:
        x, y = self.place(selector)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        x, y = self.place(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def shot(self, path: Path, *, full: bool = False) -> None:
        """A PNG of the viewport or of the whole page."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", preferCSSPageSize=True)["data"]))
