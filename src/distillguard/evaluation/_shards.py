"""Several processes evaluate together: each takes every so-manieth example of each chunk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import distributed

from ._records import Cost, Records


class Shard(NamedTuple):
    """The part of the examples that falls to this process."""

    rank: int
    processes: int

    def agreed(self, seed: int) -> int:
        """Return the first process's seed."""
        if self.processes == 1:
            return seed
        seeds = [seed]
        distributed.broadcast_object_list(seeds, src=0)
        return seeds[0]


@contextmanager
def sharded() -> Iterator[Shard]:
    """Take part in the process group that there is, or in the one that torchrun asks for."""
    if not distributed.is_available():
        yield Shard(0, 1)
        return
    started = not distributed.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if started:
        distributed.init_process_group("gloo")
    try:
        if distributed.is_initialized():
            yield Shard(distributed.get_rank(), distributed.get_world_size())
        else:
            yield Shard(0, 1)
    finally:
        if started:
            distributed.destroy_process_group()


def gathered(records: Records, shard: Shard) -> Records:
    """Everybody's records, in the order of the examples: the same in every process."""
    if shard.processes == 1:
        return records
    parts: list[Records] = [Records()] * shard.processes
    distributed.all_gather_object(parts, records)

    whole = Records(probabilities=any(part.probabilities for part in parts))
    for part in parts:
        if not len(part):
            continue
        whole.add(part.columns)
        whole.errors.update(part.errors)
        for name, cost in part.costs.items():
            known = whole.costs.get(name, Cost())
            # They ran at the same time.
            whole.costs[name] = Cost(
                known.forwards + cost.forwards,
                known.backwards + cost.backwards,
                max(known.seconds, cost.seconds),
            )
        for ours, theirs in ((whole.sample, part.sample), (whole.shown, part.shown)):
            if len(theirs):
                others = dict(theirs.columns)
                ours.add(others.pop("key"), **others)
    order = whole.columns["index"].argsort()
    whole.columns = {name: column[order] for name, column in whole.columns.items()}
    return whole
