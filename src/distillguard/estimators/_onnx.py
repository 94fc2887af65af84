"""A network as an ONNX file that has been run before anybody gets it."""

import importlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._copies import copied
from .._modes import borrowed, on_cpu
from ..exceptions import MissingPackageError

TOLERANCE = 1e-4


def export(
    network: nn.Module,
    input_shape: Sequence[int],
    path: str | os.PathLike[str],
    classes: list[Any],
) -> None:
    """Write ``network`` with a free batch axis, run the file, and only then put it in place."""
    _check_packages()
    path = Path(path)
    # Float32 and plain layout whatever the training used: that is what runtimes run.
    plain = _OnCopies(copied(network).cpu().float()).to(memory_format=torch.contiguous_format)
    with borrowed(plain, gradients=False), on_cpu(), _quiet():
        program = torch.onnx.export(
            plain,
            (torch.rand(2, *input_shape, dtype=torch.float32, device="cpu"),),
            dynamo=True,
            # Without a largest size PyTorch 2.6 fixes the axis in graphs that slice.
            dynamic_shapes=({0: torch.export.Dim("batch", max=2**31 - 1)},),
            input_names=["inputs"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props["classes"] = json.dumps(classes)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
            written = Path(folder) / "model.onnx"
            program.save(written, external_data=False)
            _check_same(plain, written, input_shape)
            os.replace(written, path)


class _OnCopies(nn.Module):
    """A network that may work in place: the inputs of its graph are nobody's to change."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Any:
        return self.network(inputs.clone())


def _check_same(network: nn.Module, written: Path, input_shape: Sequence[int]) -> None:
    """Run batches of several sizes in ONNX Runtime and in torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 7):
        inputs = torch.rand(n, *input_shape, generator=generator, dtype=torch.float32, device="cpu")
        expected: Tensor = network(inputs)
        found = torch.from_numpy(session.run(["logits"], {"inputs": inputs.numpy()})[0])
        worst = (found - expected).abs().max().item() if found.shape == expected.shape else None
        allowed = TOLERANCE * max(1.0, expected.abs().max().item())
        if worst is None or not worst <= allowed:
            raise RuntimeError(
                f"the ONNX graph must give the network's logits to {allowed:.1e}, got "
                + (f"shape {tuple(found.shape)}" if worst is None else f"a difference of {worst}")
            )


def _check_packages() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingPackageError(
                f"export_onnx needs {name}; install it with: pip install 'distillguard[onnx]'"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's internal warnings; the result is verified afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
