"""The report of attacks on a layered defence: who stopped what, the product, and the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .._plot import canvas, drawn
from .._typing import Distance
from ._statistics import wilson
from ._tables import Rows, Table
from .report._numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARE, OBLIVIOUS, STAGED, JOINT, WHOLE = "bare", "oblivious", "staged", "joint", "all together"
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


def _product(success: Mapping[str, float], parts: Sequence[str]) -> float:
    bare = success[BARE]
    if not bare > 0:
        return float("nan")
    return float(np.prod([min(success[part] / bare, 1.0) for part in parts]))


def _truth(success: Mapping[str, float]) -> float:
    return success[WHOLE] / success[BARE] if success[BARE] > 0 else float("nan")
