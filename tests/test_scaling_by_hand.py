"""The parts of the fits of scaling laws, each against a figure by hand or a second route."""

import dataclasses
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import huber
from scipy.stats import norm

from distillguard.scaling_laws import (
    BARTOLDSON2024_ENVELOPE,
    BARTOLDSON2024_PARAMETRIC,
    BARTOLDSON2024_QUALITY,
    EnvelopeLaw,
    Fit,
    LossDisplay,
    ParametricLaw,
    QualityLaw,
    SizeDisplay,
    _fitting,
)
from distillguard.scaling_laws._envelope import _unidentified as envelope_unidentified
from distillguard.scaling_laws._fitting import (
    FAR,
    Form,
    Problem,
    _distinct,
    _resampled,
    _unidentified,
    accuracy_line,
)
from distillguard.scaling_laws._lower_envelope import lower_envelope
from distillguard.scaling_laws._parametric import _ParametricForm
from distillguard.scaling_laws._quality import _QualityForm
from distillguard.scaling_laws._runs import read_runs
from distillguard.scaling_laws._starts import EXPONENTS, non_negative_coefficients

LN2 = math.log(2)


class Lines(Form):
    """Log-losses that are linear in theta, so that least squares says everything of them."""

    spread: dict = {}  # noqa: RUF012

    def __init__(self, matrix, log_losses, ranges):
        self.matrix, n = np.asarray(matrix, dtype=float), len(matrix)
        self.law = SimpleNamespace(_coefficients={f"c{i}": each for i, each in enumerate(ranges)})
        self.runs = read_runs(
            {"parameters": np.ones(n), "data": np.ones(n), "loss": np.exp(log_losses)}
        )

    def unvaried(self):
        return {}

    def candidates(self):
        return np.zeros((1, self.matrix.shape[1]))

    def log_loss(self, theta):
        return self.matrix @ theta, self.matrix


def lines(matrix, log_losses, *, held=None, delta=1.0, weights=None):
    width = np.shape(matrix)[1]
    held = np.full(width, math.nan) if held is None else np.array(held, dtype=float)
    return Problem(Lines(matrix, log_losses, ["any"] * width), held, delta, weights)


# The objective and its descent.


@pytest.mark.parametrize("weights", [None, np.array([2.0, 0.0, 1.0, 5.0])])
def test_the_objective_is_the_weighted_mean_of_hubers_loss_over_delta_with_its_slope(weights):
    # Errors of 0.3, -0.3, 2 and -2 at a delta of 1/2: two count squared, and two linearly.
    errors, matrix = np.array([0.3, -0.3, 2.0, -2.0]), np.arange(8.0).reshape(4, 2)
    problem = lines(matrix, matrix @ [1, 2] - errors, delta=0.5, weights=weights)
    value, gradient = problem.objective(np.array([1.0, 2.0]))
    assert value == pytest.approx(np.average(huber(0.5, errors) / 0.5, weights=weights))
    slopes = np.array([0.6, -0.6, 1.0, -1.0])
    assert gradient == pytest.approx(np.average(slopes[:, None] * matrix, axis=0, weights=weights))


def test_what_is_held_takes_no_part_in_the_descent():
    problem = lines(np.eye(3), [1.0, 2.0, 3.0], held=[math.nan, 7.0, math.nan])
    assert problem.names.tolist() == ["c0", "c2"]
    assert problem.full(np.array([4.0, 5.0])).tolist() == [4, 7, 5]
    errors, jacobian = problem.errors(np.array([4.0, 5.0]))
    assert errors == pytest.approx([3, 5, 2])
    assert jacobian.tolist() == [[1, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("place", [[FAR, 0.0], [0.0, -FAR]])
def test_the_objective_is_a_wall_beyond_the_bound_and_not_at_it(place):
    problem = lines(np.eye(2), [1.0, 1.0])
    assert problem.objective(np.array(place))[0] < 1e3
    value, gradient = problem.objective(np.array(place) * (1 + 1e-9))
    assert value >= 1e9
    assert gradient.tolist() == [0, 0]


def test_axes_make_the_squared_errors_round_but_for_what_is_all_but_flat():
    matrix = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]])
    weights = np.array([1.0, 2.0, 1.0])
    problem = lines(matrix, np.zeros(3), weights=weights)
    axes = problem._axes(np.zeros(2))
    curved = matrix.T @ np.diag(weights / 4) @ matrix
    assert axes.T @ curved @ axes == pytest.approx(np.eye(2))
    # A direction of no effect is stretched as if it had a millionth of the largest curvature.
    axes = lines([[2.0, 0.0]], [0.0])._axes(np.zeros(2))
    assert sorted(np.abs(axes).max(axis=0)) == pytest.approx([1 / 2, 1 / 2e-3])


