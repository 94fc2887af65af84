"""Result of a fit: a law, its intervals, and which coefficients are not identified."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from ._law import ScalingLaw
from ._numbers import confidence_level
from ._runs import Runs


@dataclass(frozen=True)
class Fit:
    """A law fitted to runs.

    ``print(fit)`` gives a table with a note on every coefficient that the runs do not identify.
    Such a law may still predict well between the runs; :meth:`interval` gives the uncertainty of a
    prediction.

    Attributes
    ----------
    law : ScalingLaw
        The best law found.
    laws : tuple of ScalingLaw
        One per bootstrap resample of the runs.
    confidence : float
        Level of the intervals.
    unidentified : dict of str to str
        Coefficients that the runs do not determine within a factor of two either way, each with
        the reason: a flat objective, starts that end elsewhere with the same objective, the
        curvature, or the spread of the bootstrap. For exponents of the data quality, the factor
        is that by which the term changes from the best to the worst quality of the runs.
    undetermined : frozenset of str
        The subset about which the runs contain no information: the objective is flat in them, or
        what they multiply does not vary and they have a placeholder value. Their intervals are
        unbounded.
    fixed : dict of str to float
        Coefficients that were held fixed.
    objective : float
        Minimised objective at ``law``.
    objectives : tuple of float
        Objective at the end of each start, ascending.
    residuals : ndarray
        Errors of the log-losses, measured minus predicted: one per run, or for an
        :class:`EnvelopeLaw` per point of the envelope.
    runs : object
        The columns used in the fit, as arrays: ``parameters``, ``data``, ``loss``, ``fid``,
        ``accuracy`` and ``run``. The last three are None if not given.
    """

    law: ScalingLaw
    laws: tuple[ScalingLaw, ...]
    confidence: float
    unidentified: dict[str, str]
    undetermined: frozenset[str]
    fixed: dict[str, float]
    objective: float
    objectives: tuple[float, ...]
    residuals: np.ndarray
    runs: Runs

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Bootstrap interval by coefficient: NaN without resamples, unbounded if undetermined."""
        found = {name: self.interval(attrgetter(name)) for name in self.law.coefficients}
        kinds = self.law._coefficients
        nothing = {
            name: (-math.inf if kinds[name] == "any" else 0.0, math.inf)
            for name in self.undetermined
        }
        return {**found, **nothing}

    def interval(
        self, ask: Callable[[Any], Any], confidence: float | None = None
    ) -> tuple[Any, Any]:
        """Bootstrap interval of any prediction of the law.

        Parameters
        ----------
        ask : callable
            Function of a law that returns a number or an array, such as
            ``lambda law: law.compute_optimal(1e20).loss``.
        confidence : float, optional
            Level of the interval; that of the fit if not given.

        Returns
        -------
        low, high : float or ndarray
            Ends of the percentile interval, NaN without resamples.

        Raises
        ------
        ValueError
            If ``confidence`` is not within 0 and 1.
        """
        level = self.confidence if confidence is None else confidence_level(confidence)
        if not self.laws:
            nothing = np.asarray(ask(self.law)) * math.nan
            return nothing[()], nothing[()]
        answers = np.array([ask(law) for law in self.laws])
        low, high = np.quantile(answers, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return (low, high) if low.ndim else (float(low), float(high))

    def __str__(self) -> str:
        lines = [
            f"{type(self.law).__name__} fitted to {len(self.runs)} runs, typical error "
            f"{np.median(np.abs(self.residuals)):.2g} of the loss",
            f"{'':<22}{'value':>12}   {100 * self.confidence:g} % interval",
        ]
        for name, value in self.law.coefficients.items():
            low, high = self.intervals[name]
            note = "held" if name in self.fixed else f"{low:.4g} to {high:.4g}"
            if name in self.unidentified:
                note += f"   NOT IDENTIFIED: {self.unidentified[name]}"
            lines.append(f"{name:<22}{value:>12.5g}   {note}")
        return "\n".join(lines)
