"""Probing with attacks of our own: each shows what another one missed."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ... import attacks
from ..._geometry import COUNTS, per_example, random_point
from ..._modes import dtype_of
from ..._random import example_keys
from ..._rejection import opposed
from ..._typing import Model
from .._hidden import FIRST_STEPS, hidden_boundary_l2
from .._judge import ThreatModel
from .._ours import masked, ours, unwrapped
from .._presets import name_of
from .._query import logits_of
from .._run import Run
from ._columns import is_masked
from ._observations import Observations
from ._probe import Probe, count

DRAWS = 25
"""Random points of the ball for each example."""

QUERIES, MORE_QUERIES = 100, 200
"""Steps of the random search that needs no gradients, and of another one if that finds anything."""

EXCHANGES = 16
"""Examples of other classes whose values are put in where a mask lets something change."""

ENOUGH_QUERIES = 100
"""Steps of the caller's own search that make another one needless."""

ASCENTS = ("pgd", "apgd", "apgd_targeted")
"""Attacks that climb, inside the ball, a loss that no softmax saturates: if it is their loss."""


def losses(probe: Probe, chosen: Tensor) -> Observations:
    """Send many steps up the cross-entropy and up the margin.

    What the caller's own PGD on the margin has just missed in as many steps counts as missed.
    """
    cross = probe.fools(probe.pgd("cross_entropy"), chosen)
    asked, found = looked(
        probe,
        attacks.pgd,
        lambda settings: settings["loss"] == "margin" and settings["steps"] >= probe.steps,
    )
    margin = probe.fools(probe.pgd("margin"), chosen & ~(asked & ~found))
    probe.missed = probe.missed | (chosen & ~cross & ~margin)
    probe.margin_missed = probe.margin_missed & ~margin
    return Observations(
        compared=count(chosen),
        compared_steps=probe.steps,
        cross_entropy_survivors=count(chosen & ~cross),
        margin_survivors=count(chosen & ~margin),
        only_margin=count(margin & ~cross),
        only_cross_entropy=count(cross & ~margin),
    )


def one_step(probe: Probe, chosen: Tensor) -> Observations:
    """Send one step up each loss, to what many steps missed and to what they found."""
    found = torch.zeros_like(chosen)
    for loss in ("cross_entropy", "margin"):
        attack = partial(attacks.fgsm, loss=loss, judge_last=False, **probe.budget())
        found |= probe.fools(attack, chosen & ~found)
    return Observations(
        only_one_step=count(found & probe.missed),
        only_iterative=count(chosen & ~found & ~probe.missed),
    )


def budgets(probe: Probe, chosen: Tensor) -> Observations:
    """Give PGD on the margin the threat model's radius, twice that, and the whole range."""
    radii = probe.radii()
    fooled = [chosen & ~probe.margin_missed] if radii[0] == probe.threat.epsilon else []
    for radius in radii[len(fooled) :]:
        wider = probe.threat._replace(epsilon=radius)
        fooled.append(probe.fools(probe.pgd("margin", wider), chosen, wider))
    pairs = list(pairwise(fooled))
    return Observations(
        only_exchange=only_exchange(probe, chosen & ~fooled[-1]),
        budgets=tuple(radii),
        budget_survivors=tuple(count(chosen & ~each) for each in fooled),
        budget_lost=tuple(count(narrow & ~wide) for narrow, wide in pairs),
        budget_won=tuple(count(wide & ~narrow) for narrow, wide in pairs),
    )


def whole_range(probe: Probe, chosen: Tensor) -> Observations:
    """Let PGD on the margin change at will what withstands the caller's attacks."""
    whole = probe.radii()[-1]
    wider = probe.threat._replace(epsilon=whole)
    left = chosen & probe.survivors
    fooled = probe.fools(probe.pgd("margin", wider), left, wider)
    return Observations(
        only_exchange=only_exchange(probe, left & ~fooled),
        budgets=(whole,),
        budget_survivors=(count(left & ~fooled),),
    )


