"""What tells one training run from another: settings, networks and data, all by value."""

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
from torch import Tensor, nn

from .._data._batch import Source
from .._files import hash_of
from .._identity import Describer, Description, hash_of_weights

_FREE = {"callbacks", "checkpoint_dir", "device", "module", "teacher", "verbose"}
"""Parameters that may differ when a run resumes from its checkpoints."""

_CONSTANTS = (
    type(None), bool, int, float, complex, str, bytes, tuple, np.generic, np.ndarray, Tensor,
    FunctionType, BuiltinFunctionType, partial,
)  # fmt: skip
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def settings_of(
    parameters: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    sources: Mapping[str, Source | None],
) -> dict[str, Description]:
    """Describe what a run must have in common with the one whose checkpoints it resumes.

    Functions are told by code and arguments, arrays and tensors by their values, networks by
    their layers, code and constants, whatever their weights; data by inputs and labels where
    they come in an order that can be repeated.
    """
    settings = {
        name: Describer()(_number(value)) for name, value in parameters.items() if name not in _FREE
    }
    for name, network in networks.items():
        settings |= _network(name, network)
    return settings | {name: data_of(source) for name, source in sources.items()}


def data_of(source: Source | None, *, labels: bool = True) -> Description:
    """Describe data by their values where these come in an order that can be repeated.

    ``labels`` that a network predicts say nothing new, and may differ on another device.
    """
    if source is None:
        return "none"
    told: dict[str, Description] = {"number of batches": str(source.n_batches)}
    if source.identified:
        total = hashlib.sha256()
        for batch in source.in_order():
            parts = batch._replace(indices=None)._asdict()
            held = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
            total.update(hash_of(held if labels else {"inputs": batch.inputs}).encode())
        told["examples"] = total.hexdigest()[:16]
    return told


def weights_of(network: nn.Module) -> Description:
    """Describe the weights of a network that is not trained, such as those of a teacher."""
    return hash_of_weights(network)


def _number(value: Any) -> Any:
    """10.0 is 10."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _network(name: str, network: nn.Module) -> dict[str, Description]:
    settings: dict[str, Description] = {
        f"{key} of the {name}": str(tuple(value.shape))
        for key, value in network.state_dict().items()
        if isinstance(value, Tensor)
    }
    # Layers without weights count too; where an object lies in memory does not.
    layers = _ADDRESS.sub("", repr(network))
    settings[f"layers of the {name}"] = hashlib.sha256(layers.encode()).hexdigest()[:16]
    classes = dict.fromkeys(type(part) for part in network.modules())
    code = Describer(data=False)
    settings[f"code of the {name}"] = {
        f"{each.__module__}.{each.__qualname__}": code(each) for each in classes
    }
    settings[f"constants of the {name}"] = {
        f"{place}.{key}".strip("."): Describer()(value)
        for place, part in network.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, _CONSTANTS) and _is_constant(part, key)
    }
    return settings


def _is_constant(part: nn.Module, key: str) -> bool:
    """Whether an attribute is of the module's making; normed and pruned weights are computed."""
    computed = any(name.startswith(f"{key}_") for name, _ in part.named_parameters(recurse=False))
    return not key.startswith("_") and key != "training" and not computed
