"""What benchmarks share: machine, versions and date beside the figures; a model that counts."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results"


class Counted(nn.Module):
    """A model that counts the examples it is asked about, and divides its logits."""

    def __init__(self, model: nn.Module, divisor: float = 1.0) -> None:
        super().__init__()
        self.model, self.divisor = model, divisor
        self.forwards = self.backwards = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the divided logits."""
        self.forwards += len(inputs)
        logits = self.model(inputs) / self.divisor
        if logits.requires_grad:
            logits.register_hook(self.went_back)
        return logits

    def went_back(self, gradient: Tensor) -> None:
        """Count a backward pass."""
        self.backwards += len(gradient)


def quick_precision() -> str:
    """The precision that trains fastest here: bfloat16, unless the processor lacks it.

    Without instructions for it, bfloat16 is emulated, and slower than float32 by far.
    """
    from distillguard.training._runtime import native_bfloat16

    native = torch.cuda.is_available() or native_bfloat16()
    return "bf16-mixed" if native else "32-true"


def circumstances(*packages: str) -> dict[str, Any]:
    """Say when, on what and with which versions the figures were taken."""
    versions = {}
    for name in ("distillguard", "torch", "numpy", "scikit-learn", *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def save(name: str, result: dict[str, Any], folder: Path | None = None) -> Path:
    """Write ``results/name.json``, or ``name.json`` in another folder."""
    path = (folder or RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n")
    return fresh.replace(path)


def load(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Read what :func:`save` wrote, or nothing where there is none."""
    path = (folder or RESULTS) / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as a Markdown table."""
    titles = [column.replace("|", "\\|") for column in columns]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_shown(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()
