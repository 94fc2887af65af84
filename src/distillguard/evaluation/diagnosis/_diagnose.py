"""Measuring what tells a robust model from a failed attack; the rules are elsewhere."""

from typing import Any

import torch
from torch import Tensor

from ..._geometry import inside
from ..._modes import device_of, dtype_of
from ..._processes import ALONE, Processes
from ..._typing import Model
from .._records import Cost
from .._run import Run
from .._shards import combined_cost
from ._gradients import vanished_gradients
from ._observations import Observations
from ._probes import (
    Probe,
    budgets,
    count,
    longer,
    losses,
    random_points,
    random_search,
    transfer,
)
from ._stability import batch_dependence, randomness


def diagnose(
    run: Run, surrogate: Model | None = None, processes: Processes = ALONE
) -> Observations:
    """Measure everything on the sample of correct examples that the run kept."""
    sample = run.records.sample
    clean = clean_observations(run)
    if not len(sample):
        return Observations(**clean, sampled=0)

    device = device_of(run.model, torch.device("cpu"))
    mine = slice(processes.rank, None, processes.count)
    inputs, labels = sample["inputs"][mine].to(device), sample["labels"][mine].to(device)
    threat = run.threat.of(sample["index"][mine])
    probe = Probe(run, inputs, labels, threat, attack_survivors(run)[mine].to(device))
    part: dict[str, Any] = {}
    if len(inputs):
        with run.accounted("diagnosis"):
            part = measured(probe, surrogate)
    parts = [each for each in processes.all_gather(part) if each]
    run.records.costs["diagnosis"] = combined_cost(
        processes.all_gather(run.records.costs.get("diagnosis", Cost()))
    )
    return Observations(**clean, sampled=len(sample), **combined(parts))


def measured(probe: Probe, surrogate: Model | None) -> dict[str, Any]:
    """What is seen of the probe's examples: counts, but for the largest gaps between logits."""
    survivors = probe.survivors
    whole = torch.ones_like(probe.labels, dtype=torch.bool)
    seen: dict[str, Tensor] = {"white box": whole}

    def gradients() -> dict[str, Any]:
        # A hair inside the bounds, where a clamp inside the model hides nothing.
        model, low_high = probe.run.model, probe.threat.box(probe.inputs)
        points = inside(probe.inputs, *low_high, dtype_of(model, probe.inputs.dtype))
        flat, found = vanished_gradients(model, points, probe.labels, probe.run.batch_size)
        if flat is not None:
            seen["flat"] = flat
        return {"differentiable": flat is not None, **found}

    def by_loss() -> dict[str, Any]:
        # Without it, nothing can be said to beat it.
        del seen["white box"]
        seen["white box"], found = losses(probe)
        return found

    found = probe.measured("stability", lambda: randomness(probe))
    found |= probe.measured("other batches", lambda: batch_dependence(probe))
    found |= probe.measured("gradients", gradients)
    if found.get("differentiable", True):
        found |= probe.measured("cross-entropy and margin", by_loss)
        found |= probe.measured("longer attack", lambda: longer(probe, survivors))
    if "flat" in seen:
        found |= probe.measured("budgets", lambda: budgets(probe, seen["flat"]))
    if "white box" in seen:
        missed = seen["white box"]
        found |= probe.measured("random points", lambda: random_points(probe, missed))
        found |= probe.measured("random search", lambda: random_search(probe, missed))
        if surrogate is not None:
            found |= probe.measured("transfer", lambda: transfer(probe, surrogate, missed))
    found["attack_survivors"], found["all_survivors"] = count(survivors), count(probe.survivors)
    found["failed"] = probe.failed
    return found


def combined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The measurements of several processes as one: counts add up, the largest gaps count."""
    failed = {name: why for part in parts for name, why in part["failed"].items()}
    # What one process could not measure is not known of the whole.
    names = [name for name in parts[0] if all(name in part for part in parts)]
    whole = {name: parts[0][name] for name in names} | {"failed": failed}
    for part in parts[1:]:
        for name in names:
            known, value = whole[name], part[name]
            if name in ("logit_gap", "batch_gap"):
                whole[name] = max(known, value)
            elif name == "differentiable":
                whole[name] = known and value
            elif isinstance(value, tuple) and name != "budgets":
                whole[name] = tuple(a + b for a, b in zip(known, value, strict=True))
            elif isinstance(value, int):
                whole[name] = known + value
    return whole


def clean_observations(run: Run) -> dict[str, Any]:
    """What the columns alone tell."""
    columns = run.records.columns
    correct = columns["predicted"] == columns["label"]
    margins = -columns["margin"][correct]
    silent = torch.zeros_like(correct)
    for name in run.attacks:
        silent |= run.records.of(name, "silent")
    return {
        "correct": int(correct.sum()),
        "saturated": int(columns["saturated"][correct].sum()),
        "silent": int(silent.sum()),
        "mean_logit": columns["magnitude"].mean().item(),
        "median_margin": margins.median().item() if len(margins) else 0.0,
        "probabilities": bool(run.model.takes_logarithm),
    }


def attack_survivors(run: Run) -> Tensor:
    """Which of the sampled examples withstand the caller's attacks."""
    places = run.records.sample["index"]
    survivors = torch.ones(len(places), dtype=torch.bool)
    for name in run.attacks:
        survivors &= ~run.records.of(name, "fooled")[places]
    return survivors
