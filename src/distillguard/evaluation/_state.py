"""An interrupted evaluation goes on where it was: everything known, in one file per process."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._typing import Model
from ..attacks._checks import ModelFacts
from ..exceptions import SaveError
from ._records import Cost, Records

FORMAT = "distillguard evaluation state 1"


class StateFile:
    """Where the records are written after each chunk; a kill at any moment loses one chunk."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.settings: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make the folder, and refuse a place that cannot be written to before work is lost."""
        if self.path.is_dir():
            raise ValueError(f"state_file must be the path of a file, got the folder {self.path}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.touch()
        fresh.unlink()

    def random_state(self) -> int | None:
        """The seed of the interrupted run, if there is one to go on with."""
        return self._content()[0]["settings"]["seed"] if self.path.exists() else None

    def resume(self, settings: dict[str, Any]) -> Records:
        """Read what is known so far; nothing where there is no file. Refuse another run's file."""
        self.settings = json.loads(json.dumps(settings))
        records = Records()
        if not self.path.exists():
            return records
        content, tensors = self._content()
        for name, value in self.settings.items():
            held = content["settings"].get(name)
            if held != value:
                raise ValueError(
                    f"state_file must belong to the same evaluation, got one with {name} {held!r} "
                    f"instead of {value!r}; remove {self.path} to start afresh"
                )
        records.costs = {name: Cost(**cost) for name, cost in content["costs"].items()}
        records.errors = content["errors"]
        records.probabilities = content["probabilities"]
        records.facts = ModelFacts.from_plain(content["facts"]) if content["facts"] else None
        records.digests = content["digests"]
        for key, tensor in tensors.items():
            part, _, name = key.partition(":")
            if part == "columns":
                records.add({name: tensor})
            else:
                getattr(records, part).columns[name] = tensor
        return records

    def write(self, records: Records) -> None:
        """Replace the file in one stroke."""
        from safetensors.torch import save_file

        parts = {
            "columns": records.columns,
            "sample": records.sample.columns,
            "drawn": records.drawn.columns,
            "shown": records.shown.columns,
        }
        tensors = {
            f"{part}:{name}": tensor.contiguous()
            for part, columns in parts.items()
            for name, tensor in columns.items()
        }
        content = {
            "format": FORMAT,
            "settings": self.settings,
            "costs": {name: asdict(cost) for name, cost in records.costs.items()},
            "errors": records.errors,
            "probabilities": records.probabilities,
            "facts": records.facts and records.facts.to_plain(),
            "digests": records.digests,
        }
        fresh = self.path.with_name(self.path.name + ".new")
        save_file(tensors, fresh, metadata={"state": json.dumps(content)})
        os.replace(fresh, self.path)

    def _content(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                content = json.loads((file.metadata() or {})["state"])
                # Cloned, so that the file is not held open.
                tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise SaveError(
                f"state_file must be a state written by evaluate, got {self.path} ({error})"
            ) from error
        if content.get("format") != FORMAT:
            raise SaveError(
                f"state_file must have the format {FORMAT!r}, got {content.get('format')!r}"
            )
        return content, tensors


def digest(model: Model) -> str:
    """A hash of the weights, "" of a model that has none: a resumed run must have the same ones."""
    if not isinstance(model, nn.Module):
        return ""
    total = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            total.update(name.encode())
            total.update(raw.numpy().tobytes())
    return total.hexdigest()