def test_a_descent_within_delta_ends_at_the_least_squares_of_the_weighted_runs():
    random = np.random.default_rng(0)
    matrix, target = random.normal(size=(9, 3)) * [1, 1e-2, 10], random.normal(size=9)
    weights = random.integers(0, 3, 9).astype(float)
    problem = lines(matrix, target, delta=50.0, weights=weights)
    value, place = problem.descend(np.array([1.0, -1.0, 2.0]))
    root = np.sqrt(weights)[:, None]
    expected = np.linalg.lstsq(root * matrix, root[:, 0] * target, rcond=None)[0]
    assert np.abs(expected).max() > 1  # far enough from the start that the scales matter
    assert place == pytest.approx(expected, rel=1e-4)
    squares = (matrix @ expected - target) ** 2
    assert value == pytest.approx(np.average(squares, weights=weights) / (2 * 50))


# What the data tell.


@pytest.mark.parametrize("scales", [[1, 1], [1e5, 1e-5]])
def test_standard_errors_are_those_of_linear_regression(scales):
    random = np.random.default_rng(1)
    matrix, target = random.normal(size=(12, 2)) * scales, random.normal(size=12)
    found, squares, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    covariance = squares.item() / (12 - 2) * np.linalg.inv(matrix.T @ matrix)
    errors = lines(matrix, target).standard_errors(found)
    assert errors == pytest.approx(np.sqrt(np.diag(covariance)))


def test_without_noise_a_hundredth_of_delta_stands_for_it():
    errors = lines([[2.0, 0], [0, 1], [0, 0]], [2.0, 1, 0], delta=0.3).standard_errors(np.ones(2))
    assert errors == pytest.approx([0.003 / 2, 0.003])


def test_as_many_runs_as_coefficients_count_as_one_more():
    problem = lines(np.eye(2), [0.0, 0.0])
    assert problem.standard_errors(np.array([3.0, 4.0])) == pytest.approx([5, 5])


def test_what_the_runs_do_not_touch_is_flat_and_nothing_else_is():
    # Of the four the first is not in any run, and the second and the third come together only.
    matrix = [[0, 1, 1, 0], [0, 2, 2, 1], [0, 3, 3, -1], [0, 1, 1, 2]]
    errors = lines(matrix, np.zeros(4), delta=1.0).standard_errors(np.zeros(4))
    assert np.isinf(errors).tolist() == [True, True, True, False]
    # Least squares in the two directions that there are.
    together = np.array([[1, 0], [2, 1], [3, -1], [1, 2.0]])
    assert errors[3] == pytest.approx(0.01 * np.sqrt(np.linalg.inv(together.T @ together)[1, 1]))


def told(*, error=0.0, ends=((1.0, 0.0),), drawn=(), spread=1.0, confidence=0.95):
    """What is said of the only coefficient of a fit."""
    problem = SimpleNamespace(
        form=SimpleNamespace(spread={"alpha": spread}),
        names=np.array(["alpha"]),
        standard_errors=lambda place: np.array([error]),
    )
    ends = [(value, np.array([end])) for value, end in ends]
    drawn = [np.array([each]) for each in drawn]
    return _unidentified(problem, ends, drawn, confidence).get("alpha")


