"""Measuring what tells a robust model from a failed attack; the rules are elsewhere."""

from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor

from ... import attacks
from ..._geometry import COUNTS
from ..._processes import ALONE, Processes
from ..._typing import Model
from .._presets import AttackSpec, name_of
from .._records import SAMPLED, Cost, asked_nothing
from .._run import Run
from .._shards import combined_cost
from ._active import active_test
from ._columns import observed, outside, strays
from ._gradients import at_bounds, gradients
from ._observations import Observations
from ._probe import Probe, attempt, count, probe_of
from ._probes import (
    MORE_QUERIES,
    ascents,
    blind,
    budgets,
    hidden,
    longer,
    losses,
    one_step,
    random_points,
    random_search,
    transfer,
    whole_range,
)
from ._rescaling import rescaling
from ._stability import batch_dependence, memory, randomness
from ._thresholds import WIDE_GAP

FIRST, PART, FEWEST = 64, 8, 16
"""Examples that attacks are compared on; the others follow where these leave a doubt. Where fewer
than eight times as many are evaluated, first an eighth of them, and at least 16: what a diagnosis
costs is a share of what the attacks do."""

FEW = 16
"""Examples that a brief diagnosis asks about several times, and gradients at the bounds of."""

STEPS = 20
"""Steps of the probing attacks: enough to converge on an undefended network."""

FEW_STEPS = 10
"""Steps of those of a brief diagnosis."""

LONGER_STEPS = 100
"""Steps of the attack that must not find what the caller's attacks left."""

DOUBTFUL = 2
"""Examples of the first 64 that leave a doubt; of fewer, one does."""

VULNERABLE = 8
"""Survivors that a longer attack tries first, those of the smallest margin."""

FEW_STAND = 0.25
"""Share of the correct examples that attacks have to leave for a full diagnosis to be worth it."""

PROBES: dict[str | None, int] = {"auto": 15, "full": 15, "brief": 9, None: 0}
"""Measurements of a diagnosis that finds nothing, for the progress bar."""


def sample_size(kind: str | None) -> int:
    """Examples that a diagnosis asks for."""
    return {"auto": SAMPLED, "full": SAMPLED, "brief": FIRST}.get(kind or "", 0)


