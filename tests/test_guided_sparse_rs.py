"""Sparse-RS whose exchanges are drawn by slope: the search in plain loops, and its draws."""

import math

import pytest
import torch
from torch import nn

from distillguard._random import example_keys, uniform
from distillguard.attacks import guided_sparse_rs, sparse_rs
from distillguard.attacks._guided_sparse_rs import _race
from distillguard.attacks._sparse_rs import share_exchanged
from distillguard.functional import margin_loss

SIX = {"epsilon": 6, "steps": 60, "random_state": 3}


class Ridge(nn.Module):
    """Two classes, a smooth bent function of 3 x 5 x 5 values."""

    def __init__(self, lead: float):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(75, 8, generator=generator, dtype=torch.float64)
        self.lead = lead
        self.asked: list[tuple[torch.Tensor, bool]] = []

    def forward(self, inputs):
        self.asked.append((inputs.detach().clone(), inputs.requires_grad))
        hidden = (inputs.flatten(1).to(self.weight) @ self.weight).tanh().sum(dim=1)
        value = hidden + 0.1 * inputs.flatten(1).to(self.weight).sum(dim=1) - self.lead
        return torch.stack([-value, value], dim=1)


def images(n=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 5, 5, generator=generator, dtype=torch.float64)


def in_plain_loops(model, image, *, epsilon, steps, random_state, alpha_init=0.3, by=1):
    """The search for one image, place by place: ``by`` channels are one place."""
    flat = image.flatten()
    n_places, channels = 75 // by, range(by)
    key = example_keys(image[None], random_state)

    def index(channel, place):
        return channel * n_places + place

    def lost(place, best, slope):
        ours = [index(channel, place) for channel in channels]
        return sum(slope[i] * (best[c, place] - flat[i].item()) for c, i in enumerate(ours))

    def gained(place, slope):
        ours = [index(channel, place) for channel in channels]
        return sum(max(slope[i] * (1 - flat[i].item()), -slope[i] * flat[i].item()) for i in ours)

    def drawn_first(worth, able, numbers, count):
        ranked = sorted(able, key=lambda p: (-worth[p], numbers[p] * 2**20 % 1))
        keys = {p: math.log(numbers[p]) * (r + 1) ** 0.75 for r, p in enumerate(ranked)}
        return set(sorted(able, key=lambda p: -keys[p])[:count])

    def at(change):
        point = flat.clone()
        for (channel, place), value in change.items():
            point[index(channel, place)] = value
        point = point.view(1, 3, 5, 5).requires_grad_()
        margin = margin_loss(model(point), torch.tensor([0]))
        (slope,) = torch.autograd.grad(margin.sum(), point)
        return margin.item(), slope.flatten().tolist()

    best: dict[tuple[int, int], float] = {}
    margin, slope = at(best)
    for step in range(steps):
        if margin > 0:
            break
        drawn = uniform(key, step + 1, 2 * n_places + 75, torch.float64)[0].tolist()
        leaving, entering = drawn[:n_places], drawn[n_places : 2 * n_places]
        against = drawn[2 * n_places :]
        places = {place for _, place in best}
        share = share_exchanged(torch.tensor([step]), steps, alpha_init).item()
        number = max(1, int(share * epsilon))

        stays = {place: -lost(place, best, slope) for place in places}
        left = drawn_first(stays, places, leaving, number)
        kept = places - left
        gains = {place: gained(place, slope) for place in set(range(n_places)) - kept}
        entered = drawn_first(gains, set(gains), entering, epsilon - len(kept))
        change = {(c, p): value for (c, p), value in best.items() if p in kept}
        for p in entered:
            up = [(slope[index(c, p)] > 0) != (against[index(c, p)] < 0.1) for c in channels]
            change |= {(c, p): float(up[c]) for c in channels}
        margin_there, slope_there = at(change)
        if margin_there > margin:
            best, margin, slope = change, margin_there, slope_there
    result = flat.clone()
    for (channel, place), value in best.items():
        result[index(channel, place)] = value
    return result.view(3, 5, 5)


@pytest.mark.parametrize(("norm", "by"), [("l0", 1), ("l0_pixels", 3)])
@pytest.mark.parametrize(
    ("lead", "more"),
    [(8.0, {}), (99.0, {}), (99.0, {"alpha_init": 1.0, "epsilon": 20})],
    ids=["reached", "out of reach", "many at once"],
)
def test_the_search_is_the_one_in_plain_loops(norm, by, lead, more):
    X, settings = images(4), SIX | more
    found = guided_sparse_rs(Ridge(lead), X, torch.zeros(4).long(), norm=norm, **settings)
    expected = torch.stack([in_plain_loops(Ridge(lead), x, by=by, **settings) for x in X])
    assert torch.equal(found, expected)
    success = margin_loss(Ridge(lead)(found), torch.zeros(4).long()) > 0
    assert success.any() == (lead == 8.0)


