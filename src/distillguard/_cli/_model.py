"""MODEL on the command line: something importable, a file, or a folder."""

import difflib
import importlib
import inspect
import os
import sys
import warnings
import zipfile
from functools import reduce
from pathlib import Path
from typing import Any

KINDS = (
    "module:function, a TorchScript or torch.export file, or a folder that the save of an "
    "estimator wrote"
)


def model_from(name: str, device: str | None = None) -> Any:
    """Find or load a model; with ``device`` it is put there."""
    if device is not None:
        device = _checked_device(device)
    if Path(name).is_dir():
        from ..persistence import load

        return load(name, device=device or "cpu")
    if Path(name).is_file():
        return _from_file(Path(name), device)
    if ":" not in name:
        raise ValueError(f"MODEL must be {KINDS}, got {name!r}, and no such file is here")
    return _on_device(_imported(name), device)


def _checked_device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device must be 'auto', 'cpu' or another device that PyTorch has here, got {name!r}"
        ) from error
    return name


def _from_file(path: Path, device: str | None) -> Any:
    """Load a program by what the file holds, whatever its name."""
    held = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            # All in one folder, but for torch.export of PyTorch 2.6.
            held = {name.partition("/")[2] or name for name in file.namelist()}
    if "archive_format" in held or "serialized_exported_program.json" in held:
        return _exported(path, device)
    if "constants.pkl" in held:
        from torch.jit import load

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated
            return load(path, map_location=device or "cpu")
    raise ValueError(f"MODEL must be {KINDS}, got the file {str(path)!r}{_remedy(path, held)}")


def _exported(path: Path, device: str | None) -> Any:
    from torch.export import load

    program = load(path)
    if device is not None:
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


def _remedy(path: Path, held: set[str]) -> str:
    if path.suffix == ".py":
        return f"; write {path.stem}:NAME, the function in it that builds or is the model"
    if "data.pkl" in held or path.suffix in (".pt", ".pth", ".safetensors", ".ckpt"):
        return (
            "; weights are no model: write a function that builds the network and loads them, and "
            "pass module:function"
        )
    return ""


def _imported(name: str) -> Any:
    """Look up what a name stands for, and call it if it can be called without arguments."""
    home, _, path = name.partition(":")
    module = _module(home)
    try:
        found: Any = reduce(getattr, path.split("."), module)
    except AttributeError:
        public = [each for each in vars(module) if not each.startswith("_")]
        near = difflib.get_close_matches(path, public, n=1)
        remedy = f"; write {home}:{near[0]}" if near else ""
        raise ValueError(
            f"MODEL must name something in {home}, got {path!r}, which is not there{remedy}"
        ) from None
    return found() if _builds(found) else found


def _module(name: str) -> Any:
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that this one imports
        raise ValueError(
            f"MODEL must name a module that is installed or in this folder, got {name!r}"
        ) from error


def _builds(found: Any) -> bool:
    """Whether something makes a model rather than is one: nothing needs to be passed to it."""
    from torch import nn

    if isinstance(found, nn.Module) or not callable(found):
        return False
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:
        return False
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(one.default is not one.empty or one.kind in several for one in parameters)


def _on_device(model: Any, device: str | None) -> Any:
    if device is None:
        return model
    from torch import nn

    network = getattr(model, "model_", model)
    if not isinstance(network, nn.Module):
        raise ValueError(
            "--device must be left out where MODEL is a function from inputs to logits, got "
            f"{device!r}; the function decides where it computes"
        )
    network.to(device)
    return model