def only_exchange(probe: Probe, left: Tensor) -> int | None:
    """How many withstand the whole range although the values of another example fool the model.

    Those are put in where something may change. Where everything may, nothing is to be shown.
    """
    if not is_masked(probe.run):
        return None
    wider = probe.threat._replace(epsilon=probe.radii()[-1])
    swap = partial(exchange, probe.run, wider.of(left))
    return count(probe.fools(swap, left, wider))


def blind(probe: Probe, chosen: Tensor) -> Observations:
    """Try both losses within twice the radius where the cross-entropy is exactly flat."""
    radius = ([probe.threat.epsilon, *probe.radii()[:-1]])[-1]
    wider = probe.threat._replace(epsilon=radius)
    flat = chosen & probe.flat
    margin = probe.fools(probe.pgd("margin", wider), flat, wider)
    cross = probe.fools(probe.pgd("cross_entropy", wider), margin, wider)
    return Observations(blind=count(margin & ~cross), blind_within=radius)


def longer(probe: Probe, chosen: Tensor, steps: int) -> Observations:
    """Attack what the caller's attacks left, for longer than they usually run."""
    left = chosen & probe.attack_survivors
    waiting = left & probe.margin_missed & (ascents(probe) < steps)
    fooled = probe.fools(probe.pgd("margin", steps=steps), waiting)
    fooled = fooled | (left & ~probe.margin_missed)
    return Observations(longer_steps=steps, longer_fools=count(fooled & ~probe.strayed))


def trusted(probe: Probe, name: str) -> bool:
    """Whether an attack of the caller's searched all of the ball, on the model itself.

    In steps that reach the edge, within the same bounds and without a mask of its own.
    """
    known = ours(probe.run.attacks[name].attack)
    if known is None or probe.run.search is not probe.run.model:
        return False
    told, bounds = known.settings, probe.threat.bounds
    given = told.get("bounds", bounds)
    same = given is bounds or not any(isinstance(each, Tensor) for each in (*given, *bounds))
    step = told.get("step_size")
    reaches = step is None or step * told["steps"] >= probe.threat.epsilon
    return same and tuple(given) == tuple(bounds) and told.get("mask") is None and reaches


def ascents(probe: Probe) -> Tensor:
    """How many steps up margins of logits the caller's attacks took, of each example: (n,)."""
    steps = torch.zeros_like(probe.rank)
    for name, spec in probe.run.attacks.items():
        known = ours(spec.attack)
        if known is None or known.name not in ASCENTS or known.norm != probe.threat.norm:
            continue
        if not trusted(probe, name):
            continue
        told = known.settings
        within = told["epsilon"] == probe.threat.epsilon and not told["targeted"]
        if within and told.get("loss", "margin") in ("margin", "dlr"):
            runs = told["restarts"] * told.get("n_targets", 1)
            steps = steps + told["steps"] * runs * probe.of_caller(name, "attacked")
    return steps


def hidden(probe: Probe, chosen: Tensor) -> Observations:
    """Search the least distance of what withstood everything, where its slope leads nowhere.

    But not where the caller's own search has just done that.
    """
    left = chosen & probe.survivors
    for name, spec in probe.run.attacks.items():
        if unwrapped(spec.attack)[0] is hidden_boundary_l2 and trusted(probe, name):
            left = left & ~probe.of_caller(name, "attacked")
    told = {name: probe.budget()[name] for name in ("bounds", "batch_size", "random_state")}
    whole = probe.radii()[-1]
    anywhere = probe.threat._replace(epsilon=whole)
    search = partial(attacks.carlini_wagner_l2, **told)
    first = partial(search, steps=FIRST_STEPS, stop_within=whole)
    reached = probe.fools(first, left, anywhere)
    search = partial(search, stop_within=probe.threat.epsilon)
    return Observations(only_distance=count(probe.fools(search, left & ~reached)))


