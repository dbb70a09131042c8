"""A page in headless Chromium that a test can look at, by its DevTools."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets

from tests.report.browser import CHROMIUM, FLAGS

PATIENCE = 120.0  # seconds for a browser to start, and for what a test waits for on its page


@contextmanager
def chromium(profile: Path, url: str) -> Iterator[int]:
    """Headless Chromium on a page; gives the port of its DevTools."""
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told, until = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text()):
            assert time.monotonic() < until and process.poll() is None, "Chromium did not start"
            time.sleep(0.05)
        yield int(told.read_text().split()[0])
    finally:
        process.kill()
        process.wait(60)


class Page:
    """A page by the socket of its DevTools."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0

    async def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        await self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            reply = json.loads(await asyncio.wait_for(self._socket.recv(), PATIENCE))
            if reply.get("id") == self._number:
                return reply["result"]

    async def value(self, code: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=code, returnByValue=True))["result"].get("value")

    async def until(self, code: str) -> None:
        """Wait until an expression is true."""
        ends = time.monotonic() + PATIENCE
        while not await self.value(code):
            assert time.monotonic() < ends, code
            await asyncio.sleep(0.1)

    async def shows(self, width: int, scheme: str) -> None:
        """Be as wide as a window of so many pixels, in a "light" or "dark" scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def shoot(self, file: Path) -> None:
        """The whole page as a PNG file."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def opened(port: int, url: str) -> AsyncIterator[Page]:
    """The page at a URL that Chromium shows."""
    pages = httpx.get(f"http://127.0.0.1:{port}/json").json()
    address = next(page["webSocketDebuggerUrl"] for page in pages if page["url"].startswith(url))
    async with websockets.connect(address, max_size=None) as socket:
        yield Page(socket)