Z = norm.ppf(0.975)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"error": math.inf, "drawn": [0.0]},
            "the objective is flat in it: the runs lack the variety",
        ),
        ({"error": 1.01 * LN2 / Z}, "the curvature leaves it open by a factor of 2 either way"),
        ({"error": 0.99 * LN2 / Z}, None),
        ({"error": 0.99 * LN2 / Z, "confidence": 0.99}, "the curvature leaves it open by a factor"),
        ({"error": 0.51 * LN2 / Z, "spread": 2.0}, "the curvature leaves it open by a factor of 2"),
        ({"error": 0.49 * LN2 / Z, "spread": 2.0}, None),
        # Starts that end as low, to a hundredth, elsewhere.
        ({"ends": [(1.0, 0.0), (1.009, 2.01 * LN2)]}, "starts end as low at values a factor of 4"),
        ({"ends": [(1.0, 0.0), (1.011, 2.01 * LN2)]}, None),
        ({"ends": [(1.0, 0.0), (1.009, 1.99 * LN2)]}, None),
        ({"ends": [(0.0, 0.0), (9e-10, 2.01 * LN2)]}, "starts end as low"),
        ({"ends": [(0.0, 0.0), (2e-9, 2.01 * LN2)]}, None),
        ({"ends": [(1.0, 0.0), (1.0, 1.01 * LN2)], "spread": 2.0}, "starts end as low"),
        ({"ends": [(1.0, 0.0), (1.0, 0.99 * LN2)], "spread": 2.0}, None),
        # Resamples all of which count, for 95 % of two values reach from end to end but a bit.
        ({"drawn": [0.0, 2.2 * LN2]}, "the bootstrap interval spans a factor of 4.3"),
        ({"drawn": [0.0, 2.0 * LN2]}, None),
        ({"drawn": [0.0, 1.1 * LN2], "spread": 2.0}, "the bootstrap interval spans"),
        ({"drawn": [0.0, 1.0 * LN2], "spread": 2.0}, None),
        ({"error": 150.0}, f"the curvature leaves it open by a factor of {math.exp(99):.2g}"),
    ],
)
def test_a_coefficient_is_identified_within_a_factor_of_two_either_way(settings, reason):
    found = told(**settings)
    assert found is None if reason is None else found.startswith(reason)


def test_starts_of_resamples_are_as_good_ends_that_lie_a_factor_of_two_apart_three_at_most():
    ends = np.array([0.0, 0.6, 0.7, 1.3, -0.7, 3.0])[:, None]
    assert [end.item() for end in _distinct(list(ends))] == [0, 0.7, -0.7]
    # In any one coefficient, of all that were taken.
    ends = [np.array(each) for each in ([0.0, 0.0], [0.1, 0.7], [0.6, -0.6])]
    assert [end.tolist() for end in _distinct(ends)] == [[0, 0], [0.1, 0.7]]


def test_a_resample_takes_the_best_of_descents_from_all_ends_as_good(monkeypatch):
    started = []

    class Seen(Problem):
        def descend(self, start, rounds=5, steps=300):
            started.append(start.item())
            return abs(start.item() - 5), start

    monkeypatch.setattr(_fitting, "Problem", Seen)
    problem = lines(np.ones((4, 1)), np.zeros(4))
    ends = [(2.0, np.array([1.0])), (2.019, np.array([4.0])), (2.021, np.array([5.0]))]
    options = SimpleNamespace(n_bootstrap=3, random_state=0)
    found = _resampled(problem, ends, options)
    assert started == [1, 4] * 3
    assert [place.item() for place, _ in found] == [4] * 3
    assert all(weights.sum() == 4 for _, weights in found)
    # Rows of one run are drawn together.
    runs = dataclasses.replace(problem.form.runs, run=np.array([0, 0, 1, 1]))
    problem.form.runs = runs
    for _, weights in _resampled(problem, ends, options):
        assert weights[0] == weights[1] == 2 - weights[2] == 2 - weights[3]


def test_an_accuracy_line_of_weighted_runs_is_that_of_the_runs_repeated():
    loss, accuracy = np.array([1.0, 2.0, 4.0, 5.0]), np.array([0.8, 0.7, 0.2, 0.3])
    runs = read_runs({"parameters": loss, "data": loss, "loss": loss, "accuracy": accuracy})
    weights = np.array([3.0, 1.0, 0.0, 2.0])
    repeated = [np.repeat(each, weights.astype(int)) for each in (loss, accuracy)]
    slope, intercept = np.polyfit(*repeated, 1)
    line = accuracy_line(runs, weights)
    assert (line.intercept, line.slope) == pytest.approx((intercept, slope))
    # One loss alone has no line, though others were not drawn.
    assert accuracy_line(runs, np.array([0.0, 4.0, 0.0, 0.0])) is None
    assert accuracy_line(dataclasses.replace(runs, accuracy=None)) is None
    assert accuracy_line(dataclasses.replace(runs, loss=np.ones(4))) is None


# The forms and their starts.


