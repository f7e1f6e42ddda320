"""Getting the well-known data sets: the one place that uses the network, and only when it is called.

Every file has a pinned size and sha256 (where each was verified stands beside the table). Bytes arrive in `NAME.partial`,
which a later call continues (HTTP Range); a file gets its name only when its digest is right. Files that are already
somewhere are taken with `from_folder`; one that was packed again is accepted by the digest of its unzipped content.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from convolve.errors import ConvolveError, InputError, UnknownNameError, UsageError
from convolve.files import atomic_path, cache_folder, digest

CHUNK = 2**18
TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """A file of a data set. `content_sha256` is that of the unzipped bytes, where it is known."""

    name: str
    size: int
    sha256: str
    content_sha256: str | None = None


@dataclass(frozen=True)
class Known:
    """A data set that can be got: its files, the addresses (folders) that serve them, its classes, licence and source."""

    name: str
    files: tuple[Remote, ...]
    origins: tuple[str, ...]
    classes: tuple[str, ...]
    credit: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Got:
    """What `get` did: where the files are, and which were downloaded, taken from a folder, or there already."""

    name: str
    folder: Path
    downloaded: tuple[str, ...]
    taken: tuple[str, ...]
    present: tuple[str, ...]


# MNIST: the content's digests were computed from a copy whose md5 sums are the published ones of the official files;
# those of the .gz files, and all of Fashion-MNIST's and CIFAR-10's, were found alike in several independent public loaders,
# beside the md5 sums and sizes that the authors publish (CIFAR-10: c32a1d4ab5d03f1284b67883e8d87530; Fashion-MNIST's
# training images: 8d4fb7e6c68d591d4c3dfef9ec88bf0d).
KNOWN = {
    known.name: known
    for known in (
        Known(
            "mnist",
            (
                Remote(
                    "train-images-idx3-ubyte.gz",
                    9_912_422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                Remote(
                    "train-labels-idx1-ubyte.gz",
                    28_881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                Remote(
                    "t10k-images-idx3-ubyte.gz",
                    1_648_877,
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                Remote(
                    "t10k-labels-idx1-ubyte.gz",
                    4_542,
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
            ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
            tuple("0123456789"),
            "Y. LeCun, C. Cortes, C. Burges",
        ),
        Known(
            "fashion-mnist",
            (
                Remote(
                    "train-images-idx3-ubyte.gz",
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                Remote(
                    "train-labels-idx1-ubyte.gz",
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                Remote(
                    "t10k-images-idx3-ubyte.gz",
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                Remote(
                    "t10k-labels-idx1-ubyte.gz",
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
            (
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
            ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
            "H. Xiao, K. Rasul, R. Vollgraf (Zalando), MIT licence",
        ),
        Known(
            "cifar10",
            (
                Remote(
                    "cifar-10-binary.tar.gz",
                    170_052_171,
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
            ),
            ("https://www.cs.toronto.edu/~kriz/",),
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            "A. Krizhevsky, V. Nair, G. Hinton",
        ),
    )
}


def known(name: str, table: Mapping[str, Known] = KNOWN) -> Known:
    """The row of a data set's name. Raises UnknownNameError with the nearest names."""
    if name not in table:
        raise UnknownNameError.of("data set", name, table)
    return table[name]


