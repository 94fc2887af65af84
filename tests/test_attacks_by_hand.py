"""Attacks a second time in plain loops, one example at a time, and parts of them by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from conftest import Recording, examples_of, query
from distillguard._random import example_keys, key_of_copy, uniform
from distillguard.attacks import ddn, deepfool, rays, sigma_zero, square
from distillguard.attacks._checks import ModelFacts
from distillguard.attacks._jsma import best_pair
from distillguard.attacks._targets import TargetChoice
from distillguard.attacks._windows import Window, bumps, sides
from distillguard.functional import margin_loss
from test_square import half_bump


def inputs_of(n: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *shape, generator=generator, dtype=torch.float64)


def margin_at(model, point: Tensor, label: int, sign: int) -> float:
    return sign * margin_loss(model(point[None]), torch.tensor([label])).item()


# sigma-zero.


def sigma_zero_in_loops(model, x: Tensor, label: int, norm: str, steps: int, sign: int, **told):
    """All iterates in [0, 1]; ``sign`` is -1 where the label is to be reached."""
    delta, mean, square_ = (torch.zeros_like(x) for _ in range(3))
    threshold, iterates = told["threshold"], []
    channels = x.shape[0] if norm == "l0_pixels" else 1
    for k in range(steps + 1):
        iterates.append(x + delta)
        point = iterates[-1].clone().requires_grad_()
        margin = sign * margin_loss(model(point[None]), torch.tensor([label]))[0]
        (gradient,) = torch.autograd.grad(margin, point)
        moving = delta.clone().requires_grad_()
        squares = (moving.reshape(channels, -1) ** 2).sum(dim=0)
        (slope,) = torch.autograd.grad((squares / (squares + told["sigma"])).mean(), moving)
        fooled = margin.item() > 0
        slope = slope if fooled else slope - gradient
        if slope.abs().max() > 0:
            slope = slope / slope.abs().max()
        mean = 0.7 * mean + 0.3 * slope
        square_ = 0.999 * square_ + 0.001 * slope**2
        length = told["step_size"] * (0.1 + 0.9 * (1 + math.cos(math.pi * k / steps)) / 2)
        adam = mean / (1 - 0.7 ** (k + 1)) / ((square_ / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8)
        delta = (x + delta - length * adam).clamp(0, 1) - x
        largest = delta.abs().reshape(channels, -1).max(dim=0).values
        kept = (largest >= threshold).expand(channels, -1).reshape(x.shape)
        delta = torch.where(kept, delta, 0)
        threshold += (1 if fooled else -1) * told["threshold_change"] * length
        threshold = min(max(threshold, 0.0), 1.0)
    return torch.stack(iterates)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["l0", "l0_pixels"])
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"step_size": 0.4, "sigma": 0.02, "threshold_change": 0.1},
        {"threshold_change": 0.6},  # a threshold that comes to 0 and to 1, and no further
    ],
)
def test_sigma_zero_agrees_with_the_algorithm_in_plain_loops(tangled, norm, targeted, told):
    inputs, steps = inputs_of(4, 3, 2, 2), 30
    labels = tangled.eval()(inputs).argsort(dim=1, descending=True)[:, int(targeted)]
    model = Recording(tangled)
    adversarial = sigma_zero(
        model, inputs, labels, norm=norm, steps=steps, targeted=targeted, stop_within=1, **told
    )
    told = {"step_size": 1.3, "sigma": 1e-3, "threshold": 0.3, "threshold_change": 0.02} | told
    sign, asked = -1 if targeted else 1, iter(model.points)
    expected = [
        sigma_zero_in_loops(tangled, x, label, norm, steps, sign, **told)
        for x, label in zip(inputs, labels.tolist(), strict=True)
    ]
    going, fewest = list(range(4)), {i: (math.inf, inputs[i]) for i in range(4)}
    for k in range(steps + 1):
        points = next(asked)
        assert len(points) == len(going)
        for point, i in zip(points, list(going), strict=True):
            torch.testing.assert_close(point, expected[i][k], rtol=0, atol=1e-7)
            moved = point != inputs[i]
            count = int((moved.any(dim=0) if norm == "l0_pixels" else moved).sum())
            fooled = margin_at(tangled, point, labels[i].item(), sign) > 0
            if fooled and count < fewest[i][0]:
                fewest[i] = count, point
            if fewest[i][0] <= 1:
                going.remove(i)
        if not going:
            break
    assert next(asked, None) is None
    assert torch.equal(adversarial, torch.stack([point for _, point in fewest.values()]))
    assert sum(count < math.inf for count, _ in fewest.values()) >= 2


# Square.


def bump_of(height: int, width: int, sideways: bool) -> Tensor:
    """Two halves of opposite sign: beside each other if asked for, or if there is but one row."""
    if (sideways and width > 1) or height == 1:
        return bump_of(width, height, False).T if width > 1 else torch.ones(1, 1).double() * -1
    upper = half_bump(height // 2, width)
    lower = half_bump(height - height // 2, width)
    whole = torch.cat([upper, -lower])
    return whole / whole.norm()


@pytest.mark.parametrize("sideways", [False, True])
@pytest.mark.parametrize(
    ("height", "width"), [(2, 2), (3, 2), (2, 3), (1, 2), (2, 1), (1, 5), (5, 1), (4, 7), (7, 4)]
)
def test_a_bump_of_any_window_has_its_halves_along_the_side_asked_for(height, width, sideways):
    one = torch.ones(1, dtype=torch.long)
    window = Window(one, 2 * one, height * one, width * one)
    bump = bumps(window, torch.tensor([sideways]), 9, 10)[0]
    expected = torch.zeros(9, 10, dtype=torch.float64)
    expected[1 : 1 + height, 2 : 2 + width] = bump_of(height, width, sideways)
    torch.testing.assert_close(bump, expected)


@pytest.mark.parametrize(
    ("area", "rows", "columns", "least", "odd", "expected"),
    [
        (12, 10, 3, 1, False, (3, 3)),  # a side as long as the short side of the image fits
        (12, 3, 10, 1, False, (3, 3)),
        (14, 10, 3, 1, False, (5, 3)),  # 4 does not; 14 / 3 is nearer to 5
        (14, 3, 10, 1, False, (3, 5)),
        (13, 10, 3, 1, False, (4, 3)),
        (13, 3, 10, 1, False, (3, 4)),
        (13, 28, 28, 1, False, (4, 4)),  # the root of 13 is nearer to 4
        (13, 28, 28, 3, True, (5, 5)),  # and 5 the next odd number
        (12, 28, 28, 3, True, (3, 3)),
        (1, 2, 2, 3, True, (1, 1)),
        (100, 4, 4, 1, False, (4, 4)),
    ],
)
def test_a_side_that_does_not_fit_leaves_its_area_to_the_other(
    area, rows, columns, least, odd, expected
):
    share = torch.tensor([area / (rows * columns)], dtype=torch.float64)
    height, width = sides(share, rows, columns, least, odd)
    assert (height.item(), width.item()) == expected


HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def drawn_by(keys: Tensor, counter: int, size: int, kind: torch.dtype) -> list[float]:
    return uniform(keys, torch.tensor([counter]), size, kind)[0].tolist()


def square_in_loops(model, x: Tensor, label: int, key: Tensor, norm: str, told: dict):
    """All points asked about in [0, 1], of an image (channels, rows, columns) of even shares."""
    (channels, rows, columns), epsilon = x.shape, told["epsilon"]
    order = {"linf": math.inf, "l2": 2.0, "l1": 1.0}[norm]

    def back(point: Tensor) -> Tensor:
        delta = point - x
        if norm == "linf":
            return (x + delta.clamp(-epsilon, epsilon)).clamp(0, 1)
        if norm == "l2":
            length = delta.norm().item()
            return (x + delta * min(1.0, epsilon / length if length else 1.0)).clamp(0, 1)
        room = torch.where(delta > 0, 1 - x, x)
        low, high = 0.0, delta.abs().max().item()
        if torch.minimum(delta.abs(), room).sum() <= epsilon:
            return x + delta.sign() * torch.minimum(delta.abs(), room)
        for _ in range(100):
            middle = (low + high) / 2
            left = torch.minimum((delta.abs() - middle).clamp(min=0), room).sum()
            low, high = (middle, high) if left > epsilon else (low, middle)
        return x + delta.sign() * torch.minimum((delta.abs() - high).clamp(min=0), room)

    def first(counter: int) -> Tensor:
        delta = torch.zeros_like(x)
        if norm == "linf":
            drawn = drawn_by(key, counter, channels * columns, torch.float32)
            for c in range(channels):
                for j in range(columns):
                    delta[c, :, j] = -1.0 if drawn[c * columns + j] < 0.5 else 1.0
        else:
            h, w = max(rows // 5, 1), max(columns // 5, 1)
            down, beside = rows // h, columns // w
            top, left = (rows - down * h) // 2, (columns - beside * w) // 2
            drawn = drawn_by(key, counter, (channels + 1) * down * beside, torch.float32)
            for a in range(down):
                for b in range(beside):
                    # The first numbers turn the tiles, in all channels alike.
                    tile = bump_of(h, w, drawn[a * beside + b] < 0.5)
                    for c in range(channels):
                        number = (c + 1) * down * beside + a * beside + b
                        rectangle = (
                            c,
                            slice(top + a * h, top + (a + 1) * h),
                            slice(left + b * w, left + (b + 1) * w),
                        )
                        delta[rectangle] = tile if drawn[number] < 0.5 else -tile
        return back(x + delta * epsilon / delta.norm(order))

    def unit(values: Tensor) -> Tensor:
        size = values.norm(order)
        return values / size if size > 0 else values

    def proposal(kept: Tensor, asked: int, counter: int) -> Tensor:
        drawn = drawn_by(key, counter, 5 + channels, torch.float64)
        signs = [-1.0 if each < 0.5 else 1.0 for each in drawn[5:]]
        halvings = sum(asked / told["queries"] * 10_000 > at for at in HALVED)
        side = round(math.sqrt(told["p_init"] * 0.5**halvings * rows * columns))
        side = max(side, 1) if norm == "linf" else max(side, 3) + 1 - max(side, 3) % 2
        side = min(side, rows)
        places = [int(each * (rows - side + 1)) for each in drawn[:4]]
        into = (slice(places[0], places[0] + side), slice(places[1], places[1] + side))
        outof = (slice(places[2], places[2] + side), slice(places[3], places[3] + side))
        if norm == "linf":
            for turn in (1, -1):
                proposed = kept.clone()
                for c in range(channels):
                    proposed[(c, *into)] += turn * 2 * epsilon * signs[c]
                if not torch.equal(back(proposed), kept):
                    break
            return back(proposed)
        delta = kept - x
        shape = bump_of(side, side, drawn[4] < 0.5)
        unused = max(epsilon**order - (delta.abs() ** order).sum().item(), 0) / channels
        moved = delta.clone()
        for c in range(channels):
            both = torch.zeros_like(x[0], dtype=torch.bool)
            both[into] = both[outof] = True
            available = (delta[c][both].abs() ** order).sum().item() + unused
            moved[(c, *outof)] = 0.0
            mixed = unit(signs[c] * shape) + unit(delta[c][into])
            moved[(c, *into)] = unit(mixed) * available ** (1 / order)
        return back(x + moved)

    asked_about = []
    for run in range(told["restarts"]):
        kept, kept_margin = None, -math.inf
        for asked in range(told["queries"]):
            counter = run * (told["queries"] + 1) + asked
            point = proposal(kept, asked, counter) if asked else first(counter)
            asked_about.append(point)
            margin = margin_at(model, point, label, 1)
            if margin > kept_margin:
                kept, kept_margin = point, margin
    return torch.stack(asked_about)


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 11, 11)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_square_agrees_with_the_algorithm_in_plain_loops(norm, shape):
    weight = torch.randn(2, math.prod(shape), generator=torch.Generator().manual_seed(1)).double()

    class Bent:
        facts = ModelFacts()

        def __call__(self, points: Tensor) -> Tensor:
            flat = points.flatten(1)
            return torch.tanh(flat @ weight.T / len(weight[0]) ** 0.5) + flat[:, :2].cos()

    # So that the bounds bind at some values.
    inputs = (1.2 * inputs_of(2, *shape) - 0.1).clamp(0, 1)
    labels = Bent()(inputs).argmax(dim=1)
    told = {"epsilon": {"linf": 0.1, "l2": 1.0, "l1": 5.0}[norm], "queries": 40, "restarts": 2}
    told |= {"p_init": 0.5}
    model = Recording(Bent())
    square(model, inputs, labels, norm=norm, early_stop=False, random_state=3, **told)
    asked, keys = torch.stack(model.points), key_of_copy(example_keys(inputs, 3), labels)
    for i in range(2):
        expected = square_in_loops(Bent(), inputs[i], labels[i].item(), keys[i : i + 1], norm, told)
        torch.testing.assert_close(asked[:, i], expected, rtol=0, atol=1e-8)


# RayS.


def rays_in_loops(model, x: Tensor, label: int, epsilon: float, queries: int, free: list[int]):
    """All points asked about in [0, 1] until the radius allowed fools: algorithms 2 and 3."""
    flat, asked = x.flatten(), []

    def margin_of(direction: list[int], radius: float) -> float:
        point = flat.clone()
        for place in free:
            moved = flat[place].item() + radius * direction[place]
            point[place] = min(max(moved, 0.0), 1.0)
        asked.append(point)
        margin = margin_at(model, point.view_as(x), label, 1)
        if len(asked) == queries or (margin > 0 and radius <= epsilon):
            raise StopIteration
        return margin

    def search() -> None:
        best, far = [1] * len(flat), max(max(flat[i].item(), 1 - flat[i].item()) for i in free)
        high, found, widest, blocks, block = max(far, epsilon), False, -math.inf, 1, -1
        margin_of(best, 0.0)
        while True:
            turned = list(best)
            for rank, place in enumerate(free):
                if block >= 0 and rank * blocks // len(free) == block:
                    turned[place] = -turned[place]
            block += 1
            if block == blocks:
                block, blocks = 0, min(2 * blocks if blocks < len(free) else 2, len(free))
            margin = margin_of(turned, high)
            if margin <= 0:
                if not found and margin > widest:
                    best, widest = turned, margin
                continue
            best, found, low = turned, True, 0.0
            while low < 0.99 * high:
                middle = epsilon if low < epsilon < high else (low + high) / 2
                if margin_of(best, middle) > 0:
                    high = middle
                else:
                    low = middle

    with pytest.raises(StopIteration):
        search()
    return torch.stack(asked)


@pytest.mark.parametrize("tells", ["margins", "classes"])
@pytest.mark.parametrize("free", [list(range(12)), [0, 2, 3, 7, 8]])
def test_rays_agrees_with_the_algorithm_in_plain_loops(tangled, tells, free):
    told = tangled.eval()

    def model(points: Tensor) -> Tensor:
        logits = told(points).detach()
        return logits if tells == "margins" else 5.0 * nn.functional.one_hot(logits.argmax(1), 4)

    inputs = inputs_of(6, 12)
    labels, far = tangled.decided(inputs), 0
    may = torch.zeros(12, dtype=torch.bool)
    may[free] = True
    for x, label in zip(inputs, labels.tolist(), strict=True):
        asking, known = Recording(model), {"epsilon": 0.02, "queries": 60}
        rays(asking, x[None], torch.tensor([label]), mask=may, **known)
        expected = rays_in_loops(model, x, label, 0.02, 60, free)
        assert len(asking.points) == len(expected)
        torch.testing.assert_close(torch.cat(asking.points), expected, rtol=0, atol=1e-9)
        far += len(expected) == 60
    assert far >= 3


# Ties, ends and edges.


def test_of_pairs_that_are_equally_salient_the_one_that_raises_the_target_most_is_changed():
    # Products 7 * 4, 5 * 5 and 4 * 7 of the pairs 01, 02 and 12.
    rises = torch.tensor([[4.0, 3.0, 1.0], [1.0, 3.0, 4.0]])
    pair, found = best_pair(rises, rises.flip(1))
    assert pair.tolist() == [[0, 1], [2, 1]]
    assert found.all()


def test_deepfool_forgets_what_the_bounds_cut_off_each_step():
    # Both values fall together: the first is at its bound after 0.1, so that the second goes on
    # alone. What the first did not get must not come back with a later, opposite slope.
    slopes = iter([[-1.0, -1.0], [1.0, -1.0], [0.0, -1.0]])
    levels, asked = iter([0.8, 0.2, 0.0]), []

    class Told:
        facts = ModelFacts()

        def __call__(self, points: Tensor) -> Tensor:
            asked.append(points.detach().clone())
            slope = torch.tensor(next(slopes)).double()
            lead = (points - points.detach()) @ slope - next(levels)
            return torch.stack([0 * lead, lead], dim=1)

    inputs = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    settings = {"norm": "linf", "steps": 2, "overshoot": 0.0}
    deepfool(Told(), inputs, torch.tensor([0]), **settings)
    # By 0.4 to (-0.3, 0.5), cut to (0, 0.5); then by 0.1 to (0.1, 0.4).
    torch.testing.assert_close(
        torch.cat(asked), torch.tensor([[0.1, 0.9], [0.0, 0.5], [0.1, 0.4]]).double()
    )


def test_ddn_leaves_a_point_where_all_logits_tie():
    def model(points: Tensor) -> Tensor:
        lead = points.sum(dim=1) - 1.0
        return torch.stack([-lead, lead], dim=1)

    inputs = torch.tensor([[0.5, 0.5], [0.4, 0.4]], dtype=torch.float64)
    adversarial = ddn(model, inputs, torch.tensor([0, 0]))
    assert (model(adversarial).argmax(dim=1) == 1).all()
    # The tie is on the boundary itself, the other 0.2 / sqrt 2 away.
    distance = (adversarial - inputs).norm(dim=1)
    assert distance[0] < 0.01
    assert distance[1] < 1.05 * 0.2 / math.sqrt(2)


def test_the_nearest_class_is_looked_for_among_the_twelve_likeliest():
    # Class k is k behind; the steeper it is, the nearer: the thirteenth would be the nearest.
    steep = torch.ones(15, dtype=torch.float64)
    steep[12], steep[13] = 100.0, 1000.0
    steep[0] = 0.0

    def model(points: Tensor) -> Tensor:
        return points * steep - torch.arange(15)

    inputs, labels = torch.zeros(1, 15, dtype=torch.float64), torch.tensor([0])
    for n_targets, expected in ((1, [12]), (2, [12, 1]), (13, [13, 12])):
        choose = TargetChoice(n_targets, "nearest", "l2", targeted=False)
        _, targets, _ = choose(query(model, inputs, labels), examples_of(inputs, labels))
        assert targets[0, : len(expected)].tolist() == expected


def test_sigma_zero_keeps_a_change_that_is_exactly_as_large_as_the_threshold():
    model = nn.Linear(2, 2)
    model.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    model.bias.data = torch.tensor([5.0, 0.0])
    asking = Recording(model)
    inputs, labels = torch.full((1, 2), 0.5), torch.tensor([0])
    sigma_zero(asking, inputs, labels, threshold=0.5, steps=1)
    assert torch.cat(asking.points).tolist() == [[0.5, 0.5], [1.0, 0.5]]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_square_asks_about_an_example_that_may_not_change_as_it_is(norm):
    inputs, asked = inputs_of(2, 1, 5, 5), []
    may = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    may[1] = False

    def watch(places: Tensor, points: Tensor, _: Tensor) -> None:
        asked.extend(zip(places.tolist(), points, strict=True))

    def model(points: Tensor) -> Tensor:
        return points.flatten(1)[:, :2] + torch.tensor([9.0, 0.0])

    settings = {"epsilon": 0.3, "norm": norm, "queries": 5, "mask": may, "callback": watch}
    square(model, inputs, torch.tensor([0, 0]), **settings)
    held = [point for place, point in asked if place == 1]
    assert len(held) == 5
    assert all(torch.equal(point, inputs[1]) for point in held)
