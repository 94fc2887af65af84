"""Traces, loss surfaces, bins and tables of layers, where every figure is known by hand."""

import numpy as np
import pytest
import torch

from distillguard.evaluation import AttackTrace, Histogram
from distillguard.evaluation._histograms import GRADIENT_EDGES
from distillguard.evaluation._layer_report import BARE, JOINT, WHOLE, LayerReport
from distillguard.evaluation._loss_surface import LossSurface, measured
from test_curves_by_hand import INF, NAN, Line, X, Y


@pytest.mark.parametrize(
    ("epsilon", "targeted", "first"),
    [
        (None, False, [2, INF, 1]), (0.25, False, [3, INF, INF]), (None, True, [1, 1, 2]),
    ],
)  # fmt: skip
def test_a_trace_counts_the_questions_until_the_first_success(epsilon, targeted, first):
    trace = AttackTrace(X[:3], Y[:3], epsilon=epsilon, targeted=targeted)
    for places, values in (
        ([0, 1, 2], [0.375, 0.25, 0.75]),
        ([0, 2], [0.625, 0.375]),
        ([0], [0.375]),
    ):
        points = torch.tensor(values)[:, None]
        logits = torch.stack([0.5 - points[:, 0], points[:, 0] - 0.5], dim=1)
        trace(torch.tensor(places), points, logits if len(places) > 1 else -logits)
    assert trace.questions.tolist() == [3, 1, 2]
    np.testing.assert_array_equal(
        trace.margin, [[-0.25, 0.25, 0.25], [-0.5, NAN, NAN], [0.5, -0.25, NAN]]
    )
    np.testing.assert_array_equal(
        trace.distance, [[0.25, 0.5, 0.25], [0, NAN, NAN], [0.375, 0, NAN]]
    )
    assert trace.cross_entropy[1, 0] == pytest.approx(np.log1p(np.exp(-0.5)))
    assert trace.first_success.tolist() == first
    standing = [np.mean(np.array(first) > passes) for passes in range(4)]
    assert trace.standing.tolist() == standing
    assert trace._rows[0][1] == "100.0 %"
    within = "at any distance" if epsilon is None else "within 0.25"
    assert str(trace).startswith(f"What a pass buys: 3 examples, 6 questions, linf {within}")


def test_a_trace_of_nothing_stands():
    trace = AttackTrace(X, Y, norm="l2")
    assert (trace.questions.tolist(), trace.standing.tolist()) == ([0] * 4, [1.0])
    assert trace.first_success.tolist() == [INF] * 4
    assert repr(trace) == "AttackTrace(norm='l2', epsilon=None: 0 questions about 4 examples)"
    trace(torch.tensor([1]), X[1:2].bfloat16(), torch.tensor([[1.0, 0.0]]).bfloat16())
    assert trace.cross_entropy[1, 0] == pytest.approx(np.log1p(np.exp(-1.0)))
    assert trace.distance[1, 0] == 0


@pytest.mark.parametrize(("beyond", "first"), [(9e-6, 1), (1.1e-5, INF)])
def test_a_distance_is_within_the_budget_up_to_rounding(beyond, first):
    inputs = torch.full((1, 1), 0.25, dtype=torch.float64)
    trace = AttackTrace(inputs, Y[:1], epsilon=0.5)
    points = inputs + 0.5 * (1 + beyond)
    trace(torch.arange(1), points, torch.cat([-points, points], dim=1))
    assert trace.first_success.tolist() == [first]


def test_a_trace_keeps_no_graph():
    inputs = X.clone().requires_grad_()
    trace = AttackTrace(inputs, Y)
    points = 0.5 + inputs
    trace(torch.arange(4), points, torch.cat([points, -points], dim=1))
    assert trace.distance[:, 0].tolist() == [0.5] * 4
    assert trace.margin[:, 0] == pytest.approx((-2 * points[:, 0]).tolist())


@pytest.mark.parametrize("at", [0.5, 0.25])
def test_a_surface_is_that_of_a_line_along_its_gradient(at):
    model = Line(at).train()
    surface = measured(model, X[2:3], Y[2:3], 0.25, 3, (0.25, 1.0), 7)
    assert surface.steps.tolist() == [-0.25, 0, 0.25]
    # Random signs of seed 7 for one value; what leaves the bounds is put on them.
    sign = (
        2 * torch.randint(0, 2, (2, 1, 1), generator=torch.Generator().manual_seed(7))[1].item() - 1
    )
    along, across = np.meshgrid(surface.steps, sign * surface.steps)
    points = np.clip(0.375 + along + across, 0.25, 1)
    np.testing.assert_allclose(surface.margin, 2 * (points - at), atol=1e-6)
    np.testing.assert_allclose(
        surface.cross_entropy, np.log1p(np.exp(2 * (points - at))), rtol=1e-6
    )
    assert max(model.sizes) == 3
    assert model.training
    assert not any(training for _, training in model.modes)
    text = str(LossSurface(surface.steps, surface.cross_entropy, surface.margin))
    assert text.startswith("Around one example: 3 by 3 points, steps of up to 0.25 in input")
    assert f"{100 * (surface.margin > 0).mean():.1f} % answered otherwise" in text


