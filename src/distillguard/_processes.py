"""Processes that work together: torch's group of them, joined where torchrun asks for it."""

import atexit
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """A process among those that run the same script."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value in all of them."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, the same bits in all of them."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def all_gather(self, value: Any) -> list[Any]:
        """Return everybody's value, in the order of the ranks, in all of them."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            distributed.barrier()


ALONE = Processes()


def joined() -> Processes:
    """Take part in the process group that there is, or in the one that torchrun asks for.

    A group that was started here stays for the life of the process: torchrun's meeting point
    serves one group only.
    """
    if not distributed.is_available():
        return Processes()
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return Processes()
        both = torch.cuda.is_available() and distributed.is_nccl_available()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo")
        atexit.register(_leave)
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    if distributed.is_initialized():
        # In older versions of PyTorch the group's destructor keeps the GIL and waits for gloo's
        # threads, of which one may need it to drop what the last collective sent: a rare deadlock
        # (https://github.com/pytorch/pytorch/pull/154976). Here they get it first.
        time.sleep(0.1)
        distributed.destroy_process_group()
