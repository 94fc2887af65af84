"""Counts as a threat model: values, or pixels with all their channels."""

import pytest
import torch
from torch import nn

from conftest import Recording
from distillguard import attacks, evaluate
from distillguard._geometry import lp_norm
from distillguard._l0 import project
from distillguard.attacks._sparse_rs import share_exchanged
from distillguard.defenses import Detector, LayeredNetwork
from distillguard.evaluation import evaluate_layers, robustness_curve, transfer_matrix
from distillguard.evaluation._selective import selective_pgd


class Sum(nn.Module):
    """Class 1 once the sum over all values exceeds ``level``."""

    def __init__(self, level: float):
        super().__init__()
        self.level = level

    def forward(self, inputs):
        value = inputs.flatten(1).sum(dim=1) - self.level
        return torch.stack([-value, value], dim=1)


@pytest.mark.parametrize("attacks_", ["quick", "standard"])
@pytest.mark.parametrize(("norm", "least"), [("l0", 4), ("l0_pixels", 2)])
def test_robust_accuracy_falls_exactly_where_the_count_suffices(attacks_, norm, least):
    # From 0, four values at 1 are needed to exceed 3.5; a pixel of three channels brings three.
    X, y = torch.zeros(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64)
    found = [
        evaluate(
            Sum(3.5), X, y, norm=norm, epsilon=k, attacks=attacks_, diagnosis=None, random_state=0
        ).robust_accuracy
        for k in (least - 1, least)
    ]
    assert found == [1.0, 0.0]


def test_a_count_is_a_whole_number_and_at_most_what_can_change():
    X, y = torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^epsilon must be a whole number of values in l0, got "):
        evaluate(Sum(1.0), X, y, norm="l0", epsilon=0.3)
    with pytest.raises(ValueError, match=r"^epsilon must be at most 4, .*counts the pixels"):
        attacks.pgd(Sum(1.0), X, y, norm="l0_pixels", epsilon=5)
    with pytest.raises(ValueError, match=r"^epsilon must be at most 12, "):
        attacks.sparse_rs(Sum(1.0), X, y, epsilon=13)


def test_the_projection_keeps_the_changes_that_the_box_leaves_largest():
    centre, points = torch.tensor([[0.9, 0.2, 0.2]]), torch.tensor([[1.2, 0.9, 0.45]])
    low, high = torch.zeros(1, 3), torch.ones(1, 3)
    # Gains: 0.09 - 0.04 = 0.05, 0.49, 0.0625; without the box the first would be before the third.
    kept = project(points, centre, 2, low, high, "l0")
    torch.testing.assert_close(kept, torch.tensor([[0.9, 0.9, 0.45]]))
    torch.testing.assert_close(
        project(points, centre, 3, low, high, "l0"), torch.tensor([[1.0, 0.9, 0.45]])
    )


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
@pytest.mark.parametrize("attack", [attacks.pgd, attacks.sparse_rs])
def test_no_more_than_the_count_changes_where_more_would_help(attack, norm):
    # The sum never suffices, and grows with every value.
    X, y = torch.rand(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64)
    settings = {"queries": 500} if attack is attacks.sparse_rs else {}
    found = attack(Sum(99.0), X, y, norm=norm, epsilon=4, random_state=0, **settings)
    changed = (found != X).flatten(2)
    number = changed.sum(dim=(1, 2)) if norm == "l0" else changed.any(dim=1).sum(dim=1)
    assert number.tolist() == [4, 4, 4]


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
@pytest.mark.parametrize("n_free", [4, 5])
def test_sparse_rs_changes_as_many_places_as_it_may_in_every_query(norm, n_free):
    # Inside the bounds, so that a place in any of its colours has changed.
    X, y = 0.2 + 0.6 * torch.rand(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64)
    free = torch.zeros(4, 4, dtype=torch.bool)
    free.view(-1)[[1, 5, 6, 11, 14][:n_free]] = True
    mask = free if norm == "l0_pixels" else free & torch.tensor([1, 0, 0])[:, None, None].bool()
    mask = mask.expand(3, 4, 4)
    model = Recording(Sum(99.0))
    attacks.sparse_rs(
        model, X, y, norm=norm, epsilon=4, queries=30, mask=mask, random_state=0, batch_size=3
    )
    queries = [points for points in model.points if (points != X).any()]
    assert len(queries) >= 29
    for points in queries:
        changed = points != X
        assert not (changed & ~mask).any()
        places = changed.flatten(2).any(dim=1) if norm == "l0_pixels" else changed.flatten(1)
        assert places.sum(dim=1).tolist() == [4] * 3


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
def test_sparse_rs_puts_corners_that_differ_where_the_image_is_at_a_corner(norm):
    generator = torch.Generator().manual_seed(0)
    X, y = torch.rand(2, 3, 10, 10, generator=generator).round(), torch.zeros(2, dtype=torch.int64)
    model = Recording(Sum(999.0))
    attacks.sparse_rs(model, X, y, norm=norm, epsilon=30, queries=20, random_state=0, batch_size=2)
    queries = [points for points in model.points if (points != X).any()]
    assert len(queries) >= 19
    for points in queries:
        changed = (points != X).flatten(2)
        places = changed.any(dim=1) if norm == "l0_pixels" else changed.flatten(1)
        assert places.sum(dim=1).tolist() == [30, 30]


