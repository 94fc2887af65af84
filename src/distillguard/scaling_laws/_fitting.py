"""Robust fits from many starts, their bootstrap, and which coefficients they identify."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from .._validation import check_at_least, check_positive, check_random_state
from ._fit import Fit
from ._law import AccuracyLine, ScalingLaw, check_fixed
from ._numbers import confidence_level
from ._runs import Runs

FACTOR = 2.0
"""An identified coefficient's interval reaches less than this factor either way."""

FAR = 60.0
"""Bound on the elements of theta, to keep exponentials from overflowing."""

SAME = 1.01
"""Objectives within this factor of the best count as the same."""


class Form(ABC):
    """A law's logarithm as a function of its transformed coefficients, on given runs.

    ``theta`` holds the logarithm of each coefficient that cannot be negative and the others as
    they are, in the law's order.
    """

    law: ClassVar[type[ScalingLaw]]
    runs: Runs
    spread: dict[str, float]
    """For coefficients of either sign, by how much the runs vary what they multiply."""

    @abstractmethod
    def unvaried(self) -> dict[str, float]:
        """Coefficients not determined because the runs do not vary, and their placeholders."""

    @abstractmethod
    def log_loss(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-losses of shape (n,) and their Jacobian of shape (n, p)."""

    @abstractmethod
    def candidates(self) -> np.ndarray:
        """Candidate starts, of shape (m, p)."""

    def logged(self) -> np.ndarray:
        """Which elements of ``theta`` are logarithms."""
        return np.array([each != "any" for each in self.law._coefficients.values()])

    def transformed(self, values: Mapping[str, float]) -> np.ndarray:
        """``theta`` of coefficients by name, NaN where there is none."""
        given = np.array([values.get(name, math.nan) for name in self.law._coefficients])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.logged(), np.log(given), given)

    def natural(self, theta: np.ndarray) -> dict[str, float]:
        """Coefficients by name."""
        with np.errstate(over="ignore"):
            values = np.where(self.logged(), np.exp(theta), theta)
        return dict(zip(self.law._coefficients, values.tolist(), strict=True))


class Problem:
    """The mean Huber loss of the log-losses' errors, in the coefficients that are not held."""

    def __init__(
        self, form: Form, held: np.ndarray, delta: float, weights: np.ndarray | None = None
    ) -> None:
        self.form, self.held, self.delta = form, held, delta
        self.free = np.isnan(held)
        self.names = np.array(list(form.law._coefficients))[self.free]
        self.target = np.log(form.runs.loss)
        share = np.ones(len(form.runs)) if weights is None else weights
        self.share = share / share.sum()

    def full(self, free: np.ndarray) -> np.ndarray:
        theta = self.held.copy()
        theta[self.free] = free
        return theta

    def errors(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            values, jacobian = self.form.log_loss(self.full(free))
        return values - self.target, jacobian[:, self.free]

    def objective(self, free: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient, divided by delta to be of the order of an error."""
        if np.abs(free).max(initial=0) > FAR:
            return 1e9, np.zeros_like(free)
        errors, jacobian = self.errors(free)
        slope = np.clip(errors / self.delta, -1, 1)
        # Equals error² / 2 delta within delta, |error| - delta / 2 beyond.
        value = self.share @ (slope * (errors - slope * self.delta / 2))
        gradient = (self.share * slope) @ jacobian
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            return 1e9, np.zeros_like(free)
        return float(value), gradient

    def descend(
        self, start: np.ndarray, rounds: int = 5, steps: int = 300
    ) -> tuple[float, np.ndarray]:
        """Minimise by L-BFGS in coordinates scaled so that the errors have similar gradients."""
        best, place = self.objective(start)[0], start
        for _ in range(rounds):
            origin, axes = place, self._axes(place)

            def seen(
                z: np.ndarray, origin: np.ndarray = origin, axes: np.ndarray = axes
            ) -> tuple[float, np.ndarray]:
                value, gradient = self.objective(origin + axes @ z)
                return value, axes.T @ gradient

            found = minimize(
                seen,
                np.zeros_like(place),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": steps, "ftol": 1e-13, "gtol": 1e-9},
            )
            gain = best - found.fun
            if gain > 0:
                best, place = float(found.fun), origin + axes @ found.x
            if gain <= 1e-7 * best:
                break
        return best, place

    def _axes(self, free: np.ndarray) -> np.ndarray:
        _, jacobian = self.errors(free)
        values, vectors = np.linalg.eigh(jacobian.T * self.share @ jacobian)
        return vectors / np.sqrt(np.maximum(values, 1e-6 * values[-1]))

    def standard_errors(self, free: np.ndarray) -> np.ndarray:
        """By the curvature at the solution: infinite along directions in which it is flat."""
        errors, jacobian = self.errors(free)
        n, p = jacobian.shape
        noise = max(np.sqrt((errors**2).sum() / max(n - p, 1)), 0.01 * self.delta)
        scale = np.sqrt((jacobian**2).sum(axis=0))
        scale[scale == 0] = 1
        values, vectors = np.linalg.eigh((jacobian / scale).T @ (jacobian / scale))
        flat = values <= 1e-11 * values[-1]
        variance = (vectors[:, ~flat] ** 2 / values[~flat]).sum(axis=1) * noise**2
        touched = (vectors[:, flat] ** 2).sum(axis=1) > 1e-6
        return np.where(touched, np.inf, np.sqrt(variance) / scale)


@dataclass(frozen=True)
class Options:
    """Checked options of a fit."""

    huber_delta: float
    n_starts: int
    n_bootstrap: int
    confidence: float
    random_state: int | None

    def __post_init__(self) -> None:
        check_positive("huber_delta", self.huber_delta)
        check_at_least("n_starts", self.n_starts, 1)
        check_at_least("n_bootstrap", self.n_bootstrap, 0)
        confidence_level(self.confidence)
        check_random_state(self.random_state)


def fit_form(
    form: Form, settings: dict[str, Any], fixed: Mapping[str, float] | None, **options: Any
) -> Fit:
    """Fit, resample, and find the coefficients that are not identified."""
    chosen, fixed = Options(**options), dict(fixed or {})
    check_positive("flops_factor", settings["flops_factor"])
    check_fixed(form.law, fixed)
    unvaried = {name: value for name, value in form.unvaried().items() if name not in fixed}
    held = form.transformed({**unvaried, **fixed})
    problem = Problem(form, held, chosen.huber_delta)
    if not len(problem.names):
        raise ValueError(
            f"fixed must leave a coefficient to fit, got all that the runs tell of; "
            f"{form.law.__name__}(...) makes a law of known ones"
        )
    if len(form.runs) <= len(problem.names):
        raise ValueError(
            f"runs must be more than the {len(problem.names)} coefficients that are fitted, got "
            f"{len(form.runs)}; hold some with fixed"
        )

    def law(free: np.ndarray, weights: np.ndarray | None = None) -> ScalingLaw:
        line = accuracy_line(form.runs, weights)
        natural = {**form.natural(problem.full(free)), **fixed}
        return form.law(**natural, **settings, accuracy_line=line)  # type: ignore[call-arg]

    ends = _descents(problem, chosen.n_starts)
    best = ends[0][1]
    again = _resampled(problem, ends, chosen)
    flat = problem.names[np.isinf(problem.standard_errors(best))].tolist()
    return Fit(
        law=law(best),
        laws=tuple(law(found, weights) for found, weights in again),
        confidence=chosen.confidence,
        unidentified={
            **dict.fromkeys(unvaried, "the runs are all of one data quality"),
            **_unidentified(problem, ends, [found for found, _ in again], chosen.confidence),
        },
        undetermined=frozenset([*unvaried, *flat]),
        fixed=fixed,
        objective=ends[0][0] * chosen.huber_delta,
        objectives=tuple(value * chosen.huber_delta for value, _ in ends),
        residuals=-problem.errors(best)[0],
        runs=form.runs,
    )


def accuracy_line(runs: Runs, weights: np.ndarray | None = None) -> AccuracyLine | None:
    """Accuracy regressed on loss, if the runs have both and they vary."""
    chosen = slice(None) if weights is None else weights > 0
    if runs.accuracy is None or np.ptp(runs.loss[chosen]) == 0:
        return None
    root = None if weights is None else np.sqrt(weights)
    slope, intercept = np.polyfit(runs.loss, runs.accuracy, 1, w=root)
    return AccuracyLine(float(intercept), float(slope))


def resamples(groups: np.ndarray, n: int, random: np.random.Generator) -> list[np.ndarray]:
    """How often each row is drawn; rows of one group, numbered from 0, are drawn together."""
    n_groups = int(groups.max()) + 1
    draws = random.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n)
    return list(draws[:, groups].astype(np.float64))


def _descents(problem: Problem, n_starts: int) -> list[tuple[float, np.ndarray]]:
    """End points of descents from the best candidates and a sample of the others, best first."""
    candidates = problem.form.candidates()[:, problem.free]
    order = np.argsort([problem.objective(each)[0] for each in candidates])
    half = min(-(-n_starts // 2), len(order))
    rest = order[half:][:: max(1, (len(order) - half) // max(1, n_starts - half))]
    chosen = [*order[:half], *rest[: n_starts - half]]
    ends = [problem.descend(candidates[each]) for each in chosen]
    return sorted(ends, key=lambda end: end[0])


def _resampled(
    problem: Problem, ends: list[tuple[float, np.ndarray]], options: Options
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fits to resamples of the runs, each with its weights."""
    runs = problem.form.runs
    groups = np.arange(len(runs)) if runs.run is None else runs.run
    # They start from all equally good ends, as the best of a resample may be at another.
    good = _distinct([end for value, end in ends if value <= SAME * ends[0][0]])
    found = []
    random = np.random.default_rng(options.random_state)
    for weights in resamples(groups, options.n_bootstrap, random):
        again = Problem(problem.form, problem.held, problem.delta, weights)
        # These starts are near the ends already, and only their spread is needed.
        best = min((again.descend(start, 2, 60) for start in good), key=lambda end: end[0])
        found.append((best[1], weights))
    return found


def _distinct(ends: list[np.ndarray], most: int = 3) -> list[np.ndarray]:
    kept: list[np.ndarray] = []
    for end in ends:
        if len(kept) < most and all(np.abs(end - each).max() > math.log(FACTOR) for each in kept):
            kept.append(end)
    return kept


def _unidentified(
    problem: Problem,
    ends: list[tuple[float, np.ndarray]],
    resampled: list[np.ndarray],
    confidence: float,
) -> dict[str, str]:
    """Coefficients not determined within the factor, with the reason."""
    spread = np.array([problem.form.spread.get(name, 1.0) for name in problem.names])
    best, place = ends[0]
    reach = norm.ppf((1 + confidence) / 2) * problem.standard_errors(place) * spread
    alike = np.array([end for value, end in ends if value <= SAME * best + 1e-9]) * spread
    apart = np.ptp(alike, axis=0)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    widths = np.zeros_like(reach)
    if len(resampled):
        widths = np.ptp(np.quantile(resampled, tails, axis=0), axis=0) * spread

    limit = math.log(FACTOR)
    found = {}
    for name, near, between, width in zip(problem.names, reach, apart, widths, strict=True):
        if math.isinf(near):
            found[str(name)] = "the objective is flat in it: the runs lack the variety"
        elif between > 2 * limit:
            found[str(name)] = f"starts end as low at values {_factor(between)} apart"
        elif near > limit:
            found[str(name)] = f"the curvature leaves it open by {_factor(near)} either way"
        elif width > 2 * limit:
            found[str(name)] = f"the bootstrap interval spans {_factor(width)}"
    return found


def _factor(log_ratio: float) -> str:
    return f"a factor of {math.exp(min(log_ratio, 99.0)):.2g}"