def test_coefficients_of_starts_are_least_squares_of_the_relative_errors():
    x = np.array([1.0, 10.0, 100.0])
    log_terms = [-0.5 * np.log(x), np.zeros(3)]
    found = non_negative_coefficients(log_terms, 3 * x**-0.5 + 2)
    assert np.exp(found) == pytest.approx([3, 2])
    # The least of (c - 1)^2 + (c / 3 - 1)^2.
    found = non_negative_coefficients([np.zeros(2)], np.array([1.0, 3.0]))
    assert np.exp(found) == pytest.approx([1.2], rel=1e-15)


def test_a_term_without_use_gets_a_thousandth_of_the_largest_at_the_geometric_mean():
    x = np.array([1.0, 10.0, 100.0])
    found = non_negative_coefficients([-np.log(x), np.zeros(3)], np.full(3, 5.0))
    assert np.exp(found) == pytest.approx([5e-3 * 10, 5])


@pytest.mark.parametrize("form", [_ParametricForm, _QualityForm])
@pytest.mark.parametrize(("alpha", "beta"), [(0, 8), (4, 2)])
def test_among_the_starts_are_the_coefficients_of_exponents_on_the_grid(form, alpha, beta):
    alpha, beta = EXPONENTS[alpha], EXPONENTS[beta]
    size, data = (each.ravel() for each in np.meshgrid([1e5, 1e6, 1e7, 1e8], [1e6, 1e7, 1e9]))
    loss = 0.5 + 3e6**alpha / size**alpha + (2e6 / data) ** beta
    runs = read_runs({"parameters": size, "data": data, "loss": loss, "fid": np.zeros(12)})
    made = form(runs, 0.0)
    errors = [np.abs(made.log_loss(each)[0] - np.log(loss)).max() for each in made.candidates()]
    # With data of perfect quality, a start of any Q and any kappa has them; of epsilon too.
    assert np.isclose(errors, 0, atol=1e-9).sum() == (1 if form is _ParametricForm else 18)
    assert np.log(EXPONENTS[[0, -1]]) == pytest.approx(np.log([0.04, 1.5]))


@pytest.mark.parametrize(("fids", "number"), [([1.0], 100), ([1.0, 3.0], 400)])
def test_every_pair_of_exponents_is_a_start_and_of_several_qualities_with_either_sign(fids, number):
    loss = np.linspace(1, 2, 6)
    table = {"parameters": loss, "data": loss[::-1], "loss": loss, "fid": np.resize(fids, 6)}
    starts = _ParametricForm(read_runs(table), 1.0).candidates()
    assert len(np.unique(starts, axis=0)) == len(starts) == number


def test_exponents_of_the_quality_are_weighed_by_what_the_runs_vary():
    fid, loss = np.array([0.0, 1.0, 3.0]), np.array([4.0, 2.0, 5.0])
    table = read_runs({"parameters": loss, "data": loss, "loss": loss, "fid": fid})
    # (1 + 3) / (1 + 0) is the largest ratio of qualities, of which the exponents are.
    assert _ParametricForm(table, 1.0).spread == pytest.approx(
        {"zeta": math.log(4), "epsilon": math.log(4)}
    )
    # epsilon ln(1 + FID) as a share of the lowest loss.
    assert _QualityForm(table, 1.0).spread == pytest.approx({"epsilon": math.log(4) / 2})


@pytest.mark.parametrize("law", [BARTOLDSON2024_PARAMETRIC, BARTOLDSON2024_QUALITY])
def test_a_form_is_the_logarithm_of_its_law_at_every_quality(law):
    random = np.random.default_rng(2)
    table = {"parameters": 10 ** random.uniform(5, 9, 20), "data": 10 ** random.uniform(5, 10, 20)}
    table |= {"loss": np.ones(20), "fid": random.choice([0, 1.0, 7.0], 20)}
    form = {ParametricLaw: _ParametricForm, QualityLaw: _QualityForm}[type(law)]
    made = form(read_runs(table), law.reference_fid)
    found, _ = made.log_loss(made.transformed(law.coefficients))
    expected = law.loss(table["parameters"], table["data"], table["fid"])
    assert found == pytest.approx(np.log(expected), rel=1e-12)
    # Without a column all are of the reference's quality.
    made = form(read_runs({name: table[name] for name in ("parameters", "data", "loss")}), 3.0)
    found, _ = made.log_loss(made.transformed(law.coefficients))
    law = dataclasses.replace(law, reference_fid=3.0)
    assert found == pytest.approx(np.log(law.loss(table["parameters"], table["data"])), rel=1e-12)


