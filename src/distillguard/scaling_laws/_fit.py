"""What a fit found: a law, how sure it is, and what it could not know."""

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

    ``print(fit)`` gives a table with a note on every coefficient that the runs leave open. Such
    a law may still predict well between the runs: ask :meth:`interval` about a prediction.

    Attributes
    ----------
    law : ScalingLaw
        The best one found.
    laws : tuple of ScalingLaw
        One per bootstrap resample of the runs.
    confidence : float
        Level of the intervals.
    unidentified : dict of str to str
        Coefficients that the runs do not determine within a factor of two either way, each
        with how that shows: a flat objective, starts that end as low elsewhere, the curvature,
        or the spread of the bootstrap. For exponents of the data quality, the factor is that by
        which the term changes from the best to the worst quality of the runs.
    undetermined : frozenset of str
        Those of them about which the runs say nothing at all: the objective is flat in them, or
        the runs vary nothing that they multiply and they hold a stand-in. Their intervals have
        no ends.
    fixed : dict of str to float
        Coefficients that were held.
    objective : float
        What was minimised, at the law.
    objectives : tuple of float
        The same where each start ended, ascending.
    residuals : ndarray
        Errors of the log-losses, measured minus predicted: one per run, or for an
        :class:`EnvelopeLaw` per point of the envelope.
    runs : object
        The columns fitted to, as arrays: ``parameters``, ``data``, ``loss``, ``fid``,
        ``accuracy`` and ``run``, the last three None where not given.
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
        """Bootstrap interval of each coefficient: NaN without resamples, open if undetermined."""
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
        """Bootstrap interval of anything that a law answers.

        Parameters
        ----------
        ask : callable
            From a law to a number or an array, such as
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
