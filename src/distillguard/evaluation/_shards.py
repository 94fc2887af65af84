"""Several processes share an evaluation: process r of n takes examples r, r + n, ... of a chunk."""

from .._processes import Processes
from ._records import Cost, Records


def gathered(records: Records, processes: Processes) -> Records:
    """Everybody's records, in the order of the examples: the same in every process."""
    if processes.count == 1:
        return records
    parts: list[Records] = processes.all_gather(records)
    whole = Records(probabilities=any(part.probabilities for part in parts))
    whole.shown.size = records.shown.size
    for part in parts:
        whole.notes.update(part.notes)
        if not len(part):
            continue
        whole.add(part.columns)
        whole.errors.update(part.errors)
        for name, told in part.stand_ins.items():
            known = whole.stand_ins.get(name, ())
            whole.stand_ins[name] = tuple(dict.fromkeys([*known, *told]))
        for name, cost in part.costs.items():
            whole.costs[name] = combined_cost([whole.costs.get(name, Cost()), cost])
        for kept in ("sample", "drawn", "shown"):
            ours, theirs = getattr(whole, kept), getattr(part, kept)
            if len(theirs):
                others = dict(theirs.columns)
                ours.add(others.pop("key"), **others)
    order = whole.columns["index"].argsort()
    whole.columns = {name: column[order] for name, column in whole.columns.items()}
    return whole


def combined_cost(costs: list[Cost]) -> Cost:
    """What processes spent side by side: the sum of their evaluations in the longest time."""
    return Cost(
        sum(cost.forwards for cost in costs),
        sum(cost.backwards for cost in costs),
        max(cost.seconds for cost in costs),
    )
