"""Attacks on a layered defence: on none of its layers, on each alone, and on the whole."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._modes import borrowed, dtype_of
from .._random import draw_seed
from .._typing import Bounds, Distance
from .._validation import (
    DISTANCES,
    check_at_least,
    check_choice,
    check_epsilon,
    check_norm,
    check_random_state,
)
from ..adaptive._averaged import averaged
from ._evaluate import evaluate
from ._judge import ThreatModel
from ._layer_report import BARE, JOINT, OBLIVIOUS, STAGED, WHOLE, LayerReport
from ._model import resolve_model
from ._presets import PRESETS, AttackSpec, preset
from ._query import logits_of
from ._reading import opened
from ._selective import selective_pgd

if TYPE_CHECKING:
    from ..defenses import LayeredNetwork

STAGED_STEPS, TARGETED_STEPS = 40, 50
"""Of the staged attack on the whole, and of APGD with targets on it, at least."""
BLIND = 1e-6
"""Share of the lead below which nothing lies: Square runs where the gradient led nowhere."""


def evaluate_layers(
    guard: Any,
    X: Any,
    y: Any = None,
    *,
    norm: Distance = "linf",
    epsilon: float,
    attacks: str = "standard",
    draws: int = 1,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int | None = None,
) -> LayerReport:
    r"""Attack a layered defence part by part and as a whole.

    Five kinds of attack: one that knows nothing of the layers, one on each part alone, one that
    tries on the whole what it found against the parts, fools the classifier behind its layers and
    then silences the detectors from there ("staged", selective gradients [1]_), one on all columns
    of the whole at once, of the examples that this left ("joint"), and the worst case of those that
    know the whole; what they found is tried on each part as well. What is rejected is not fooled.
    Beside them stands what would pass if the holes of the parts were independent,
    :math:`\prod_i p_i` with :math:`p_i` the success against part :math:`i` alone over that on the
    bare classifier: slices with holes in the same place stop less.

    Parameters
    ----------
    guard : LayeredDefense or LayeredNetwork
        Fitted.
    X : array, tensor, data set or loader
        Inputs within ``bounds``.
    y : array or tensor of shape (n,), optional
        True classes, if ``X`` does not hold them.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}, default="linf"
        Norm of the threat model.
    epsilon : float
        Its radius, in the units of ``X``; in l0 a whole number.
    attacks : {"standard", "quick", "autoattack"}, default="standard"
        The preset of :func:`~distillguard.evaluate` on the bare classifier and on each part; the
        strongest of its attacks run on the whole.
    draws : int, default=1
        Draws over which answers and gradients are averaged, in every attack and verdict, for
        defences with random layers; passes grow with them.
    bounds : tuple of float or Tensor, default=(0.0, 1.0)
        Lowest and highest value an input may take.
    batch_size : int, default=256
        Examples on the device at once.
    random_state : int, optional
        Seed of everything drawn; a fresh one if not given.

    Returns
    -------
    LayerReport
        Who was fooled by what, the product and the truth.

    Raises
    ------
    TypeError
        If ``guard`` has no layers, or ``X`` or ``y`` is of the wrong kind.
    ValueError
        If a parameter is out of its range, or the data do not fit the defence.

    References
    ----------
    .. [1] O. Bryniarski, N. Hingun, P. Pachuca, V. Wang and N. Carlini, "Evading Adversarial
       Example Detection Defenses with Orthogonal Projected Gradient Descent", ICLR 2022.
       https://arxiv.org/abs/2106.15023

    Examples
    --------
    >>> from distillguard import LayeredDefense, UndefendedClassifier, datasets
    >>> from distillguard.defenses import BitDepth, MaximumProbability
    >>> from distillguard.evaluation import evaluate_layers
    >>> classifier = UndefendedClassifier(max_epochs=10, random_state=0)
    >>> guard = LayeredDefense(classifier, [BitDepth(3)], [MaximumProbability()], random_state=0)
    >>> _ = guard.fit(*datasets.load_digits("train"))
    >>> X, y = datasets.load_digits("test")
    >>> report = evaluate_layers(
    ...     guard, X[:40], y[:40], epsilon=0.3, attacks="quick", random_state=0
    ... )
    >>> sorted(report.fooled)[-3:]
    ['joint', 'oblivious', 'staged']
    """
    # With it comes scikit-learn, which other evaluations do without.
    from ..defenses import LayeredNetwork

    subject = resolve_model(guard)
    if not isinstance(subject.model, LayeredNetwork):
        raise TypeError(
            "guard must be a fitted LayeredDefense or a LayeredNetwork, got "
            f"{type(guard).__name__}; evaluate takes any model"
        )
    check_choice("attacks", attacks, PRESETS)
    check_norm(norm, DISTANCES)
    check_epsilon(epsilon, norm)
    check_at_least("draws", draws, 1)
    check_at_least("batch_size", batch_size, 1)
    check_random_state(random_state)
    settings: dict[str, Any] = {
        "norm": norm,
        "epsilon": epsilon,
        "bounds": bounds,
        "batch_size": batch_size,
        "random_state": draw_seed(random_state),
    }
    dtype = dtype_of(subject.model, torch.get_default_dtype())
    data = opened(subject, X, y, bounds=bounds).whole(dtype)
    assert data.labels is not None
    return _Trial(subject.model, data.inputs, data.labels, settings, attacks, draws).report()


@dataclass
class _Trial:
    """A defence, examples, and how they are attacked."""

    whole: "LayeredNetwork"
    inputs: Tensor
    labels: Tensor
    settings: dict[str, Any]
    attacks: str
    draws: int

    def report(self) -> LayerReport:
        """Attack the bare classifier, each part and the whole."""
        whole, names = self.whole, _names(self.whole)
        bare, first = _alone(whole, [], []), len(whole.layers)
        pieces = {
            name: _alone(whole, [place], [])
            if place < first
            else _alone(whole, [], [place - first])
            for place, name in enumerate(names)
        }
        before = self.answers(whole, self.inputs)
        right = before == self.labels
        known = {
            name: self.answers(piece, self.inputs) == self.labels
            for name, piece in {BARE: bare, **pieces}.items()
        }
        counted = right & known[BARE]
        few = replace(self, inputs=self.inputs[counted], labels=self.labels[counted])

        fooled: dict[str, np.ndarray] = {}
        passes: dict[str, int] = {}
        with counting(whole.network, passes, BARE):
            fooled[BARE], points = few.attacked(bare)
        fooled[OBLIVIOUS] = fooled[BARE] & few.fools(whole, points)
        tried: list[Tensor] = []
        for name, piece in pieces.items():
            with counting(whole.network, passes, name):
                fooled[name], found = few.attacked(piece)
                staged = few.staged(piece)
                fooled[name] |= few.fools(piece, staged)
            tried += [found, staged]
        with counting(whole.network, passes, STAGED):
            fooled[STAGED], staged = few.in_stages(whole, tried[::-1])
        with counting(whole.network, passes, JOINT):
            fooled[JOINT], joint = few.jointly(whole, ~fooled[STAGED])
        for name, piece in pieces.items():
            with counting(whole.network, passes, name):
                fooled[name] |= few.fools(piece, staged) | few.fools(piece, joint)
        fooled[WHOLE] = fooled[OBLIVIOUS] | fooled[STAGED] | fooled[JOINT]

        stops = {name: ~few.fools(piece, points) for name, piece in pieces.items()}
        groups = Counter(
            tuple(name for name in names if stops[name][row]) for row in fooled[BARE].nonzero()[0]
        )
        return LayerReport(
            parts=names,
            n_examples=len(self.inputs),
            clean_accuracy=right.double().mean().item(),
            clean_rejected=(before == self.rejection).double().mean().item(),
            fooled=fooled,
            clean={name: each.double().mean().item() for name, each in known.items()},
            stopped=dict(groups),
            passes={name: spent / max(len(few.labels), 1) for name, spent in passes.items()},
            norm=self.settings["norm"],
            epsilon=self.settings["epsilon"],
            seed=self.settings["random_state"],
        )

    @cached_property
    def rejection(self) -> int:
        """The column of rejection."""
        with borrowed(self.whole, gradients=False):
            return int(self.whole(self.inputs[:1]).shape[1] - 1)

    def jointly(self, model: "LayeredNetwork", left: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Which of the examples that are left an attack on all columns at once fools, and points.

        A layered defence costs several passes a question: of the preset what finds most for them,
        in more steps. PGD from many starts would find little that this does not, and Square
        nothing unless the gradient leads nowhere.
        """
        rows = torch.from_numpy(left).to(self.inputs.device)
        threat = ThreatModel(
            self.settings["norm"], self.settings["epsilon"], self.settings["bounds"]
        )
        told = {name: self.settings[name] for name in ("batch_size", "random_state")}
        specs = preset(self.attacks, threat, **told)
        if "APGD targeted" in specs:
            targeted = specs["APGD targeted"].attack
            assert isinstance(targeted, partial)
            # In l1, more than half of the steps are taken in larger balls.
            least = 2 * TARGETED_STEPS if threat.norm == "l1" else TARGETED_STEPS
            longer = partial(targeted, steps=max(least, targeted.keywords["steps"]))
            chosen = {
                "APGD targeted": AttackSpec(longer, threat.norm),
                "Square": AttackSpec(specs["Square"].attack, threat.norm, near=BLIND),
            }
        else:
            chosen = {"PGD margin": specs["PGD margin"]}
        few = replace(self, inputs=self.inputs[rows], labels=self.labels[rows])
        fooled, points = np.zeros(len(left), dtype=bool), self.inputs.clone()
        fooled[left], points[rows] = few.attacked(model, chosen)
        return fooled, points

    def attacked(
        self, model: "LayeredNetwork", attacks: Mapping[str, AttackSpec] | None = None
    ) -> tuple[np.ndarray, Tensor]:
        """Which examples the preset, or other attacks, fool, and the points."""
        if not len(self.inputs):
            return np.zeros(0, dtype=bool), self.inputs
        report = evaluate(
            model,
            self.inputs,
            self.labels,
            attacks=attacks or self.attacks,
            diagnosis=None,
            draws=self.draws,
            keep_examples="all",
            **self.settings,
        )
        assert report.per_example is not None
        fooled = np.array([by is not None for by in report.per_example.fooled_by])
        return fooled, report.adversarial.to(self.inputs)

    def in_stages(
        self, model: "LayeredNetwork", known: Sequence[Tensor]
    ) -> tuple[np.ndarray, Tensor]:
        """Which examples fall to points that are known or to a descent of their own, and points.

        A point that gets past one part may get past all: asking costs one answer of the whole,
        searching costs dozens.
        """
        fooled, last = np.zeros(len(self.labels), dtype=bool), self.inputs.clone()
        for points in (*known, None):
            left = ~fooled
            if not left.any():
                break
            rows = torch.from_numpy(left).to(self.inputs.device)
            few = replace(self, inputs=self.inputs[rows], labels=self.labels[rows])
            found = few.staged(model, steps=STAGED_STEPS) if points is None else points[rows]
            fooled[left], last[rows] = few.fools(model, found), found
        return fooled, last

    def staged(self, model: "LayeredNetwork", **settings: int) -> Tensor:
        """Points that fool the classifier first, and then silence the detectors."""
        told = {**self.settings, **settings, "draws": self.draws}
        return selective_pgd(model, self.inputs, self.labels, **told)

    def answers(self, model: "LayeredNetwork", inputs: Tensor) -> Tensor:
        """The columns that a model answers."""
        asked = averaged(model, self.draws) if self.draws > 1 else model
        with borrowed(asked, self.settings["random_state"], gradients=False):
            dtype, size = dtype_of(model, inputs.dtype), self.settings["batch_size"]
            return logits_of(asked, inputs, dtype, size).argmax(dim=1).to(inputs.device)

    def fools(self, model: "LayeredNetwork", points: Tensor) -> np.ndarray:
        """Where a model answers points by a class, and not by the true one."""
        answers = self.answers(model, points)
        other = (answers != self.labels) & (answers < self.rejection)
        return other.cpu().numpy()