@pytest.mark.parametrize("law", [BARTOLDSON2024_PARAMETRIC, BARTOLDSON2024_QUALITY])
def test_qualities_broadcast_against_one_size_and_one_compute(law):
    fids = [0.0, 1.65, 6.8]
    best = law.compute_optimal(1e20, fids)
    for place, fid in enumerate(fids):
        assert [each[place] for each in best] == pytest.approx(law.compute_optimal(1e20, fid))
        assert law.loss(1e7, 1e8, fids)[place] == pytest.approx(law.loss(1e7, 1e8, fid))
    assert (np.diff(best.loss) > 0).all()


# The envelope.


def test_residuals_of_an_envelope_are_measured_minus_predicted_along_one_curve():
    runs = {"parameters": [2, 2, 2], "data": [50, 0.5, 5], "loss": [1, 4, 2.5]}
    fit = EnvelopeLaw.fit({**runs, "fid": [3.0] * 3}, flops_factor=1.0, n_bootstrap=0)
    flops = np.geomspace(1, 100, 1000)
    loss = np.interp(flops, [1, 10, 100], [4, 2.5, 1])
    assert fit.residuals == pytest.approx(np.log(loss / fit.law.compute_optimal(flops).loss))
    assert fit.objective == fit.objectives[0] == pytest.approx((fit.residuals**2).mean())
    assert fit.law.reference_fid == 3
    assert fit.law.parameters_coefficient == pytest.approx(2)
    assert fit.law.data_coefficient == pytest.approx(0.5)


@pytest.mark.parametrize("named", [True, False])
def test_rows_of_one_name_are_a_curve_and_those_of_one_size_without_names(named):
    runs = {"parameters": [1] * 4, "data": [1, 100, 3, 50], "loss": [4, 3, 3.5, 1]}
    flops = np.geomspace(1, 100, 1000)
    if named:
        runs["run"] = ["a", "a", "b", "b"]
        curves = [([1, 100], [4, 3]), ([3, 50], [3.5, 1])]
    else:
        curves = [([1, 3, 50, 100], [4, 3.5, 1, 3])]
    lowest = np.min([np.interp(flops, *curve, right=np.inf, left=np.inf) for curve in curves], 0)
    improves = lowest < np.minimum.accumulate(np.append(np.inf, lowest[:-1]))
    slope, at = np.polyfit(np.log(flops[improves]), np.log(lowest[improves]), 1)
    law = EnvelopeLaw.fit(runs, flops_factor=1.0, n_bootstrap=0).law
    assert (law.loss_exponent, law.loss_coefficient) == pytest.approx((-slope, math.exp(at)))


def test_a_loss_that_stands_still_adds_no_points_to_an_envelope():
    curve = {
        "parameters": [1.0] * 4,
        "data": [1.0, 10.0, 100.0, 1000.0],
        "loss": [3.0, 2.0, 2.0, 2.0],
    }
    envelope = lower_envelope(read_runs(curve), np.zeros(4), 1.0)
    # A grid of 1,000 over three decades: 333 of its steps lie in the first, where the loss falls.
    assert len(envelope.log_flops) == 334
    assert envelope.log_flops.max() == pytest.approx(math.log(10), abs=math.log(1000) / 999)
    assert np.exp(envelope.values[0]).min() == 2


@pytest.mark.parametrize("last", [9.0, 4.0, 3.99])
def test_an_envelope_has_two_points_that_improve_or_is_refused(last):
    runs = {"parameters": [1, 1], "data": [1, 100], "loss": [4, last]}
    if last < 4:
        assert EnvelopeLaw.fit(runs, n_bootstrap=0).law.loss_exponent > 0
    else:
        with pytest.raises(ValueError, match="curves of at least two points each"):
            EnvelopeLaw.fit(runs, n_bootstrap=0)


