"""Export a trained network for other programs, and check the file on real images before it takes its name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from convolve.data.load import read_split
from convolve.data.picture import open_picture
from convolve.data.preprocess import Preprocessing
from convolve.data.records import sample
from convolve.data.samples import SAMPLES, sample_photo
from convolve.errors import ConvolveError, InputError, UnknownNameError, UsageError
from convolve.files import atomic_path, digest
from convolve.jobs.classifier import Classifier, load
from convolve.jobs.export_formats import FORMATS, INPUT, OUTPUTS, Format
from convolve.jobs.predict import image_files
from convolve.jobs.results import html_table
from convolve.jobs.versions import versions
from convolve.ops.precision import precision

NOTES = "convolve.export/1"
IMAGES = 64  # that the file is checked on
BATCH = 16
DIGIT = 64  # pixels: networks of small pictures are checked on digits, others on parts of photos
TOLERANCE = 1e-3  # of probabilities, and of logits in units of the largest one (or of 1); rounding gives about 1e-6


@dataclass(frozen=True)
class Check:
    """The file beside the network it came from, on `images` real pictures `of` somewhere: largest differences, equal answers."""

    of: str
    images: int
    agreement: int
    max_difference: float
    max_probability_difference: float


@dataclass(frozen=True)
class Exported:
    """A file that other programs can use; `input` and `outputs` give type and shape by name, None standing for any batch."""

    file: Path
    to: str
    bytes: int
    input: dict[str, tuple[str, tuple[int | None, ...]]]
    outputs: dict[str, tuple[str, tuple[int | None, ...]]]
    classes: tuple[str, ...]
    source: str
    source_sha256: str
    check: Check
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        described = [
            {name: {"type": kind, "shape": list(shape)} for name, (kind, shape) in values.items()}
            for values in (self.input, self.outputs)
        ]
        return {
            "file": str(self.file),
            "to": self.to,
            "bytes": self.bytes,
            "input": described[0],
            "outputs": described[1],
            "classes": list(self.classes),
            "source": self.source,
            "source_sha256": self.source_sha256,
            "check": asdict(self.check),
            "seconds": self.seconds,
        }

    def lines(self) -> list[str]:
        """What the command prints: the file, what goes in and comes out, and how it was checked."""
        check = self.check
        agreement = f"top-1 agreement {check.agreement}/{check.images}"
        differences = f"{check.max_difference:.1e} of logits, {check.max_probability_difference:.1e} of probabilities"
        program = [
            f"{word:<9} {name} {kind} [{', '.join('batch' if side is None else str(side) for side in shape)}]"
            for word, values in (("input", self.input), ("output", self.outputs))
            for name, (kind, shape) in values.items()
        ]
        return [
            f"{self.file}  {self.bytes / 1e6:.2f} MB",
            *(program or ["weights   under the network's parameter names; no program"]),
            f"checked   on {check.images} images ({check.of}): {agreement}, largest difference {differences}",
        ]

    def _repr_html_(self) -> str:
        return html_table(("", "export"), [("", line) for line in self.lines()])


def export(
    model: str | os.PathLike[str],
    to: str = "onnx",
    *,
    out: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    network: str | None = None,
    workers: int | None = None,
) -> Exported:
    """Write the network of a `model` file (or run folder) as one file `to` "onnx", "torch" (a .pt2 program) or "safetensors".

    A program takes `images`, uint8 [batch, c, h, w] of the model's size, and gives `logits` and `probabilities`: the normalisation is
    inside, and so are classes, preprocessing, metrics, versions and the digest of the model file (docs/export.md).
    `out` is model.onnx (.pt2, .weights.safetensors) beside the model otherwise; a file there is replaced. `data` are
    images to check the file on: a data set as for `train`, a folder of images, or an image; otherwise digits or sample photos.
    The file is read back and run on them first, and takes its name only when it gives what the network gives.

    Raises ConvolveError where it does not, where a package is missing (`pip install 'convolve[export]'`), and for a network
    that cannot be traced.

    >>> import convolve, tempfile
    >>> run = convolve.train("digits", epochs=1, out=tempfile.mkdtemp() + "/run")
    >>> made = convolve.export(run.folder, "safetensors")
    >>> made.file.name, made.check.agreement, made.check.images
    ('model.weights.safetensors', 64, 64)
    """
    started = time.perf_counter()
    if to not in FORMATS:
        raise UnknownNameError.of("format", to, FORMATS)
    form = FORMATS[to]
    form.check_packages()
    source = _model_file(Path(model))
    classifier = load(source, network=network).cpu()
    target = _target(form, source, out)
    pictures, of = _pictures(classifier, data, workers)
    sha256 = digest(source)
    notes = _notes(form, classifier, source, sha256)
    with atomic_path(target) as partial:
        partial.write_bytes(form.write(classifier, notes))
        check = _checked(form, partial, classifier, pictures, of)
        if form.read_notes(partial) != notes:
            raise ConvolveError("an exported file must hold its notes", f"{target} lost them", "report this")
        size = partial.stat().st_size
    shape = (None, classifier.preprocessing.channels, *classifier.preprocessing.size)
    program = form.name != "safetensors"
    return Exported(
        file=target,
        to=to,
        bytes=size,
        input={INPUT: ("uint8", shape)} if program else {},
        outputs={name: ("float32", (None, len(classifier.classes))) for name in OUTPUTS} if program else {},
        classes=classifier.classes,
        source=str(source),
        source_sha256=sha256,
        check=check,
        seconds=time.perf_counter() - started,
    )


def _model_file(path: Path) -> Path:
    inside = path / "model.safetensors"
    return inside if inside.is_file() else path


def _target(form: Format, source: Path, out: str | os.PathLike[str] | None) -> Path:
    target = source.with_name(f"{source.name.removesuffix('.safetensors')}{form.ending}") if out is None else Path(out)
    if target.is_dir():
        raise UsageError(
            "an export is a file", f"{target} is a folder", f"name a file: {target / 'model'}{form.ending}"
        )
    if target.exists() and target.samefile(source):
        raise UsageError("an export never replaces its model", f"got {target} for both", "name another file")
    return target


def _notes(form: Format, classifier: Classifier, source: Path, sha256: str) -> dict[str, str]:
    """Metadata: every value is text, JSON where it is more than a word."""
    rule, card = classifier.preprocessing, classifier.card
    structured = {
        "classes": list(classifier.classes),
        "preprocessing": rule.to_dict(),
        "architecture": card["architecture"],
        "metrics": card["metrics"],
        "versions": card["versions"],
        "exported_with": versions(form.packages),
    }
    program = {
        "input": f"{INPUT}: uint8 [batch, {rule.channels}, {rule.size[0]}, {rule.size[1]}], "
        f"{'RGB' if rule.channels == 3 else 'grey'}, 0 to 255, not normalised",
        "outputs": "logits: float32 [batch, classes]; probabilities: their softmax",
    }
    return {
        "schema": NOTES,
        **({name: text for name, text in program.items() if form.name != "safetensors"}),
        **{name: json.dumps(value, ensure_ascii=False, sort_keys=True) for name, value in structured.items()},
        "source": source.name,
        "source_sha256": sha256,
    }


def _checked(form: Format, path: Path, classifier: Classifier, pictures: torch.Tensor, of: str) -> Check:
    """Run the file on the pictures, in batches of several sizes, beside the network; raises ConvolveError where they part."""
    run = form.open(path, classifier)
    ours, theirs, shares = [], [], []
    with torch.inference_mode(), precision("exact"):
        for batch in (pictures[:1], *torch.split(pictures[1:], BATCH)):
            ours.append(classifier(batch))
            logits, probabilities = run(batch)
            theirs.append(logits)
            shares.append(probabilities)
    a, b, p = torch.cat(ours).double(), torch.cat(theirs).double(), torch.cat(shares).double()
    if not a.isfinite().all():
        received = "the network gives NaN or Inf on real images"
        raise InputError("only a network with finite results is exported", received, "export an earlier checkpoint")
    differences = [(a - b).abs().max().item(), (a.softmax(1) - p).abs().max().item()]
    check = Check(of, len(pictures), int((a.argmax(1) == p.argmax(1)).sum()), *differences)
    limit = TOLERANCE * max(1.0, a.abs().max().item())
    if not (check.max_difference <= limit and check.max_probability_difference <= TOLERANCE):  # NaN fails too
        received = (
            f"logits differ by {check.max_difference:.1e} (limit {limit:.1e}), probabilities by "
            f"{check.max_probability_difference:.1e} (limit {TOLERANCE:.1e}) on {check.images} images ({of})"
        )
        raise ConvolveError(
            "an exported file must give what its network gives", received, "nothing was written: report it"
        )
    return check


def _pictures(
    classifier: Classifier, data: str | os.PathLike[str] | None, workers: int | None
) -> tuple[torch.Tensor, str]:
    """Up to IMAGES real pictures as the network takes them, and what they are."""
    rule = classifier.preprocessing
    if data is None and (rule.channels == 1 or max(rule.size) <= DIGIT):
        return _drawn(rule, "digits", tuple("0123456789"), workers), "digits"
    if data is None:
        return _parts_of_photos(rule), "parts of two photos"
    path = Path(data)
    files = list(image_files([path])) if path.is_dir() or (path.is_file() and path.suffix.lower() != ".zip") else []
    if not files:  # a name, a .zip, or a folder without images by name: a data set, or an error that says what is wrong
        return _drawn(rule, str(data), classifier.classes, workers), str(data)
    chosen = [files[index] for index in sample(len(files), IMAGES).tolist()]
    pictures = []
    for file in chosen:
        try:
            pictures.append(rule.apply(file))
        except InputError as error:
            problem = error
    if not pictures:
        raise InputError("checking needs images", f"none of {path} can be read: {problem}", "name other --data")
    return torch.stack(pictures), str(data)


def _drawn(rule: Preprocessing, data: str, classes: tuple[str, ...], workers: int | None) -> torch.Tensor:
    split = read_split(data, size=rule.size, channels=rule.channels, classes=classes, workers=workers)
    return split.images.batch(sample(len(split), IMAGES))


def _parts_of_photos(rule: Preprocessing) -> torch.Tensor:
    """The two sample photos, whole and in quarters and ninths and …: as many different parts as the check takes."""

    def parts() -> Iterator[torch.Tensor]:
        photos = [open_picture(sample_photo(name), name=name) for name in SAMPLES]
        for cuts in range(1, IMAGES):
            for photo in photos:
                w, h = photo.width / cuts, photo.height / cuts
                for index in range(cuts * cuts):
                    left, top = index % cuts * w, index // cuts * h
                    yield rule.apply(photo.crop((int(left), int(top), int(left + w), int(top + h))))

    return torch.stack([part for part, _ in zip(parts(), range(IMAGES), strict=False)])
