"""The weights that torchvision publishes for networks of the table, and how to get one: only on the explicit word "torchvision".

A file's name ends with the first eight digits of its sha256; what arrives, and what lies in torch.hub's folder already, must
agree. The releases were trained on ImageNet's pictures normalised by `mean` and `std` (torchvision's documentation;
its GoogLeNet normalises once more inside, which together is 0.5 and 0.5).
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.hub

from convolve.errors import ConvolveError, UsageError
from convolve.files import digest

ORIGIN = "https://download.pytorch.org/models/"
TIMEOUT = 30.0  # seconds
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Release:
    """A published file for one variant of a network, and how its pictures were normalised."""

    model: str
    variant: str
    file: str
    mean: tuple[float, ...] = _IMAGENET[0]
    std: tuple[float, ...] = _IMAGENET[1]

    @property
    def digits(self) -> str:
        """The beginning of the file's sha256."""
        return self.file.rpartition("-")[2].removesuffix(".pth")


RELEASES = (
    Release("alexnet", "torchvision", "alexnet-owt-7be5be79.pth"),
    Release("vgg11", "vgg", "vgg11-8a719046.pth"),
    Release("vgg13", "vgg", "vgg13-19584684.pth"),
    Release("vgg16", "vgg", "vgg16-397923af.pth"),
    Release("vgg19", "vgg", "vgg19-dcbb9e9d.pth"),
    Release("vgg11", "bn", "vgg11_bn-6002323d.pth"),
    Release("vgg13", "bn", "vgg13_bn-abd245e5.pth"),
    Release("vgg16", "bn", "vgg16_bn-6c64b313.pth"),
    Release("vgg19", "bn", "vgg19_bn-c79401a0.pth"),
    Release("googlenet", "torchvision", "googlenet-1378be20.pth", *_HALF),
    Release("mobilenet_v2", "1.0", "mobilenet_v2-b0353104.pth"),
    Release("resnet18", "torchvision", "resnet18-f37072fd.pth"),
    Release("resnet34", "torchvision", "resnet34-b627a593.pth"),
    Release("resnet50", "torchvision", "resnet50-0676ba61.pth"),
)


def release_of(model: str, variant: str) -> Release:
    """The release for that variant of a network; raises UsageError where there is none, naming those that have one."""
    for release in RELEASES:
        if (release.model, release.variant) == (model, variant):
            return release
    own = [f"{release.model}-{release.variant}" for release in RELEASES if release.model == model]
    known = own or sorted({release.model for release in RELEASES})
    received = f"got {model} ({variant})"
    raise UsageError("torchvision publishes weights for some networks", received, f"use {', '.join(known)}")


def recognised(sha256: str) -> Release | None:
    """The release whose file has this digest, or None."""
    return next((release for release in RELEASES if sha256.startswith(release.digits)), None)


def fetch(release: Release, say: Callable[[str], None], offline: bool = False) -> Path:
    """The release's file in torch.hub's folder, downloaded if it is not there; `say` hears from where and how large.

    Raises ConvolveError when it cannot be got, or when its content is not what its name says.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / release.file
    address = ORIGIN + release.file
    remedy = "get the file elsewhere, and name it: --weights FILE"
    if not path.is_file():
        if offline:
            raise UsageError(
                "the network is switched off", f"{address} was asked for", f"unset CONVOLVE_OFFLINE, or {remedy}"
            )
        try:
            head = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(head, timeout=TIMEOUT) as answer:
                length = int(answer.headers.get("Content-Length") or 0)
            say(f"download  {address} ({length / 1e6:,.1f} MB) to {path}")
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), release.digits, progress=False)
        except (OSError, RuntimeError, ValueError) as error:  # an address that fails, a disk that is full, a wrong hash
            reason = f"{type(error).__name__}: {error}"
            raise ConvolveError(f"cannot download {address}", reason, remedy) from error
    if not digest(path).startswith(release.digits):
        received = f"its sha256 does not begin with {release.digits}"
        raise ConvolveError(f"{path} is not what torchvision published", received, "remove it, and try again")
    return path
