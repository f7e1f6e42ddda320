"""A network from what a user can type: a name of the table, a one-line spec, or a function or class in a Python file.

    alexnet-d2l                               a row of MODELS, or a row and a variant
    "conv 6 5 p2, relu, max 2, fc classes"    a spec (it has a space or a comma): spec.py
    my/net.py:Net                             a class or function of a file; it runs the file's code
    my/net.py:build(depth=3)                  the same, called with literal arguments

A class or function receives those of num_classes, in_channels and img_size that its signature names, and that the call does not
give. Running a file is running its author's code: only name files that you trust.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from convolve.errors import InputError, ModelFileError, UnknownNameError, UsageError
from convolve.models import spec
from convolve.models.create import create


def build(
    source: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """The network that `source` names, in one of the forms above; `options` are those of a row of the table.

    Raises UnknownNameError for a name that does not exist, UsageError for what cannot be read, InputError for a file that fails.

    >>> type(build("lenet")).__name__, len(build("conv 4 3, relu, gap, fc classes", num_classes=3))
    ('Sequential', 4)
    """
    if is_file(source):
        _no_options(options, "a network of a file")
        given = {"num_classes": num_classes, "in_channels": in_channels, "img_size": img_size}
        return _from_file(source, {name: value for name, value in given.items() if value is not None})
    if is_spec(source):
        _no_options(options, "a network spec")
        size = (28, 28) if img_size is None else (img_size, img_size) if isinstance(img_size, int) else img_size
        return spec.build(source, num_classes=num_classes or 10, in_channels=in_channels or 1, img_size=size)
    return create(source, num_classes=num_classes, in_channels=in_channels, img_size=img_size, **options)


def rebuild(architecture: Mapping[str, Any], network: str | nn.Module | None = None) -> nn.Module:
    """The network that a model file describes: its `name` (a source as above), shape and options, all JSON-safe.

    The code of a network of a file is not in the model file, and is not looked for: it runs only where `network` names it
    (FILE.py:NAME), or is given as a module. Raises ModelFileError where it is needed and not given.
    """
    if isinstance(network, nn.Module):
        return network
    given = {**architecture, "img_size": tuple(architecture["img_size"])}
    name = given.pop("name")
    if network is not None or is_file(name):
        if network is None:
            received = f"it was trained as {name}"
            raise ModelFileError(
                "a model file holds no code, and this network is the code of a Python file",
                received,
                "name the code that you trust: network='FILE.py:NAME' (--network FILE.py:NAME)",
            )
        name = network
        given = {key: given[key] for key in ("num_classes", "in_channels", "img_size")}
    return create(name, **given) if not is_file(name) and not is_spec(name) else build(name, **given)


def is_file(source: str) -> bool:
    """Whether `source` names something in a Python file: "PATH.py:NAME" or "PATH.py:NAME(…)"."""
    path, colon, _ = source.partition(".py:")
    return bool(colon and path)


def is_spec(source: str) -> bool:
    """Whether `source` is a one-line spec: names of the table have neither spaces nor commas."""
    return not is_file(source) and any(mark in source.strip() for mark in " ,(")


def _no_options(options: dict[str, Any], what: str) -> None:
    if options:
        raise UsageError(f"{what} takes no options", f"got {', '.join(options)}", "write them into the network itself")


def _from_file(source: str, given: dict[str, Any]) -> nn.Module:
    head, _, call = source.partition(".py:")
    path = Path(head + ".py")
    name, arguments, keywords = _call(call, source)
    module = _module(path)
    if not hasattr(module, name):
        found = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        raise UnknownNameError.of(f"network in {path}", name, found)
    target = getattr(module, name)
    if isinstance(target, nn.Module):
        return target
    try:
        accepted = inspect.signature(target).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        wanted = list(accepted)[len(arguments) :]
        ours = {key: value for key, value in given.items() if (key in wanted or anything) and key not in keywords}
        net = target(*arguments, **ours, **keywords)
    except Exception as error:
        received = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{source} could not be built", received, "give what is missing: FILE.py:NAME(key=value)"
        ) from error
    if not isinstance(net, nn.Module):
        raise UsageError(
            f"{source} must give a torch.nn.Module", f"got {type(net).__name__}", "name a class or function of one"
        )
    return net


def _call(text: str, source: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The name and the literal arguments of "NAME" or "NAME(1, key=2)"."""
    rule = "a network of a file is written FILE.py:NAME or FILE.py:NAME(key=value)"
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if not isinstance(call.func, ast.Name):
            raise ValueError("the name must be a plain one")
        arguments = [ast.literal_eval(value) for value in call.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError) as error:
        raise UsageError(rule, f"got {source!r}: {error}", "use plain numbers and strings") from None
    return call.func.id, arguments, keywords


def _module(path: Path) -> ModuleType:
    """The file as a module of its own; its folder can be imported from while it runs, as with `python FILE`."""
    if not path.is_file():
        raise InputError(
            f"cannot read {path}", "there is no such file", "check the path; it is relative to this folder"
        )
    name = f"_convolve_user_{path.stem}"
    definition = importlib.util.spec_from_file_location(name, path)
    assert definition is not None
    assert definition.loader is not None
    module = importlib.util.module_from_spec(definition)
    folder = os.fspath(path.resolve().parent)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up
    sys.path.insert(0, folder)
    try:
        definition.loader.exec_module(module)
    except Exception as error:
        if before is not None:
            sys.modules[name] = before
        else:
            del sys.modules[name]
        raise InputError(
            f"{path} failed while it ran", f"{type(error).__name__}: {error}", "run it with Python first"
        ) from error
    finally:
        sys.path.remove(folder)
    return module