def random_points(probe: Probe, chosen: Tensor) -> Observations:
    """What random points find among the examples that PGD left."""
    left = chosen & probe.missed
    draw = partial(noise, probe.run, probe.threat.of(left))
    return Observations(only_noise=count(probe.fools(draw, left)))


def random_search(probe: Probe, chosen: Tensor, queries: int = QUERIES) -> Observations:
    """What a random search finds among them, unless the caller's own has just looked.

    A second one, of more queries, looks for what the first has left, and tells what both found.
    """
    left = chosen & probe.missed
    search = attacks.sparse_rs if probe.threat.norm in COUNTS else attacks.square
    asked, found = looked(probe, search, lambda settings: settings["queries"] >= ENOUGH_QUERIES)
    found = (found | probe.searched) & left
    more = partial(search, queries=queries, **probe.budget())
    found = found | probe.fools(more, left & ~asked & ~found)
    probe.searched = probe.searched | found
    return Observations(only_black_box=count(found))


def looked(
    probe: Probe, attack: Callable[..., Tensor], suits: Callable[[dict[str, Any]], bool]
) -> tuple[Tensor, Tensor]:
    """Which examples such an attack of the caller's was run on, and which of them it fooled."""
    asked = found = torch.zeros_like(probe.survivors)
    known = name_of(probe.run.attacks, probe.threat, attack, suits)
    if known is not None and trusted(probe, known):
        asked, found = (probe.of_caller(known, what) for what in ("attacked", "fooled"))
    return asked, found


def noise(run: Run, threat: ThreatModel, model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return a random point of the ball that fools the model, of several drawn, or the input."""
    keys = example_keys(inputs, run.seed)
    low, high = (bound.expand_as(inputs) for bound in threat.box(inputs))

    def drawn(number: int, rows: Tensor) -> Tensor:
        x, box = inputs[rows], (low[rows], high[rows])
        return random_point(x, keys[rows], number, threat.norm, threat.epsilon, *box)

    return first_that_fools(run, model, inputs, labels, DRAWS, drawn)


def exchange(run: Run, threat: ThreatModel, model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the input with what may change as in an example of another class, or the input.

    Several such examples are tried, the same ones in every process.
    """
    low, high = (bound.expand_as(inputs) for bound in threat.box(inputs))
    others, classes = run.records.sample["inputs"], run.records.sample["labels"]
    rivals = {
        label: others[classes != label][:EXCHANGES].to(inputs) for label in set(labels.tolist())
    }

    def swapped(number: int, rows: Tensor) -> Tensor:
        points = inputs[rows].clone()
        for place, row in enumerate(rows.tolist()):
            other = rivals[int(labels[row])]
            if number < len(other):
                free = low[row] < high[row]
                points[place] = torch.where(free, other[number], points[place])
        return points

    return first_that_fools(run, model, inputs, labels, EXCHANGES, swapped)


def first_that_fools(
    run: Run,
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    tries: int,
    point: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """Try points of each example in turn, and return the first that fools, or the input.

    ``point`` makes the one of a number, for some rows of ``inputs``.
    """
    dtype = dtype_of(model, inputs.dtype)
    best, rows = inputs.clone(), torch.arange(len(inputs), device=inputs.device)
    for number in range(tries):
        points = point(number, rows)
        logits = opposed(model, logits_of(model, points, dtype, run.batch_size), labels[rows])
        right = logits.argmax(dim=1) == labels[rows]
        best[rows] = torch.where(per_example(right, points), inputs[rows], points)
        rows = rows[right]
        if not len(rows):
            break
    return best


def transfer(probe: Probe, chosen: Tensor, surrogate: Model) -> Observations:
    """What adversarial examples of another model find among the examples that PGD left."""
    left = chosen & probe.missed

    def attack(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
        budget = probe.budget()
        found = partial(attacks.pgd, loss="margin", steps=probe.steps, early_stop=False, **budget)
        return masked(found, probe.threat.of(left).mask)(surrogate, inputs, labels)

    return Observations(only_transfer=count(probe.fools(attack, left)))