@pytest.mark.parametrize("name", ["parameters", "data", "loss"])
@pytest.mark.parametrize(("factor", "open_by"), [(3.9, None), (4.1, "4.1")])
@pytest.mark.parametrize("end", [0, 1])
def test_a_line_of_an_envelope_is_identified_within_a_factor_of_two_either_way_at_both_ends(
    name, factor, open_by, end
):
    law, ends = BARTOLDSON2024_ENVELOPE, [1e18, 1e24]
    # Another line through the same point at one end, and so many times as high at the other.
    turn = math.log(factor) / math.log(1e6) * (1 if end else -1) * (-1 if name == "loss" else 1)
    exponent = getattr(law, f"{name}_exponent") + turn
    pivot = ends[1 - end] ** (turn if name == "loss" else -turn)
    other = dataclasses.replace(
        law,
        **{
            f"{name}_exponent": exponent,
            f"{name}_coefficient": getattr(law, f"{name}_coefficient") * pivot,
        },
    )
    whole = SimpleNamespace(log_flops=np.log([ends[0], 1e20, ends[1]]), n_sizes=3)
    fit = SimpleNamespace(interval=lambda ask: (ask(law), ask(other)))
    found = envelope_unidentified(fit, whole)
    reason = f"the line's interval spans a factor of {open_by} at an end"
    names = (f"{name}_coefficient", f"{name}_exponent")
    assert found == ({} if open_by is None else dict.fromkeys(names, reason))
    whole.n_sizes = 2
    assert set(envelope_unidentified(fit, whole)) == set(law.coefficients)


# What a fit says, and what is drawn of it.


def fit_of(law=None, **more) -> Fit:
    law = ParametricLaw(A=2, B=3, E=1, alpha=0.5, beta=0.25) if law is None else law
    size = np.array([1e4, 1e5, 1e6])
    runs = read_runs({"parameters": size, "data": 10 * size, "loss": law.loss(size, 10 * size)})
    laws = tuple(dataclasses.replace(law, alpha=0.5 + 0.01 * i) for i in range(5))
    settings = {
        "law": law, "laws": laws, "confidence": 0.5, "unidentified": {}, "fixed": {},
        "undetermined": frozenset(), "objective": 0.0, "objectives": (0.0,),
        "residuals": np.array([-0.05, 0.02, 0.01]), "runs": runs,
    }  # fmt: skip
    return Fit(**settings | more)


def test_a_fit_is_printed_with_its_typical_error_intervals_and_reasons():
    fit = fit_of(fixed={"E": 1}, unidentified={"zeta": "so"}, undetermined=frozenset({"zeta"}))
    first, second, *rows = str(fit).splitlines()
    assert first == "ParametricLaw fitted to 3 runs, typical error 0.02 of the loss"
    assert second.split() == ["value", "50", "%", "interval"]
    rows = {row.split()[0]: " ".join(row.split()[1:]) for row in rows}
    assert list(rows) == ["A", "B", "E", "alpha", "beta", "zeta", "epsilon"]
    assert rows["alpha"] == "0.5 0.51 to 0.53"
    assert rows["E"] == "1 held"
    assert rows["zeta"] == "0 -inf to inf NOT IDENTIFIED: so"


def test_intervals_of_what_the_runs_do_not_tell_have_no_ends():
    intervals = fit_of(undetermined=frozenset({"alpha", "epsilon"})).intervals
    assert intervals["alpha"] == (0, math.inf)
    assert intervals["epsilon"] == (-math.inf, math.inf)
    assert intervals["A"] == (2, 2)


def test_without_resamples_intervals_are_nan_of_the_shape_that_was_asked_for():
    fit = fit_of(laws=())
    low, high = fit.interval(lambda law: law.loss([1e4, 1e5], 1e6))
    assert np.isnan([low, high]).all()
    assert np.shape(low) == np.shape(high) == (2,)
    assert all(map(math.isnan, fit.intervals["alpha"]))


@pytest.mark.parametrize("fid", [None, 6.8])
@pytest.mark.parametrize("column", [True, False])
def test_points_of_a_display_are_the_runs_of_its_quality_and_all_where_none_is_told(fid, column):
    import matplotlib as mpl

    mpl.use("Agg")
    fit = fit_of(ParametricLaw(A=2, B=3, E=1, alpha=0.5, beta=0.25, zeta=0.3, reference_fid=1.65))
    if column:
        runs = dataclasses.replace(fit.runs, fid=np.array([1.65, 6.8, 6.8]))
        fit = dataclasses.replace(fit, runs=runs)
    drawn = LossDisplay.from_fit(fit, fid=fid)
    band, points = drawn.ax_.collections
    shown = slice(None) if not column else fit.runs.fid == (1.65 if fid is None else fid)
    spent = 7822 * 10 * np.array([1e4, 1e5, 1e6]) ** 2
    expected = np.stack([spent[shown], fit.runs.loss[shown]], axis=1)
    assert np.asarray(points.get_offsets()) == pytest.approx(expected)
    # From the smallest run to ten times the largest, with the interval of the fit around.
    flops = drawn.line_.get_xdata()
    assert flops == pytest.approx(np.geomspace(spent[0], 10 * spent[2], len(flops)))
    low, high = fit.interval(lambda law: law.compute_optimal(flops, fid).loss)
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((low.min(), high.max()))
    assert drawn.ax_.get_legend() is None
    mpl.pyplot.close("all")