def test_where_the_margin_has_no_slope_both_directions_are_random():
    asked = []

    def flat(inputs):
        asked.append(inputs.detach().clone())
        return inputs * 0 + torch.tensor([2.0, 0.0])

    surface = measured(flat, torch.full((1, 2), 0.5), Y[:1], 0.25, 2, (0.0, 1.0), 3)
    assert surface.margin.tolist() == [[-2.0] * 2] * 2
    draws = torch.randint(0, 2, (2, 1, 2), generator=torch.Generator().manual_seed(3))
    along, across = 0.25 * (2.0 * draws - 1)
    rows = [torch.cat([sign * across - along, sign * across + along]) for sign in (-1, 1)]
    torch.testing.assert_close(torch.cat(asked[1:]), 0.5 + torch.cat(rows))


def test_bins_of_gradients_are_those_of_the_paper():
    # A factor of 10^5 apart from 10^-40 on, then 10^-3 and 1.
    expected = [0, *(float(f"1e-{n}") for n in range(40, 4, -5)), 1e-3, 1]
    assert list(GRADIENT_EDGES) == expected


def test_the_tallest_bar_stands_first_and_what_passes_all_in_another_colour():
    from matplotlib import colors, pyplot

    report = LayerReport(
        parts=("A", "B"), n_examples=9, clean_accuracy=1.0, clean_rejected=0.0,
        fooled={BARE: np.ones(9, bool)}, stopped={("A",): 3, (): 5, ("A", "B"): 1}, clean={},
        passes={}, norm="l2", epsilon=0.5, seed=0,
    )  # fmt: skip
    ax = report.plot(pyplot.figure().subplots())
    bars = ax.patches[:3]
    assert [bar.get_height() for bar in bars] == [5, 3, 1]
    shown = [colors.to_hex(bar.get_facecolor()) for bar in bars]
    assert shown == [colors.to_hex(each) for each in ("C3", "C0", "C0")]
    # Below the line a row for each part, an eighth of the tallest bar apart.
    assert ax.get_yticks().tolist() == [-5 / 8, -10 / 8]
    dots = [line.get_ydata() for line in ax.lines[:3]]
    assert [list(each) for each in dots] == [[], [-5 / 8], [-5 / 8, -10 / 8]]
    pyplot.close("all")


def test_bins_print_with_their_ends_and_shares():
    bars = Histogram(np.array([1, 3]), np.array([0.0, 0.25, 1.0]), "a share")
    assert (bars.n_examples, bars.shares.tolist()) == (4, [0.25, 0.75])
    assert bars._rows == [
        ("0 to 0.25", "1", "25.0 %", "[4.6, 69.9]"),
        ("0.25 to 1", "3", "75.0 %", "[30.1, 95.4]"),
    ]
    assert repr(bars) == "Histogram(a share, 2 bins from 0 to 1, 4 examples)"


def test_a_report_prints_a_row_for_each_attack():
    fooled = {BARE: [1, 1, 1, 0], "A": [1, 0, 0, 0], JOINT: [1, 1, 0, 0], WHOLE: [1, 1, 0, 0]}
    report = LayerReport(
        parts=("A",), n_examples=8, clean_accuracy=0.5, clean_rejected=0.25, stopped={},
        fooled={name: np.array(each, bool) for name, each in fooled.items()}, clean={},
        passes={BARE: 12.4, "A": 3.0, JOINT: 7.6}, norm="l2", epsilon=0.5, seed=0,
    )  # fmt: skip
    rows = report._rows
    assert [(name, share, passes) for name, share, _, passes in rows] == [
        (BARE, "75.0 %", "12"),
        ("A", "25.0 %", "3"),
        ("joint, on the rest", "50.0 %", "8"),
        (WHOLE, "50.0 %", ""),
    ]
    # Wilson's interval of 3 of 4, worked out by hand.
    assert rows[0][2] == "[30.1, 95.4]"
    assert "25.0 % robust accuracy within l2 0.5, clean accuracy 50.0 %" in str(report)
    assert "with 25.0 % rejected" in str(report)
    assert "66.7 % passes all layers" in str(report)
    assert "would let 33.3 % pass (ratio 2, 95 % interval" in str(report)
