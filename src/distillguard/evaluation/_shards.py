"""Several processes evaluate together: each takes every so-manieth example of each chunk."""

from torch import distributed

from .._processes import Processes
from ._records import Cost, Records


def gathered(records: Records, processes: Processes) -> Records:
    """Everybody's records, in the order of the examples: the same in every process."""
    if processes.count == 1:
        return records
    parts: list[Records] = [Records()] * processes.count
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
