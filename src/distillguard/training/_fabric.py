"""Lightning Fabric as training uses it; its import is slow, so only a fit imports this module."""

import os
from typing import Any

from .._processes import Processes

# Importing Fabric sets this variable, which makes each optimiser step on a machine without a GPU
# look for its driver again (0.3 ms); the caller's environment stays the caller's.
_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
_before = os.environ.get(_NVML)
from lightning_fabric import Fabric  # noqa: E402
from lightning_fabric.plugins.environments.torchelastic import (  # noqa: E402
    TorchElasticEnvironment,
)
from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: E402

if _before is None:
    os.environ.pop(_NVML, None)


class _Alone(Fabric):
    """Fabric without the callbacks of installed packages, for which it reads what all declare."""

    @staticmethod
    def _configure_callbacks(callbacks: Any) -> list[Any]:
        return []


def launched(
    accelerator: str, devices: int | list[int], precision: Any, processes: Processes
) -> Fabric:
    """Return Fabric on these devices, in the process group that there is."""
    fabric = _Alone(
        accelerator=accelerator, devices=devices, precision=precision, **_strategy(processes)
    )
    fabric.launch()
    return fabric


class ExistingGroup(TorchElasticEnvironment):
    """The process group as it is, whoever started it: torchrun, or a user without its variables."""

    def __init__(self, processes: Processes, per_node: int) -> None:
        super().__init__()
        self.processes, self.per_node = processes, per_node

    def world_size(self) -> int:
        return self.processes.count

    def global_rank(self) -> int:
        return self.processes.rank

    def local_rank(self) -> int:
        return self.processes.rank % self.per_node

    def node_rank(self) -> int:
        return self.processes.rank // self.per_node


def _strategy(processes: Processes) -> dict[str, Any]:
    """Fabric's settings for training in the process group; buffers are ours to keep alike."""
    if processes.count == 1:
        return {}
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", processes.count))
    environment = ExistingGroup(processes, per_node)
    strategy = DDPStrategy(cluster_environment=environment, broadcast_buffers=False)
    return {"strategy": strategy, "num_nodes": processes.count // per_node}
