"""The forms that a trained network is exported in, FORMATS: one row each. Each writes bytes and runs what it wrote.

    onnx           one file of standard operators (opset 18), weights inside; input and outputs below
    torch          a program of torch.export (.pt2): torch alone loads and runs it; the same input and outputs
    safetensors    the weights under the network's parameter names, without our card; no program

A program takes `images`, uint8 [batch, c, h, w] as Preprocessing.apply makes them, and gives `logits` and `probabilities`,
float32 [batch, classes]. So (x/255 - mean) / std is in the file; fitting a picture of any size to h x w is not, because Pillow's
antialiased scaling has no operator that gives the same pixels. The batch may have any size.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from convolve.data.preprocess import Preprocessing, normalise
from convolve.errors import ConvolveError
from convolve.jobs.classifier import Classifier
from convolve.models.file import load_weights
from convolve.nn import TableConv2d

OPSET = 18
INPUT, OUTPUTS = "images", ("logits", "probabilities")
LARGEST_ONNX = 2**31 - 2**20  # protobuf's limit on one message, less room for the graph
EXAMPLES = 2  # pictures that the graph is traced with: with one, a size of 1 would be taken for a constant

Run = Callable[[Tensor], tuple[Tensor, Tensor]]  # uint8 [n, c, h, w] to logits and probabilities [n, classes]
Notes = Mapping[str, str]  # metadata: text by name, JSON where it is more than a word


@dataclass(frozen=True)
class Format:
    """`write` makes the bytes of a file; `open` makes of such a file a function that runs it (`net` gives safetensors its layers)."""

    name: str
    ending: str
    packages: tuple[str, ...]
    write: Callable[[Classifier, Notes], bytes]
    open: Callable[[Path, Classifier], Run]
    read_notes: Callable[[Path], dict[str, str]]

    def check_packages(self) -> None:
        """Raises ConvolveError naming what must be installed."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if absent:
            rule = f"exporting to {self.name} needs the packages {', '.join(self.packages)}"
            raise ConvolveError(rule, f"not installed: {', '.join(absent)}", "pip install 'convolve[export]'")


class Program(nn.Module):
    """What is exported: normalisation, network, softmax. `net` is changed: its connection tables become plain convolutions."""

    def __init__(self, net: nn.Module, rule: Preprocessing) -> None:
        super().__init__()
        for module in list(net.modules()):
            for name, child in module.named_children():
                if isinstance(child, TableConv2d):  # else its weight would be put together again in every run
                    setattr(module, name, child.plain())
        self.net, self.rule = net, rule

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(normalise(images, self.rule))
        return logits, logits.softmax(1)


def _program(classifier: Classifier) -> tuple[Program, Tensor]:
    rule = classifier.preprocessing
    program = Program(copy.deepcopy(classifier.net).cpu(), rule).eval().requires_grad_(False)
    return program, torch.zeros(EXAMPLES, rule.channels, *rule.size, dtype=torch.uint8)


def _traced(classifier: Classifier) -> torch.export.ExportedProgram:
    program, example = _program(classifier)
    normalise(example, program.rule)  # its constants are remembered; they must not be made while tracing
    with _quiet(), torch.no_grad():
        try:
            return torch.export.export(program, (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}})
        except Exception as error:  # torch raises whatever the network's own code meets while it is traced
            raise _failed(error) from error


def _write_onnx(classifier: Classifier, notes: Notes) -> bytes:
    import onnx

    size = sum(tensor.numel() * tensor.element_size() for tensor in classifier.net.state_dict().values())
    if size > LARGEST_ONNX:
        received = f"the weights have {size:,} bytes"
        raise ConvolveError("one ONNX file holds up to 2 GiB", received, "export --to torch, or a narrower network")
    with _quiet(), torch.no_grad():
        try:
            made = torch.onnx.export(
                _traced(classifier),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                external_data=False,
                verbose=False,
            )
        except ConvolveError:
            raise
        except Exception as error:
            raise _failed(error) from error
    assert made is not None
    model = made.model_proto
    _tidy(model)
    for name, text in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _tidy(model: Any) -> None:
    """Leave out what only debugs the exporter: stack traces with the paths of this machine, on every node and value."""
    model.producer_name, model.doc_string = "convolve", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "convolve", ""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _open_onnx(path: Path, _: Classifier) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return run


def _read_onnx(path: Path) -> dict[str, str]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def _write_torch(classifier: Classifier, notes: Notes) -> bytes:
    file = io.BytesIO()
    with _quiet():
        torch.export.save(_traced(classifier), file, extra_files={"notes.json": json.dumps(dict(notes))})
    return file.getvalue()


def _open_torch(path: Path, _: Classifier) -> Run:
    with _quiet():
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = module(images)
        return logits, probabilities

    return run


def _read_torch(path: Path) -> dict[str, str]:
    extra = {"notes.json": ""}
    with _quiet():
        torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    notes: dict[str, str] = json.loads(extra["notes.json"])
    return notes


def _write_safetensors(classifier: Classifier, notes: Notes) -> bytes:
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in classifier.net.state_dict().items()}
    return save(tensors, metadata={"format": "pt", **notes})


def _open_safetensors(path: Path, classifier: Classifier) -> Run:
    from safetensors.torch import load

    net = copy.deepcopy(classifier.net).cpu()
    load_weights(net, load(path.read_bytes()), path)
    return Program(net, classifier.preprocessing).eval()


def _read_safetensors(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        notes: dict[str, str] = file.metadata()
    return {name: text for name, text in notes.items() if name != "format"}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own deprecations and say which step they are at; neither is for the user."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(before)


def _failed(error: Exception) -> ConvolveError:
    lines = [line for line in str(error).splitlines() if line.strip()] or ["nothing more is known"]
    received = f"{type(error).__name__}: {lines[0]}"
    remedy = "write its forward without Python decisions on values or on the batch size, or export --to safetensors"
    return ConvolveError("the network cannot be traced into a program", received, remedy)


def _rows(*rows: Format) -> Mapping[str, Format]:
    return MappingProxyType({row.name: row for row in rows})


FORMATS = _rows(
    Format("onnx", ".onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _open_onnx, _read_onnx),
    Format("torch", ".pt2", (), _write_torch, _open_torch, _read_torch),
    Format("safetensors", ".weights.safetensors", (), _write_safetensors, _open_safetensors, _read_safetensors),
)
