"""The sampled examples, and how the model is asked about them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import attacks
from ..._geometry import lp_norm
from ..._modes import device_of, dtype_of
from ..._processes import ALONE, Processes
from ..._typing import Attack
from .._judge import ThreatModel, judge
from .._ours import masked
from .._run import Run
from ._observations import Observations


@dataclass
class Probe:
    """Those of the sampled examples that a process asks about."""

    run: Run
    inputs: Tensor
    labels: Tensor
    places: Tensor
    """Places in the sample, which is in random order: (n,) int64."""
    rank: Tensor
    """How many sampled examples have a smaller margin before any attack: (n,) int64."""
    threat: ThreatModel
    """Theirs."""
    survivors: Tensor
    """Which examples have withstood everything so far, the caller's attacks included."""
    strayed: Tensor
    """Of which examples an attack returned points outside the threat model that would fool."""
    steps: int
    """Steps of the probing attacks."""
    processes: Processes = ALONE

    flat: Tensor = field(init=False)
    """Which examples have no gradient of the cross-entropy to follow."""
    missed: Tensor = field(init=False)
    """Which examples attacks on the gradient have missed, of those that were compared."""
    searched: Tensor = field(init=False)
    """Which of them a search without gradients has found."""
    margin_missed: Tensor = field(init=False)
    """Which of them PGD on the margin has missed."""

    def __post_init__(self) -> None:
        self.attack_survivors = self.survivors
        self.flat = torch.zeros_like(self.survivors)
        self.missed = torch.zeros_like(self.survivors)
        self.searched = torch.zeros_like(self.survivors)
        self.margin_missed = torch.ones_like(self.survivors)

    def measured(
        self, name: str, ask: Callable[[Tensor], Observations], chosen: Tensor | None = None
    ) -> Observations:
        """Measure something on the ``chosen`` examples of every process.

        An error costs this measurement, not those before and after it.
        """
        chosen = torch.ones_like(self.survivors) if chosen is None else chosen
        part = attempt(name, lambda: ask(chosen)) if bool(chosen.any()) else None
        self.run.progress.tell(name)
        groups = [each for each in self.processes.all_gather(part) if each is not None]
        return Observations.of(groups)

    def once(self, name: str, ask: Callable[[], Observations]) -> Observations:
        """Let the first process alone measure something."""
        part = attempt(name, ask) if self.processes.first else Observations()
        self.run.progress.tell(name)
        shared: Observations = self.processes.broadcast(part)
        return shared

    def anywhere(self, chosen: Tensor) -> bool:
        """Whether any process has such an example."""
        return any(self.processes.all_gather(bool(chosen.any())))

    def fools(self, attack: Attack, chosen: Tensor, threat: ThreatModel | None = None) -> Tensor:
        """Which of the ``chosen`` examples an attack fools: (n,) bool, False for all others."""
        fooled = torch.zeros_like(chosen)
        if not bool(chosen.any()):
            return fooled
        inputs, labels = self.inputs[chosen], self.labels[chosen]
        few = (threat or self.threat).of(chosen)
        verdict = judge(
            self.run.model,
            "probe",
            masked(attack, few.mask)(self.run.model, inputs, labels),
            inputs,
            labels,
            threat=few,
            own_norm=self.run.threat.norm,
            dtype=dtype_of(self.run.model, inputs.dtype),
            batch_size=self.run.batch_size,
        )
        fooled[chosen] = verdict.fooled
        if threat is None:
            self.survivors = self.survivors & ~fooled
        return fooled

    def of_caller(self, attack: str, what: str) -> Tensor:
        """A column of one of the caller's attacks, for these examples."""
        index = self.run.records.sample["index"][self.places.cpu()]
        return self.run.records.of(attack, what)[index].to(self.places.device)

    def budget(self, threat: ThreatModel | None = None) -> dict[str, Any]:
        """Arguments that all budget attacks take."""
        threat = threat or self.threat
        return {
            "epsilon": threat.epsilon,
            "norm": threat.norm,
            "bounds": threat.bounds,
            "batch_size": self.run.batch_size,
            "random_state": self.run.seed,
        }

    def pgd(self, loss: str, threat: ThreatModel | None = None, steps: int | None = None) -> Attack:
        """PGD that follows gradients alone: what random points find is another question."""
        budget = self.budget(threat)
        return partial(attacks.pgd, loss=loss, steps=steps or self.steps, redraw=False, **budget)

    def radii(self) -> list[float]:
        """The threat model's radius and twice that, as far as they are smaller, and the range."""
        low, high = self.threat.box(self.inputs)
        epsilon = self.threat.epsilon
        whole = lp_norm((high - low).expand_as(self.inputs), self.threat.norm).max().item()
        whole = whole or epsilon  # where a mask lets nothing change
        return [radius for radius in (epsilon, 2 * epsilon) if radius < whole] + [whole]


def attempt(name: str, ask: Callable[[], Observations]) -> Observations:
    """Measure something, or tell why that could not be done."""
    try:
        return ask()
    # The model and the surrogate are foreign code, which may raise anything.
    except Exception as error:
        return Observations(failed={name: f"{type(error).__name__}: {error}"})


def count(chosen: Tensor) -> int:
    """How many examples are chosen."""
    return int(chosen.sum())


def probe_of(
    run: Run, size: int, steps: int, strayed: Tensor, processes: Processes = ALONE
) -> Probe:
    """The share of this process in the first ``size`` sampled examples, on the model's device.

    ``strayed`` (n,) covers every evaluated example; :class:`Probe` holds the rows of its own.
    """
    sample, records = run.records.sample, run.records
    device = device_of(run.model, torch.device("cpu"))
    places = torch.arange(min(size, len(sample)), device="cpu")[processes.rank :: processes.count]
    index = sample["index"][: min(size, len(sample))]
    # The column holds the loss, by which the smallest lead comes last.
    rank = records.columns["margin"][index].argsort(descending=True, stable=True).argsort()
    survivors = torch.ones_like(index, dtype=torch.bool)
    for name in run.attacks:
        survivors &= ~records.of(name, "fooled")[index]
    return Probe(
        run,
        sample["inputs"][places].to(device),
        sample["labels"][places].to(device),
        places.to(device),
        rank[places].to(device),
        run.threat.of(index[places]),
        survivors[places].to(device),
        strayed[index][places].to(device),
        steps,
        processes,
    )