def first_ones(run: Run) -> int:
    """How many examples attacks are compared on, if these leave no doubt."""
    return min(FIRST, max(FEWEST, len(run.records) // PART))


def diagnose(
    run: Run,
    kind: str | None = "full",
    surrogate: Model | None = None,
    processes: Processes = ALONE,
) -> Observations:
    """Measure everything on the sample of correct examples that the run kept."""
    spent = run.records.costs.pop("diagnosis", Cost())  # by a brief one before
    lost, strayed = strays(run)
    seen = observed(run) | lost | Observations(diagnosis=kind)
    if kind is None:
        return seen
    size = min(sample_size(kind), len(run.records.sample))
    steps = STEPS if kind == "full" else FEW_STEPS
    with run.accounted("diagnosis"):
        scaled = attempt("normalisation", partial(rescaling, run)) if processes.first else None
        seen |= processes.broadcast(scaled)
        if size:
            probe = probe_of(run, size, steps, strayed, processes)
            seen |= full(probe, surrogate) if kind == "full" else brief(probe, surrogate)
            # A point on the edge of the l0-ball is many, and none is nearer than another.
            edged = kind == "full" and run.threat.norm not in COUNTS
            if edged and (specs := within_budget(run)):
                # By one process, which picks the same images however many there are.
                test = probe_of(run, min(FIRST, size), steps, strayed)
                seen |= probe.once("active test", partial(active_test, test, specs))
            seen |= probe.measured("survivors", partial(survival, probe))
            fell = probe.places[probe.attack_survivors & ~probe.survivors].cpu()
            places = torch.cat(processes.all_gather(run.records.sample["index"][fell]))
            run.fooled_by_diagnosis = places
    costs = processes.all_gather(run.records.costs["diagnosis"])
    run.records.costs["diagnosis"] = combined_cost(costs)
    run.records.costs["diagnosis"].add(spent.forwards, spent.backwards, spent.seconds)
    whole = size if kind == "brief" else None
    return seen | Observations(sampled=size, compared=whole)


def full(probe: Probe, surrogate: Model | None) -> Observations:
    """Whatever a finding needs, on as many examples as it needs."""
    first = probe.places < first_ones(probe.run)
    seen = probe.measured("stability", partial(randomness, probe, passes=5), first)
    seen |= probe.measured("other batches", partial(batch_dependence, probe), first)
    seen |= probe.measured("memory", partial(memory, probe), probe.places < FEW)
    seen |= probe.measured("gradients", partial(gradients, probe))
    backwards = seen.differentiable is not False
    seen |= compared(probe, surrogate, backwards)
    if backwards:
        few = probe.places < FEW
        seen |= probe.measured("gradients at the bounds", partial(at_bounds, probe), few)
        seen |= probe.measured("flat cross-entropy", partial(blind, probe))
        seen |= convergence(probe)
    return seen


def brief(probe: Probe, surrogate: Model | None) -> Observations:
    """What costs at most as much as the attacks of "quick" where most examples fall to them."""
    few = probe.places < FEW
    seen = probe.measured("stability", partial(randomness, probe, passes=2), few)
    seen |= probe.measured("other batches", partial(batch_dependence, probe), few)
    seen |= probe.measured("memory", partial(memory, probe), few)
    seen |= probe.measured("gradients", partial(gradients, probe))
    if seen.differentiable is not False:
        seen |= probe.measured("gradients at the bounds", partial(at_bounds, probe), few)
        if probe.anywhere(probe.flat):
            seen |= probe.measured("cross-entropy and margin", partial(losses, probe))
            seen |= probe.measured("flat cross-entropy", partial(blind, probe))
        if not follows_margin(probe):
            attack = partial(longer, probe, steps=FEW_STEPS)
            seen |= probe.measured("longer attack", attack)
        seen |= probe.measured("whole range", partial(whole_range, probe))
        if probe.threat.norm == "l2":
            seen |= probe.measured("least distance", partial(hidden, probe), few)
    probe.missed = probe.survivors
    if surrogate is not None:
        seen |= probe.measured("transfer", partial(transfer, probe, surrogate=surrogate))
    if few_stand(probe.run):
        # Not beside the others, as it is asked about fewer; what it fools counts all the same.
        first = probe.places < first_ones(probe.run)
        probe.measured("random search", partial(random_search, probe), first)
    return seen


def few_stand(run: Run) -> bool:
    """Whether so few examples withstood the attacks that a brief diagnosis suffices."""
    standing = run.records.columns["predicted"] == run.records.columns["label"]
    correct = int(standing.sum())
    for name in run.attacks:
        standing = standing & ~run.records.of(name, "fooled")
    return int(standing.sum()) <= FEW_STAND * correct


def compared(probe: Probe, surrogate: Model | None, backwards: bool) -> Observations:
    """Compare attacks on the first examples and, while these leave a doubt, on more."""
    ends = sorted({first_ones(probe.run), FIRST, SAMPLED})
    seen: list[Observations] = []
    for start, end in pairwise([0, *ends]):
        part = (probe.places >= start) & (probe.places < end)
        if not probe.anywhere(part):
            break
        seen.append(comparisons(probe, part, surrogate, backwards))
        if not doubtful(Observations.of(seen), DOUBTFUL if end >= FIRST else 1):
            break
    return Observations.of(seen)


def comparisons(
    probe: Probe, chosen: Tensor, surrogate: Model | None, backwards: bool
) -> Observations:
    """Attacks of our own, with and without gradients, beside each other."""
    if backwards:
        seen = probe.measured("cross-entropy and margin", partial(losses, probe), chosen)
        if seen.compared is None:
            return seen  # Without it, nothing can be said to beat it.
        if probe.threat.norm not in COUNTS:  # one step along a gradient has no l0 form
            seen |= probe.measured("one step", partial(one_step, probe), chosen)
        seen |= probe.measured("budgets", partial(budgets, probe), chosen)
        if probe.threat.norm == "l2":
            seen |= probe.measured("least distance", partial(hidden, probe), chosen)
    else:
        # Attacks of our own have missed everything; one of the caller's on a stand-in may not.
        left = probe.attack_survivors if followed_elsewhere(probe.run) else True
        probe.missed = probe.missed | (chosen & left)
        seen = probe.measured("compared", lambda part: Observations(compared=count(part)), chosen)
    seen |= probe.measured("random points", partial(random_points, probe), chosen)
    seen |= probe.measured("random search", partial(random_search, probe), chosen)
    if seen.only_black_box:
        longer_search = partial(random_search, probe, queries=MORE_QUERIES)
        seen |= probe.measured("random search", longer_search, chosen)
    if surrogate is not None:
        ask = partial(transfer, probe, surrogate=surrogate)
        seen |= probe.measured("transfer", ask, chosen)
    return seen


def followed_elsewhere(run: Run) -> bool:
    """Whether an attack asked something else than the model, seen or unseen."""
    unseen = any(asked_nothing(run.records, name) for name in run.attacks)
    return unseen or bool(run.records.stand_ins)


def doubtful(seen: Observations, least: int) -> bool:
    """Whether one of the comparisons, in ``least`` examples, may become a finding on more."""
    n, cross, margin = seen.compared or 0, seen.cross_entropy_survivors, seen.margin_survivors
    if cross is not None and margin is not None and cross - margin >= WIDE_GAP / 2 * n > 0:
        return True
    rivals = (seen.only_one_step, seen.only_noise, seen.only_black_box, seen.only_transfer)
    counts = [*rivals, seen.only_distance, *seen.budget_survivors[-1:], *seen.budget_lost]
    return any(count is not None and count >= least for count in counts)


def convergence(probe: Probe) -> Observations:
    """A longer attack on what is left: on the most vulnerable and, if something fell, on all."""
    left = probe.attack_survivors & probe.margin_missed & (ascents(probe) < LONGER_STEPS)
    ranks = chain.from_iterable(probe.processes.all_gather(probe.rank[left].tolist()))
    last = max(sorted(ranks)[:VULNERABLE], default=-1)
    most = ~left | (probe.rank <= last)
    attack = partial(longer, probe, steps=LONGER_STEPS)
    seen = probe.measured("longer attack", attack, most)
    fell = probe.attack_survivors & ~probe.survivors
    if probe.anywhere(~most) and probe.anywhere(fell):
        seen = Observations.of([seen, probe.measured("longer attack", attack, ~most)])
    return seen


def follows_margin(probe: Probe) -> bool:
    """Whether the caller's attacks are no weaker than what a brief diagnosis would run."""

    def suits(settings: dict[str, Any]) -> bool:
        return settings["loss"] == "margin" and settings["steps"] >= FEW_STEPS

    return name_of(probe.run.attacks, probe.threat, attacks.pgd, suits) is not None


def within_budget(run: Run) -> dict[str, AttackSpec]:
    """The caller's attacks but those that raised or were given another threat model.

    What found no gradient to follow is blind, and fails the test.
    """
    return {
        name: spec
        for name, spec in run.attacks.items()
        if name not in run.raised and not bool(outside(run, name, spec)[0].any())
    }


def survival(probe: Probe, chosen: Tensor) -> Observations:
    """What the caller's attacks left, and what everything left."""
    return Observations(
        attack_survivors=count(probe.attack_survivors), all_survivors=count(probe.survivors)
    )