@contextmanager
def counting(network: nn.Module, passes: dict[str, int], name: str) -> Iterator[None]:
    """Count the examples that a network sends forwards and backwards, in addition to earlier."""
    passes.setdefault(name, 0)

    def answered(_: nn.Module, __: tuple[Any, ...], logits: Any) -> None:
        passes[name] += len(logits)
        if isinstance(logits, Tensor) and logits.requires_grad:
            logits.register_hook(went_back)

    def went_back(gradient: Tensor) -> None:
        passes[name] += len(gradient)

    handle = network.register_forward_hook(answered)
    try:
        yield
    finally:
        handle.remove()


def _names(whole: "LayeredNetwork") -> tuple[str, ...]:
    """Class names of layers and detectors, numbered where they are repeated."""
    kinds = [type(each).__name__ for each in (*whole.layers, *whole.detectors)]
    seen: Counter[str] = Counter()
    names = []
    for kind in kinds:
        seen[kind] += 1
        names.append(kind if seen[kind] == 1 else f"{kind} {seen[kind]}")
    return tuple(names)


def _alone(
    whole: "LayeredNetwork", layers: Sequence[int], detectors: Sequence[int]
) -> "LayeredNetwork":
    """The classifier with some layers and detectors, at the thresholds of the whole."""
    from ..defenses import LayeredNetwork

    kept = [place for place in detectors if place >= 0]
    part = LayeredNetwork(
        whole.network,
        [whole.layers[place] for place in layers],
        [whole.detectors[place] for place in kept],  # type: ignore[misc]
    )
    part.unit = whole.unit
    part.thresholds, part.spreads = whole.thresholds[kept], whole.spreads[kept]
    return part.train(whole.training)
