"""What each layer of a layered defence stops, and what passes through all of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._modes import borrowed, dtype_of
from .._plot import canvas, drawn
from .._random import draw_seed
from .._typing import Attack, Bounds, Distance
from .._validation import DISTANCES, check_at_least, check_choice, check_epsilon, check_norm
from ..adaptive._averaged import averaged
from ._evaluate import evaluate
from ._judge import ThreatModel
from ._model import resolve_model
from ._presets import PRESETS, preset
from ._query import logits_of
from ._reading import opened
from ._selective import selective_pgd
from ._statistics import wilson
from ._tables import Rows, Table
from .report._numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..defenses import LayeredNetwork

BARE, OBLIVIOUS, STAGED, JOINT, WHOLE = "bare", "oblivious", "staged", "joint", "all together"
JOINTLY = ("APGD targeted", "PGD margin", "Square")
"""Of a preset what attacks the whole, in this order; all of a preset that has none of them."""
RESAMPLES = 2000
"""Bootstrap samples of the examples."""


@dataclass(frozen=True, kw_only=True)
class LayerReport(Table):
    """Attacks on a layered defence: on nothing of it, on each part alone, and on the whole.

    Every figure counts the same examples: those that the bare classifier and the whole defence
    both answer rightly before any attack.

    Attributes
    ----------
    parts : tuple of str
        Names of the layers and the detectors, in order.
    n_examples : int
        Examples given.
    clean_accuracy : float
        Share that the whole answers rightly; a rejected example counts as wrong.
    clean_rejected : float
        Share of all examples rejected before any attack.
    fooled : dict of ndarray of shape (n,), bool
        Which of the counted examples each attack fools: ``"bare"`` the classifier alone;
        ``"oblivious"`` the whole, by the points that fool the classifier alone; each part's name
        the classifier with that part alone, by both attacks that know it; ``"staged"`` and
        ``"joint"`` the whole, by attacks that know all of it, the second of what the first left,
        the first begun with the points that were found against the parts;
        ``"all together"`` what any of these finds on the whole.
    clean : dict of str to float
        Share of all examples that the bare classifier, and each part with it, answers rightly
        before any attack.
    stopped : dict of (tuple of str) to int
        Of the points that fool the classifier alone, how many are stopped by which parts, each
        looked at by itself; the empty tuple where none does.
    passes : dict of str to float
        Examples that the classifier sent forwards and backwards for each attack, its judging
        included, per counted example: a layered one may be asked several times for an answer.
    norm : {"linf", "l2", "l1", "l0", "l0_pixels"}
        Of the threat model.
    epsilon : float
        Its radius.
    seed : int
        Of everything drawn, the bootstrap included.
    """

    parts: tuple[str, ...]
    n_examples: int
    clean_accuracy: float
    clean_rejected: float
    fooled: Mapping[str, np.ndarray]
    clean: Mapping[str, float]
    stopped: Mapping[tuple[str, ...], int]
    passes: Mapping[str, float]
    norm: Distance
    epsilon: float
    seed: int = field(repr=False)

    @property
    def n_counted(self) -> int:
        """Examples that all figures are shares of."""
        return len(self.fooled[BARE])

    @property
    def robust_accuracy(self) -> float:
        """Share of all examples that the whole answers rightly, and withstand every attack."""
        lost = int(self.fooled[WHOLE].sum())
        return self.clean_accuracy - lost / self.n_examples

    @property
    def product(self) -> float:
        """What would pass if the holes of the parts were independent.

        The product over parts of successes over that on the bare classifier; NaN where nothing
        fools that.
        """
        return _product(self._chosen(np.arange(self.n_counted)), self.parts)

    @property
    def truth(self) -> float:
        """What passes, as a share of what fools the bare classifier."""
        return _truth(self._chosen(np.arange(self.n_counted)))

    @property
    def ratio(self) -> float:
        """What passes over what would if the holes were independent."""
        return self.truth / self.product if self.product > 0 else float("nan")

    @property
    def ratio_interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the ratio; None where that of the product includes 0."""
        draw, n = np.random.default_rng(self.seed), self.n_counted
        if not n or not self.product > 0:
            return None
        samples = [self._chosen(draw.integers(n, size=n)) for _ in range(RESAMPLES)]
        products = np.array([_product(each, self.parts) for each in samples])
        if not np.nanquantile(products, 0.025) > 0:
            return None
        ratios = np.array([_truth(each) for each in samples]) / np.where(products, products, np.nan)
        low, high = np.nanquantile(ratios, [0.025, 0.975])
        return float(low), float(high)

    def _chosen(self, rows: np.ndarray) -> dict[str, float]:
        """Success of every attack on some of the counted examples."""
        return {name: float(each[rows].mean()) if len(rows) else 0.0 for name, each in
                self.fooled.items()}  # fmt: skip

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw which parts stop the points that fool the classifier alone, as an UpSet plot.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Axes of its own if not given.

        Returns
        -------
        matplotlib.axes.Axes
            Bars of counts; below each, dots at the parts that stopped so many.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        """
        _, ax = canvas(ax)
        groups = sorted(self.stopped.items(), key=lambda item: -item[1])
        counts = [count for _, count in groups]
        step = max(counts, default=1) / 8
        bars = ax.bar(
            range(len(groups)), counts, color=["C3" if not g else "C0" for g, _ in groups]
        )
        ax.bar_label(bars)
        for place, (group, _) in enumerate(groups):
            heights = [-step * (1 + self.parts.index(part)) for part in group]
            ax.plot([place] * len(heights), heights, "o-", color="C0")
        ax.set_yticks(
            [-step * (1 + row) for row in range(len(self.parts))],
            [drawn(part) for part in self.parts],
        )
        ax.set_xticks([])
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_title("What fools the classifier alone, by the parts that stop it")
        return ax

    @property
    def _title(self) -> str:
        interval = self.ratio_interval
        told = "undetermined" if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]"
        return (
            f"{percent(self.robust_accuracy)} robust accuracy within {self.norm} {self.epsilon:g}, "
            f"clean accuracy {percent(self.clean_accuracy)} with {percent(self.clean_rejected)} "
            f"rejected. Of what fools the bare classifier {percent(self.truth)} passes all layers; "
            f"independent holes would let {percent(self.product)} pass (ratio {self.ratio:.3g}, "
            f"95 % interval {told})."
        )

    @property
    def _headers(self) -> tuple[str, ...]:
        return "attack", "fooled", "95 % interval", "passes"

    @property
    def _rows(self) -> Rows:
        rows: Rows = []
        for name, each in self.fooled.items():
            low, high = wilson(int(each.sum()), len(each)) if len(each) else (0.0, 1.0)
            share = each.mean() if len(each) else float("nan")
            spent = self.passes.get(name)
            told = "" if spent is None else f"{spent:.0f}"
            shown = f"{name}, on the rest" if name == JOINT else name
            rows.append((shown, percent(share), f"[{100 * low:.1f}, {100 * high:.1f}]", told))
        return rows


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
    know the whole. What is rejected is not fooled. Beside them stands what would pass if the holes
    of the parts were independent, :math:`\prod_i p_i` with :math:`p_i` the success against part
    :math:`i` alone over that on the bare classifier: slices with holes in the same place stop less.

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
    attacks : {"standard", "quick"}, default="standard"
        The preset of :func:`~distillguard.evaluate` on the bare classifier, on each part and on the
        whole.
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
            fooled[STAGED] = few.in_stages(whole, tried[::-1])
        with counting(whole.network, passes, JOINT):
            fooled[JOINT] = few.jointly(whole, ~fooled[STAGED])
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

    def jointly(self, model: "LayeredNetwork", left: np.ndarray) -> np.ndarray:
        """Which of the examples that are left an attack on all columns at once fools.

        A layered defence costs several passes a question: of the preset what finds most for them,
        that first.
        """
        rows = torch.from_numpy(left).to(self.inputs.device)
        threat = ThreatModel(
            self.settings["norm"], self.settings["epsilon"], self.settings["bounds"]
        )
        told = {name: self.settings[name] for name in ("batch_size", "random_state")}
        specs = preset(self.attacks, threat, **told)
        chosen = {name: specs[name].attack for name in JOINTLY if name in specs}
        few = replace(self, inputs=self.inputs[rows], labels=self.labels[rows])
        fooled = np.zeros(len(left), dtype=bool)
        fooled[left], _ = few.attacked(model, chosen or None)
        return fooled

    def attacked(
        self, model: "LayeredNetwork", attacks: Mapping[str, Attack] | None = None
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

    def in_stages(self, model: "LayeredNetwork", known: Sequence[Tensor]) -> np.ndarray:
        """Which examples fall to points that are known, or to a descent of their own.

        A point that gets past one part may get past all: asking costs one answer of the whole,
        searching costs dozens.
        """
        fooled = np.zeros(len(self.labels), dtype=bool)
        for points in (*known, None):
            left = ~fooled
            if not left.any():
                break
            rows = torch.from_numpy(left).to(self.inputs.device)
            few = replace(self, inputs=self.inputs[rows], labels=self.labels[rows])
            fooled[left] = few.fools(model, few.staged(model) if points is None else points[rows])
        return fooled

    def staged(self, model: "LayeredNetwork") -> Tensor:
        """Points that fool the classifier first, and then silence the detectors."""
        return selective_pgd(model, self.inputs, self.labels, draws=self.draws, **self.settings)

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
    """Count the examples that a network sends forwards and backwards."""
    passes[name] = 0

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


def _product(success: Mapping[str, float], parts: Sequence[str]) -> float:
    bare = success[BARE]
    if not bare > 0:
        return float("nan")
    return float(np.prod([min(success[part] / bare, 1.0) for part in parts]))


def _truth(success: Mapping[str, float]) -> float:
    return success[WHOLE] / success[BARE] if success[BARE] > 0 else float("nan")