def falling(asked):
    """A model, given its recording, that finds each point worse than the one before."""

    def answer(points):
        asked.append(points.detach().clone())
        return torch.tensor([[0.0, -float(len(asked))]]).expand(len(points), 2)

    return Recording(answer)


def test_sparse_rs_exchanges_the_published_numbers_of_places_and_draws_corners_alike():
    # No proposal is kept, so each differs from the first by what is exchanged: all 40 chosen places
    # at first, over the divisors of the schedule, after so many thousandths of the queries.
    X, asked = torch.full((1, 2500), 0.5), []
    attacks.sparse_rs(
        falling(asked), X, torch.tensor([0]), epsilon=40, norm="l0",
        alpha_init=1.0, queries=1000, random_state=0,
    )  # fmt: skip
    first, *proposals = (points for points in asked if (points != X).any())
    assert len(proposals) == 999
    chosen = first != X
    left = [int((chosen & (points != first)).sum()) for points in proposals]
    ends = (5, 20, 50, 100, 200, 400, 600, 800, 999)
    numbers = [max(left[low:high]) for low, high in zip((0, *ends), ends, strict=False)]
    assert numbers == [20, 10, 8, 6, 5, 4, 3, 2, 2]
    high = torch.cat([points[points != X] for points in proposals]).mean()
    assert high.item() == pytest.approx(0.5, abs=0.1)


def test_the_share_that_sparse_rs_exchanges_falls_after_the_published_queries():
    after = {1: 2, 50: 2, 51: 4, 200: 4, 201: 5, 500: 5, 501: 6, 1000: 6, 1001: 8, 2000: 8}
    after |= {2001: 10, 4000: 10, 4001: 12, 6000: 12, 6001: 15, 8000: 15, 8001: 20, 9999: 20}
    shares = share_exchanged(torch.tensor(list(after)), 10_000, 0.3).tolist()
    assert shares == pytest.approx([0.3 / divisor for divisor in after.values()])


@pytest.mark.parametrize("queries", [1, 7])
def test_sparse_rs_asks_as_often_as_it_may_where_nothing_is_reached(queries):
    # A tie that the label wins is nothing: the search goes on.
    for level in (99.0, 0.0):
        asked = []

        def callback(indices, points, logits, asked=asked):
            asked.extend(indices.tolist())

        model = Sum(level) if level else lambda x: 0 * x.flatten(1)[:, :2]
        X, y = torch.rand(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64)
        attacks.sparse_rs(model, X, y, epsilon=2, queries=queries, callback=callback)
        assert sorted(asked) == sorted([0, 1, 2] * queries)


@pytest.mark.parametrize(
    ("search", "more"),
    [
        (attacks.sparse_rs, {"norm": "l0", "epsilon": 3}),
        (attacks.sparse_rs, {"norm": "l0_pixels", "epsilon": 3}),
        (attacks.square, {"norm": "linf", "epsilon": 0.1}),
        (attacks.square, {"norm": "l2", "epsilon": 0.5}),
        (attacks.square, {"norm": "l1", "epsilon": 1.0}),
    ],
)
def test_of_points_that_are_equally_good_a_search_keeps_the_first(search, more):
    asked = []

    def callback(_, points, __):
        asked.append(points.clone())

    generator = torch.Generator().manual_seed(0)
    X, y = 0.3 + 0.4 * torch.rand(1, 3, 6, 6, generator=generator), torch.tensor([0])

    def model(points):
        return torch.tensor([[9.0, 0.0]]).expand(len(points), 2)

    found = search(model, X, y, queries=20, random_state=0, callback=callback, **more)
    assert torch.equal(found, asked[0])
    assert len(torch.cat(asked).flatten(1).unique(dim=0)) > 10


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_square_goes_on_where_a_tie_is_all_that_is_reached(norm):
    asked = []
    settings = {"epsilon": 0.1, "norm": norm, "queries": 7, "random_state": 0}
    attacks.square(
        lambda points: 0 * points.flatten(1)[:, :2], torch.rand(3, 1, 4, 4), torch.zeros(3).long(),
        callback=lambda indices, _, __: asked.extend(indices.tolist()), **settings,
    )  # fmt: skip
    assert sorted(asked) == sorted([0, 1, 2] * 7)