def data_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where data sets are kept: $CONVOLVE_CACHE/data, else $XDG_CACHE_HOME/convolve/data, else ~/.cache/convolve/data."""
    return cache_folder(environment) / "data"


def get(
    name: str,
    *,
    from_folder: str | Path | None = None,
    folder: Path | None = None,
    offline: bool = False,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    table: Mapping[str, Known] = KNOWN,
) -> Got:
    """Get a data set into the user's cache (or `folder`), from the network or from files in `from_folder`.

    `tell` hears the origin and the size before anything is fetched, `progress(name, bytes, of)` how far it is.
    Files that are there already are verified and kept. Raises ConvolveError when the network fails (what arrived is kept
    and continued next time), InputError when a file is missing or its digest is wrong, UnknownNameError.
    """
    row = known(name, table)
    target = folder or data_folder() / name
    tell = tell or (lambda _: None)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConvolveError(f"cannot write {target}", error.strerror or str(error), "choose another place") from error

    present = tuple(file.name for file in row.files if _verified(target / file.name, file))
    wanted = [file for file in row.files if file.name not in present]
    if from_folder is not None:
        for file in wanted:
            _take(Path(from_folder), target, file)
        return Got(name, target, (), tuple(file.name for file in wanted), present)
    if wanted and offline:
        received = f"{name} is not in {target}"
        raise UsageError("the network is switched off", received, "unset CONVOLVE_OFFLINE, or use --from FOLDER")
    if wanted:
        size = sum(file.size for file in wanted)
        tell(f"{name} ({row.credit}): {len(wanted)} files, {size / 1e6:,.1f} MB from {row.origins[0]} to {target}")
    for file in wanted:
        _download(file, row.origins, target, tell, progress)
    return Got(name, target, tuple(file.name for file in wanted), (), present)


def is_complete(name: str, folder: Path, table: Mapping[str, Known] = KNOWN) -> bool:
    """Whether all files of a data set lie in a folder, by name (their digests were checked when they came)."""
    return all((folder / file.name).is_file() for file in known(name, table).files)


def _take(source: Path, target: Path, file: Remote) -> None:
    """Copy a file, zipped or not, after verifying it."""
    plain = file.name.removesuffix(".gz")
    found = next((source / name for name in (file.name, plain) if (source / name).is_file()), None)
    if found is None:
        received = f"{source} has no {file.name}"
        raise InputError("the folder must hold the data set's files", received, "name the folder that holds it")
    if not _verified(found, file):
        received = f"the sha256 of {found} is {digest(found)}"
        raise InputError(f"{file.name} must be the official file ({file.sha256})", received, "get it again")
    with atomic_path(target / file.name) as path:
        if found.name == file.name:
            shutil.copyfile(found, path)
        else:
            with found.open("rb") as unzipped, gzip.open(path, "wb", compresslevel=6) as zipped:
                shutil.copyfileobj(unzipped, zipped)


def _verified(path: Path, file: Remote) -> bool:
    """Whether a file is the official one, byte for byte or, where that is pinned, by what it unzips to."""
    if not path.is_file():
        return False
    if digest(path) == file.sha256:
        return True
    if file.content_sha256 is None:
        return False
    try:
        with path.open("rb") as start:
            zipped = start.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as content:
            return _digest_of(content) == file.content_sha256
    except (OSError, EOFError, zlib.error):
        return False


def _digest_of(content: IO[bytes] | gzip.GzipFile, limit: int = 2**30) -> str:
    sha, total = hashlib.sha256(), 0
    while chunk := content.read(CHUNK):
        sha.update(chunk)
        total += len(chunk)
        if total > limit:
            return "longer than any data set here"
    return sha.hexdigest()


def _download(
    file: Remote,
    origins: Iterable[str],
    target: Path,
    tell: Callable[[str], None],
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Fetch one file from the first origin that serves it."""
    partial = target / f"{file.name}.partial"
    failures = []
    for origin in origins:
        address = origin + file.name
        try:
            _fetch(address, partial, file, progress)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            failures.append(f"{address}: {getattr(error, 'reason', None) or error}")
            tell(failures[-1])
            continue
        except OSError as error:
            why = error.strerror or str(error)
            raise ConvolveError(f"cannot write {partial}", why, "free some space, then repeat: it continues") from error
        if digest(partial) == file.sha256:
            partial.replace(target / file.name)
            return
        received = f"the sha256 of what came from {address} is {digest(partial)}"
        partial.unlink()
        failures.append(received)
        tell(f"{received}, not {file.sha256}: it was thrown away")
    remedy = "check the network and repeat (it continues where it stopped), or use --from FOLDER with files you have"
    raise ConvolveError(f"could not get {file.name}", "; ".join(failures), remedy)


def _fetch(address: str, partial: Path, file: Remote, progress: Callable[[str, int, int], None] | None) -> None:
    """Bring `partial` to the file's size, continuing what is there where the server can."""
    there = partial.stat().st_size if partial.exists() else 0
    if there >= file.size:
        if there == file.size:
            return  # whole, but not yet verified
        there = 0
    request = urllib.request.Request(address, headers={"User-Agent": "convolve", "Accept-Encoding": "identity"})
    if there:
        request.add_header("Range", f"bytes={there}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        continues = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {there}-")
        done = there if continues else 0
        with partial.open("ab" if continues else "wb") as out:
            while done < file.size and (chunk := response.read(min(CHUNK, file.size - done))):
                out.write(chunk)
                done += len(chunk)
                if progress:
                    progress(file.name, done, file.size)
            out.flush()
            os.fsync(out.fileno())
    if done < file.size:
        raise ConnectionError(f"the connection ended after {done:,} of {file.size:,} bytes")