def test_sizes_are_drawn_on_logarithmic_axes_with_their_own_bands():
    import matplotlib as mpl

    mpl.use("Agg")
    fit, flops = fit_of(), np.array([1e18, 1e20])
    drawn = SizeDisplay.from_fit(fit, flops, name="ours")
    assert (drawn.ax_.get_xscale(), drawn.ax_.get_yscale()) == ("log", "log")
    for name, band in zip(("parameters", "data"), drawn.ax_.collections, strict=True):
        low, high = fit.interval(lambda law: getattr(law.compute_optimal(flops), name))  # noqa: B023
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((low.min(), high.max()))
    assert drawn.parameters_line_.get_linestyle() != drawn.data_line_.get_linestyle()
    named = LossDisplay.from_law(fit.law, flops, name="ours")
    assert [text.get_text() for text in named.ax_.get_legend().get_texts()] == ["ours"]
    mpl.pyplot.close("all")


# What may come in.


def test_accuracies_of_nothing_and_of_all_are_accuracies():
    runs = read_runs(
        {"parameters": [1, 1], "data": [1, 2], "loss": [1, 2], "accuracy": [0, 1], "fid": [0, 0]}
    )
    assert runs.accuracy.tolist() == [0, 1]
    assert (len(runs), runs.n_qualities) == (2, 1)


@pytest.mark.parametrize("name", ["parameters", "data", "loss"])
@pytest.mark.parametrize("value", [0.0, math.inf, math.nan, -1.0])
def test_a_size_an_amount_and_a_loss_are_finite_and_above_0(name, value):
    runs = {"parameters": [1.0, 2], "data": [1.0, 2], "loss": [1.0, 2]}
    runs[name] = [1.0, value]
    with pytest.raises(ValueError, match=rf"runs\['{name}'\] must be finite and above 0"):
        read_runs(runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Q": -1.0}, "Q must be a finite number of at least 0"),
        ({"epsilon": math.inf}, "epsilon must be a finite number"),
        ({"B": 0.0}, "B must be a finite number above 0"),
        ({"flops_factor": 0.0}, "flops_factor must be a finite number above 0"),
        ({"reference_fid": -1.0}, "reference_fid must be a finite number of at least 0"),
    ],
)
def test_a_law_has_no_impossible_coefficients(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BARTOLDSON2024_QUALITY, **change)


def test_one_run_more_than_coefficients_is_enough():
    law = ParametricLaw(A=2e3, B=3e3, E=1, alpha=0.5, beta=0.5)
    size = np.array([1e5, 1e6, 1e7, 1e8, 1e5, 1e8])
    data = np.array([1e7, 1e6, 1e8, 1e5, 1e5, 1e8])
    runs = {"parameters": size, "data": data, "loss": law.loss(size, data)}
    settings = {"n_bootstrap": 1, "n_starts": 1, "random_state": 0}
    fit = ParametricLaw.fit(runs, **settings)
    assert fit.law.reference_fid == 0
    assert np.abs(fit.residuals).max() < 1e-3
    held = QualityLaw.fit(runs, **settings, fixed={"alpha": 0.5, "beta": 0.5})
    assert held.undetermined >= {"Q", "kappa", "epsilon"}
    assert held.law.alpha == held.law.beta == 0.5


def test_where_one_size_leaves_a_coefficient_flat_a_fit_without_resamples_says_only_that():
    size, data = np.full(8, 1e6), np.logspace(4, 7, 8)
    runs = {"parameters": size, "data": data, "loss": 1 + 2e3 * size**-0.5 + 3e3 * data**-0.5}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit = ParametricLaw.fit(runs, n_bootstrap=0, random_state=0)
    assert any("flat" in reason for reason in fit.unidentified.values())