@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
@pytest.mark.parametrize("targeted", [False, True])
def test_of_a_linear_model_the_places_that_gain_most_are_found(norm, targeted):
    X, generator = images(3), torch.Generator().manual_seed(2)
    weight = torch.randn(75, generator=generator, dtype=torch.float64)
    sign = -1.0 if targeted else 1.0

    def model(inputs):
        value = sign * (inputs.flatten(1) @ weight) - sign * 999
        return torch.stack([-value, value], dim=1)

    found = guided_sparse_rs(
        model, X, torch.zeros(3).long(), norm=norm, epsilon=5, steps=300, targeted=targeted,
        random_state=0,
    )  # fmt: skip
    values = X.flatten(1)
    gain = torch.maximum(weight * (1 - values), -weight * values)
    gain = gain if norm == "l0" else gain.view(3, 3, 25).sum(dim=1)
    most = gain.sort(dim=1).values[:, -5:].sum(dim=1)
    torch.testing.assert_close((found - X).flatten(1) @ weight, most)


def test_every_proposal_is_asked_once_and_the_slope_where_one_is_kept():
    X, model, margins = images(), Ridge(99.0), []

    def callback(_, points, logits):
        margins.append(margin_loss(logits, torch.tensor([0])).item())

    guided_sparse_rs(model, X, torch.tensor([0]), callback=callback, **SIX)
    # The engine asks a few examples first what kind of model it is.
    asked = model.asked[len(model.asked) - len(margins) :]
    plain = [point for point, slope in asked if not slope]
    assert len(plain) == 1 + SIX["steps"]
    assert torch.equal(plain[0], X)
    assert all((point != X).sum() == SIX["epsilon"] for point in plain[1:])
    best, improved = -math.inf, []
    for (point, slope), margin in zip(asked, margins, strict=True):
        if not slope and margin > best:
            best = margin
            improved.append(point)
    with_slope = [point for point, slope in asked if slope]
    assert len(with_slope) == len(improved) > 5
    assert all(torch.equal(*pair) for pair in zip(with_slope, improved, strict=True))


def test_no_slope_is_asked_for_where_an_example_is_done():
    X, model, met = images(8), Ridge(8.0), []

    def callback(_, points, logits):
        slope = model.asked[-1][1]
        margins = margin_loss(logits, torch.zeros(len(points)).long())
        met.extend((slope, fooled) for fooled in (margins > 0).tolist())

    guided_sparse_rs(model, X, torch.zeros(8).long(), callback=callback, **SIX)
    assert any(fooled for _, fooled in met)
    assert not any(slope and fooled for slope, fooled in met)


@pytest.mark.parametrize("early_stop", [True, False])
def test_it_stops_where_the_model_is_fooled_unless_the_margin_is_to_be_widened(early_stop):
    X = images(2)
    found = guided_sparse_rs(Ridge(8.0), X, torch.zeros(2).long(), early_stop=early_stop, **SIX)
    model = Ridge(8.0)
    guided_sparse_rs(model, X, torch.zeros(2).long(), early_stop=early_stop, **SIX)
    plain = sum(len(points) for points, slope in model.asked if not slope)
    assert (plain < 60) == early_stop
    stopped = guided_sparse_rs(Ridge(8.0), X, torch.zeros(2).long(), **SIX)
    margins = [margin_loss(Ridge(8.0)(each), torch.zeros(2).long()) for each in (found, stopped)]
    assert (margins[1] > 0).all()
    assert (margins[0] > margins[1]).all() != early_stop


def test_a_place_is_drawn_by_the_rank_of_its_slope():
    worth = torch.tensor([0.3, -1.0, 5.0, 0.1]).expand(20_000, 4)
    able = torch.tensor([True, True, True, False]).expand(20_000, 4)
    drawn = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = _race(worth, able, drawn).argmax(dim=1).bincount(minlength=4) / 20_000
    weights = torch.tensor([2**-0.75, 3**-0.75, 1.0, 0.0])  # ranks 2, 3, 1; not able
    torch.testing.assert_close(first, weights / weights.sum(), atol=0.01, rtol=0)


def test_places_of_equal_slope_are_drawn_alike():
    able = torch.ones(20_000, 5, dtype=torch.bool)
    drawn = torch.rand(20_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = _race(torch.zeros(20_000, 5), able, drawn).argmax(dim=1).bincount() / 20_000
    torch.testing.assert_close(first, torch.full((5,), 0.2), atol=0.01, rtol=0)


def test_without_a_slope_either_corner_is_as_likely_and_with_one_it_is_nine_in_ten():
    share = {}
    for slope in (0.0, 1.0):
        X, asked = torch.full((1, 50), 0.5), []

        def model(inputs, slope=slope):
            # The input is the best of all: every proposal starts from it.
            value = slope * inputs.sum(dim=1) - 999 * (inputs != 0.5).any(dim=1)
            return torch.stack([0 * value, value - 99], dim=1)

        def callback(_, points, __, asked=asked):
            asked.append(points[points != 0.5])

        guided_sparse_rs(
            model, X, torch.tensor([0]), epsilon=10, steps=300, random_state=0, callback=callback
        )
        share[slope] = torch.cat(asked).mean().item()
    assert share == pytest.approx({0.0: 0.5, 1.0: 0.9}, abs=0.03)


def test_it_needs_fewer_passes_than_the_search_without_slopes():
    X, y = images(20), torch.zeros(20).long()

    def reached(attack, **more):
        found = attack(Ridge(10.0), X, y, epsilon=4, random_state=0, **more)
        return int((margin_loss(Ridge(10.0)(found), y) > 0).sum())

    # Sixty steps are at most 180 passes.
    assert reached(guided_sparse_rs, steps=60) > reached(sparse_rs, queries=180)
