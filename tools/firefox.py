"""Drive every kind of page in Firefox, as a check by hand: python tools/firefox.py [FOLDER for screenshots].

Needs a firefox or firefox-esr on PATH and `pip install websockets`; no geckodriver: Firefox speaks WebDriver BiDi itself. Each page is
opened from file:// at a phone's and a projector's width, stepped, pointed at, driven by keys, shown in all themes; the script fails
on an error, on a warning, on a request to anywhere, and on a page that is wider than its window.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import websockets
from torch import nn

import convolve
from convolve.explain.animation import OPERATORS

PORT = 9333
WIDTHS = ((390, 844), (1920, 1080))
RIGHT, ENTER, PAGE_DOWN = "\ue014", "\ue007", "\ue00f"  # WebDriver's names of keys
CELL = """(() => { const r = document.querySelectorAll('svg.live rect.c')[1].getBoundingClientRect();
  return [r.x + r.width / 2, r.y + r.height / 2]; })()"""


class Firefox:
    """One headless Firefox with one page; `faults` are what its console and its network should not have shown."""

    def __init__(self, profile: str) -> None:
        name = shutil.which("firefox-esr") or shutil.which("firefox")
        if name is None:
            raise SystemExit("no firefox on PATH")
        flags = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", str(PORT), "about:blank"]
        self.process = subprocess.Popen([name, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.faults: list[str] = []
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._count = 0

    async def start(self) -> None:
        for _ in range(120):
            try:
                self._socket = await websockets.connect(f"ws://127.0.0.1:{PORT}/session", max_size=None)
                break
            except OSError:
                await asyncio.sleep(0.5)
        self._reader = asyncio.create_task(self._read())
        await self.call("session.new", capabilities={})
        await self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self.context = (await self.call("browsingContext.getTree"))["contexts"][0]["context"]

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            told = message.get("params", {})
            if message.get("id") in self._waiting:
                self._waiting.pop(message["id"]).set_result(message)
            elif message.get("method") == "log.entryAdded" and told["level"] in ("error", "warn"):
                self.faults.append(told["text"])
            elif message.get("method") == "network.beforeRequestSent":
                address = told["request"]["url"]
                if not address.startswith(("file:", "data:", "blob:", "about:")):
                    self.faults.append(f"asked for {address}")

    async def call(self, method: str, **arguments: Any) -> Any:
        self._count += 1
        future = self._waiting[self._count] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": self._count, "method": method, "params": arguments}))
        answer = await asyncio.wait_for(future, 120)
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['message']}")
        return answer["result"]

    async def open(self, path: Path, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        await self.call("browsingContext.setViewport", context=self.context, viewport=size)
        await self.call("browsingContext.navigate", context=self.context, url=path.resolve().as_uri(), wait="complete")

    async def js(self, expression: str) -> Any:
        answer = await self.call(
            "script.evaluate",
            expression=f"JSON.stringify({expression}) ?? null",
            target={"context": self.context},
            awaitPromise=True,
        )
        if answer["type"] != "success":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"]) if answer["result"]["type"] == "string" else None

    async def press(self, *keys: str) -> None:
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        await self.call(
            "input.performActions", context=self.context, actions=[{"type": "key", "id": "k", "actions": steps}]
        )

    async def point(self, x: float, y: float) -> None:
        steps = [{"type": "pointerMove", "x": int(x), "y": int(y)}]
        await self.call(
            "input.performActions", context=self.context, actions=[{"type": "pointer", "id": "m", "actions": steps}]
        )

    async def picture(self, path: Path) -> None:
        shot = await self.call("browsingContext.captureScreenshot", context=self.context)
        path.write_bytes(base64.b64decode(shot["data"]))


async def animation(fox: Firefox, path: Path, width: int, height: int) -> None:
    """Step by keys, point at a cell, turn the matrix, change the theme."""
    await fox.open(path, width, height)
    await fox.press(RIGHT, RIGHT, RIGHT)
    where = await fox.js("document.querySelector('#where').textContent")
    assert where.startswith("4 /"), where
    x, y = await fox.js(CELL)
    if 0 <= y < height:
        await fox.point(x, y)
    await fox.js("(document.querySelector('#turn').click(), 1)")
    for theme in ("dark", "print", "light"):
        await fox.js(f"(convolve.setTheme('{theme}'), 1)")
    assert await fox.js("document.querySelectorAll('#rows canvas, #matrix canvas').length") == 2


async def explanation(fox: Firefox, path: Path, width: int, height: int) -> None:
    """Choose a unit by keys, look at its gradient, go back to the first moment."""
    await fox.open(path, width, height)
    for _ in range(120):
        if await fox.js("document.documentElement.dataset.ready || ''") == "yes":
            break
        await asyncio.sleep(0.25)
    await fox.js("(document.querySelector('#layer-0 .maps').focus(), 1)")
    await fox.press(ENTER)
    await fox.press(RIGHT, PAGE_DOWN)
    await fox.js("(document.querySelector('#choices button[value=gradient]').click(), 1)")
    await asyncio.sleep(0.5)
    assert await fox.js("document.querySelector('#follows').textContent.length") > 10
    await fox.js("(convolve.setTheme('dark'), 1)")
    if await fox.js("document.querySelector('#time') !== null"):
        moved = (
            "(() => { const t = document.querySelector('#time'); t.value = 0; t.dispatchEvent(new Event('input')); })()"
        )
        await fox.js(f"({moved}, 1)")
        assert "random" in await fox.js("document.querySelector('#moment').textContent")


def pages(folder: Path) -> list[tuple[Path, Any]]:
    """Every kind of page, and how it is driven."""
    found: list[tuple[Path, Any]] = [
        (convolve.animate(name).save(folder / f"{name}.html"), animation) for name in OPERATORS
    ]
    found.append((convolve.animate("conv", "sample:flower").save(folder / "photo.html"), animation))
    found.append((convolve.animate("conv", "9").save(folder / "one-axis.html"), animation))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 8, 5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    net(torch.zeros(1, 3, 48, 64))
    shown = convolve.explain_image(net, "sample:china", input="3x48x64", out=folder / "module")
    found.append((Path(shown.files["page"]), explanation))
    run = convolve.train("digits", epochs=2, snapshots=3, out=folder / "run")
    shown = convolve.explain_image(run.files["model"], "sample:flower", out=folder / "digits")
    found.append((Path(shown.files["page"]), explanation))
    return found


async def main(pictures: Path | None) -> None:
    with tempfile.TemporaryDirectory() as profile, tempfile.TemporaryDirectory() as folder:
        made = pages(Path(folder))
        fox = Firefox(profile)
        try:
            await fox.start()
            print(await fox.js("navigator.userAgent"))
            for path, drive in made:
                name = path.stem if drive is animation else path.parent.name
                for width, height in WIDTHS:
                    await drive(fox, path, width, height)
                    wide = await fox.js("document.documentElement.scrollWidth")
                    assert wide <= width, f"{name} is {wide} pixels wide in a window of {width}"
                    assert not fox.faults, (name, fox.faults)
                    if pictures is not None:
                        await fox.picture(pictures / f"{name}-{width}.png")
                print(f"{name}: works")
        finally:
            fox.process.terminate()
            fox.process.wait()


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(given))
