"""Which runs the attacks of Carlini and Wagner (2017) share their steps among."""

from typing import NamedTuple

CANDIDATES = 4
"""All rivals together, and the three with the largest clean logits alone: the closest class is
usually among them."""
ALTERNATE_EVERY = 16
"""As long as a targeted run has reached nothing, the largest of the rivals and the smooth maximum
of all take turns of so many iterates."""
LAST_STEPS = 0.2, 0.05, 0.005
"""The last step of a run in each round, relative to the distance."""
SEARCH_AFTER = 8
"""Iterates after which an untargeted first run may be over that has reached nothing. On ordinary
networks no example needs more than three."""
SEARCHES = 4
"""Runs that share what such a first run leaves: beyond thresholds a fresh run of small steps comes
closer than a long one."""
CAREFUL_STEPS = 0.12, 0.02
"""The first and the last step of such a run, relative to the distance. From 0.3 on the iterates
lose what the search has reached, and do not find back."""
SHORTER = 0.4
"""How long steps of a search are with a target, relative to those without one, and from sweep to
sweep: shorter ones reach more."""


class Run(NamedTuple):
    """One descent: for the class of this rank, so many iterates, down to this step."""

    rank: int
    length: int
    last_step: float
    opening: bool
    """Whether ranks are those of the clean logits; later, those of the distances."""
    search: bool = False
    """Only for examples whose first run reached nothing."""
    stride: float = 0.0
    """As long as nothing is reached, the length of steps by signs, relative to their limit. A run
    without only descends, which gets along ridges that are narrower than such steps."""


def schedule(steps: int, candidates: int = CANDIDATES) -> tuple[Run, ...]:
    """Share ``steps`` gradient steps out: a tenth to each class, then to the two best, to one."""
    judged = steps + 1
    opening, middle = judged // 10, 3 * judged // 20
    if opening < 2:
        return (Run(0, judged, LAST_STEPS[2], True),)
    runs = [Run(rank, opening, LAST_STEPS[0], True) for rank in range(candidates)]
    runs += [Run(rank, middle, LAST_STEPS[1], False) for rank in range(min(candidates, 2))]
    rest = judged - sum(run.length for run in runs)
    runs.append(Run(0, rest, LAST_STEPS[2], False))
    first = SEARCH_AFTER if candidates > 1 else max(opening, ALTERNATE_EVERY)
    # In fewer steps there is no telling which examples need a search.
    return tuple(runs) if opening < first else (*runs, *searches(judged - first, candidates))


def searches(judged: int, candidates: int) -> tuple[Run, ...]:
    """Share out what a first run leaves that reached nothing.

    A search, and more runs from what it has reached; or else one long run from the input.
    """
    lengths = [(judged + number) // SEARCHES for number in range(SEARCHES)]
    stride = 1.0 if candidates > 1 else SHORTER
    found = [Run(0, length, CAREFUL_STEPS[1], False, True) for length in lengths[1:-1]]
    return (
        Run(0, lengths[0], CAREFUL_STEPS[1], True, True, stride),
        *found,
        Run(0, lengths[-1], LAST_STEPS[2], False, True),
        Run(0, judged - lengths[0], LAST_STEPS[2], True, True),
    )