def test_sigma_zero_finds_the_two_values_that_are_needed():
    # From 0.5, each value adds half its weight, 5, 4, 3, ..., 0: 4.2 takes two, 5 and 4.
    model = nn.Linear(6, 2)
    model.weight.data = torch.stack([torch.zeros(6), torch.arange(5.0, -1, -1)])
    model.bias.data = torch.tensor([7.5 + 4.2, 0.0])
    found = attacks.sigma_zero(model, torch.full((1, 6), 0.5), torch.tensor([0]))
    assert (found != 0.5).nonzero()[:, 1].tolist() == [0, 1]


def test_the_diagnosis_leaves_out_what_has_no_l0_form_and_fails_nowhere():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    X = torch.rand(12, 1, 4, 4)
    y = model(X).argmax(dim=1)
    report = evaluate(model, X, y, norm="l0", epsilon=1, diagnosis="full", random_state=0)
    assert report.observations.failed == {}
    assert report.observations.only_one_step is None
    assert report.observations.active_tested is None


def level(total):
    """Three black images of three channels, of which a sum above ``total`` makes class 1."""
    return Sum(total), torch.zeros(3, 3, 4, 4), torch.zeros(3, dtype=torch.int64)


def four_values(model, inputs, labels):
    """White in one pixel and in one channel of another."""
    points = inputs.clone()
    points[:, :, 0, 0] = 1.0
    points[:, 0, 0, 1] = 1.0
    return points


@pytest.mark.parametrize(("norm", "least"), [("l0", 4), ("l0_pixels", 2)])
def test_a_curve_of_counts_falls_where_the_count_suffices(norm, least):
    model, X, y = level(3.5)
    settings = {"norm": norm, "random_state": 0}
    curve = robustness_curve(
        model, X, y, budget=attacks.pgd, epsilons=[0, least - 1, least, least + 2], **settings
    )
    assert curve.robust_accuracy.tolist() == [1.0, 1.0, 0.0, 0.0]
    curve = robustness_curve(model, X, y, minimum_distance=four_values, **settings)
    assert (curve.epsilons.tolist(), curve.robust_accuracy.tolist()) == ([0.0, least], [1.0, 0.0])
    assert f"epsilon in {'values' if norm == 'l0' else 'pixels'}" in str(curve)
    with pytest.raises(ValueError, match=r"^epsilons must be a whole number of .*, got 1.5"):
        robustness_curve(model, X, y, budget=attacks.pgd, epsilons=[1.5], **settings)


@pytest.mark.parametrize(("norm", "least"), [("l0", 4), ("l0_pixels", 2)])
def test_points_that_change_more_than_the_count_do_not_transfer(norm, least):
    model, X, y = level(3.5)
    matrices = [
        transfer_matrix([model], four_values, X, y, norm=norm, epsilon=k)
        for k in (least - 1, least)
    ]
    assert [matrix.matrix.item() for matrix in matrices] == [0.0, 1.0]
    with pytest.raises(ValueError, match=r"^epsilon must be a whole number of "):
        transfer_matrix([model], four_values, X, y, norm=norm, epsilon=1.5)


class Corner(Detector):
    """As suspicious as the first value is large."""

    def score(self, model, inputs):
        return inputs.flatten(1)[:, 0]


@pytest.mark.parametrize(("norm", "least"), [("l0", 4), ("l0_pixels", 2)])
def test_layers_are_attacked_within_the_count(norm, least):
    # 1.9 more than now is needed, and may not come from the first value, which has most room (0.6,
    # the others 0.5 each), but raises the alarm.
    model, X, y = level(23.9 + 1.9)
    X[:] = 0.5
    X[:, 0, 0, 0] = 0.4
    network = LayeredNetwork(model, [], [Corner()])
    network.thresholds = torch.tensor([0.5])
    settings = {"norm": norm, "attacks": "quick", "random_state": 0}
    reports = [
        evaluate_layers(network.eval(), X, y, epsilon=k, **settings) for k in (least - 1, least)
    ]
    assert [report.robust_accuracy for report in reports] == [1.0, 0.0]
    points = selective_pgd(network, X, y, norm=norm, epsilon=least)
    assert (lp_norm(points - X, norm) <= least).all()
    assert reports[1].fooled["staged"].all()
