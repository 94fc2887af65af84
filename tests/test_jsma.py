"""What the saliency map attack promises beyond the contract of every attack."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from distillguard._geometry import lp_norm
from distillguard.attacks import jsma
from distillguard.attacks._checks import ModelFacts
from distillguard.attacks._jsma import best_pair
from distillguard.functional import softmax


class Affine(nn.Module):
    """Logits ``W x + b``: the Jacobian is W everywhere."""

    def __init__(self, weight: list[list[float]], bias: list[float], scale: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * (inputs.flatten(1).to(self.weight) @ self.weight.T + self.bias)


# Target 0. Over the pixels its slopes are (4, 1, 3, -1), those of the others together
# (2, -3, -1, -4). By hand, the pairs with alpha, -beta and their product:
#   01: 5, 1 -> 5     02: 7, -1 -> no   03: 3, 2 -> 6
#   12: 4, 4 -> 16    13: 0, 7 -> no    23: 2, 5 -> 10
# so 12 goes first and leaves 03, while the two steepest slopes of the target are 0 and 2.
FOUR_PIXELS = [[4.0, 1.0, 3.0, -1.0], [1.0, -2.0, -1.0, 0.0], [1.0, -1.0, 0.0, -4.0]]
BLACK, TARGET = torch.zeros(1, 4), torch.tensor([0])


@pytest.mark.parametrize(
    ("lead", "max_features", "expected"),
    [
        pytest.param(6.0, 2, [0, 1, 1, 0], id="the-first-pair-is-enough"),
        pytest.param(8.5, 2, [0, 0, 0, 0], id="the-second-would-be-too-many"),
        pytest.param(8.5, 3, [0, 0, 0, 0], id="half-a-pair-does-not-count"),
        pytest.param(8.5, 4, [1, 1, 1, 1], id="both-pairs"),
        pytest.param(99.0, 4, [0, 0, 0, 0], id="out-of-reach"),
    ],
)
def test_four_pixels_worked_out_by_hand(lead, max_features, expected):
    # After 12 the target gained 4 and class 1 lost 3; after 03 it gained 3 more and class 1 won 1.
    model = Affine(FOUR_PIXELS, [0.0, lead, -50.0])
    adversarial = jsma(
        model, BLACK, TARGET, saliency="logits", max_features=max_features, targeted=True
    )
    assert adversarial.tolist() == [expected]


def test_pixels_at_the_bound_are_not_up_for_choice():
    model = Affine(FOUR_PIXELS, [0.0, 5.5, -50.0])
    inputs = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    # Without pixel 1 the best pair is 23; it brings the target from 1 to 3, class 1 to 2.5.
    adversarial = jsma(model, inputs, TARGET, saliency="logits", max_features=2, targeted=True)
    assert adversarial.tolist() == [[0.0, 1.0, 1.0, 1.0]]


def test_examples_of_a_batch_that_stop_and_start_at_other_times_do_not_hold_each_other_up():
    # The first needs one pair and leaves; the third takes its place when the second has no more
    # features to change, and needs both pairs.
    model = Affine(FOUR_PIXELS, [0.0, 0.0, -50.0])

    def leading(inputs: Tensor) -> Tensor:
        lead = 6.0 + 2.5 * inputs[:, 4:5]
        return model(inputs[:, :4]) + torch.cat([0 * lead, lead, 0 * lead], dim=1)

    inputs = torch.zeros(4, 5)
    inputs[1:3, 4] = 1.0
    free = torch.tensor([True, True, True, True, False])
    settings = {"saliency": "logits", "max_features": 4, "targeted": True, "mask": free}
    found = jsma(leading, inputs, TARGET.expand(4), batch_size=2, **settings)
    one_pair, both = [0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]
    assert found.tolist() == [one_pair, both, both, one_pair]


def test_a_changed_pixel_is_not_changed_back():
    def model(inputs: Tensor) -> Tensor:
        # At white the first two pixels pull as strongly to black as they pulled from there.
        pull = 10 * (inputs[:, :2] * (1 - inputs[:, :2])).sum(dim=1) + inputs[:, 2:].sum(dim=1)
        return torch.stack([pull, 3 - pull], dim=1)

    settings = {"saliency": "logits", "change": "both", "max_features": 4, "targeted": True}
    assert jsma(model, BLACK, TARGET, **settings).tolist() == [[1.0, 1.0, 1.0, 1.0]]


def brute_force(rises: Tensor, falls: Tensor) -> float:
    """The highest logarithm of the product over all pairs."""
    best = -math.inf
    for p, q in itertools.combinations(range(len(rises)), 2):
        rise, fall = (rises[p] + rises[q]).item(), (falls[p] + falls[q]).item()
        if rise > 0 and fall > 0:
            best = max(best, math.log(rise) + math.log(fall))
    return best


SLOPES = st.floats(-3, 3) | st.sampled_from([-1.0, 0.0, 1.0, 2.0, -math.inf])
ROWS = st.lists(st.tuples(SLOPES, SLOPES), min_size=2, max_size=9)


@given(
    st.lists(ROWS, min_size=1, max_size=3),
    st.sampled_from([1.0, 1e-160]),
    st.sampled_from(["any", "agree", "oppose"]),
)
def test_the_best_of_all_pairs_is_found(rows, scale, relation):
    width = max(map(len, rows))
    table = torch.tensor(
        [row + [(-math.inf, -math.inf)] * (width - len(row)) for row in rows], dtype=torch.float64
    )
    table = table.masked_fill(table.isinf().any(dim=2, keepdim=True), -torch.inf) * scale
    rises, falls = table.unbind(dim=2)
    if relation == "agree":
        falls = rises
    elif relation == "oppose":
        falls = torch.where(rises.isinf(), rises, -rises + 0.1 * scale)

    pair, found = best_pair(rises, falls)

    for i in range(len(rows)):
        expected = brute_force(rises[i], falls[i])
        assert found[i].item() == (expected > -math.inf)
        if found[i]:
            assert pair[i, 0] != pair[i, 1]
            got = brute_force(rises[i, pair[i]], falls[i, pair[i]])
            assert got == pytest.approx(expected, abs=1e-9)


def test_the_best_of_millions_of_pairs_is_found_without_their_table():
    generator = torch.Generator().manual_seed(0)
    rises = torch.randn(2, 3072, generator=generator)
    falls = torch.randn(2, 3072, generator=generator)
    pair, found = best_pair(rises, falls)
    assert found.all()
    for i in range(2):
        rise, fall = rises[i, :, None] + rises[i], falls[i, :, None] + falls[i]
        products = (rise * fall).masked_fill((rise <= 0) | (fall <= 0), -1).fill_diagonal_(-1)
        assert products[tuple(pair[i])] == products.max()


# Algorithms 2 and 3, written a second time: one example, plain loops, all pairs.


def papernot(model, x, label, saliency, temperature, change, max_features, targeted) -> Tensor:
    x, original, moved = x.clone(), x, set()

    def judged(logits: Tensor) -> bool:
        return (logits.argmax().item() == label) is targeted

    def outputs(point: Tensor) -> Tensor:
        logits = model(point[None])[0]
        return softmax(logits[None], temperature)[0] if saliency == "softmax" else logits

    while not judged(logits := model(x[None])[0].detach()):
        others = [k for k in range(len(logits)) if k != label]
        t = label if targeted else max(others, key=lambda k: logits[k].item())
        jacobian = torch.autograd.functional.jacobian(outputs, x)
        best, chosen = 0.0, None
        ways = {"increase": [1], "decrease": [0], "both": [1, 0]}[change]
        moves = [(p, way) for p in range(len(x)) for way in ways if p not in moved and x[p] != way]
        for (p, up_p), (q, up_q) in itertools.combinations(moves, 2):
            if p == q:
                continue
            slopes = jacobian[:, p] * (2 * up_p - 1) + jacobian[:, q] * (2 * up_q - 1)
            alpha, beta = slopes[t].item(), (slopes.sum() - slopes[t]).item()
            if alpha > 0 and beta < 0 and -alpha * beta > best:
                best, chosen = -alpha * beta, ((p, up_p), (q, up_q))
        if chosen is None or len(moved) + 2 > max_features:
            return original
        for p, up in chosen:
            x[p] = up
            moved.add(p)
    return x


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("change", ["increase", "decrease", "both"])
@pytest.mark.parametrize(
    ("saliency", "temperature"), [("softmax", 1), ("softmax", 5), ("logits", 1)]
)
def test_agrees_with_the_algorithm_in_plain_loops(tangled, saliency, temperature, change, targeted):
    inputs = torch.rand(6, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ranked = tangled.eval()(inputs).argsort(dim=1, descending=True)
    labels = ranked[:, int(targeted)]
    settings = {"saliency": saliency, "temperature": temperature, "change": change}

    adversarial = jsma(tangled, inputs, labels, max_features=6, targeted=targeted, **settings)

    expected = [
        papernot(tangled, x, label, **settings, max_features=6, targeted=targeted)
        for x, label in zip(inputs, labels.tolist(), strict=True)
    ]
    assert torch.equal(adversarial, torch.stack(expected))
    assert (adversarial != inputs).any()


# A saturated softmax stops the attack, and undoing the temperature repairs it.


def saturated() -> tuple[Affine, Tensor, Tensor]:
    """Logits 10,000 times too large; ten pairs at most lead from class 1 to class 0."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(2, 20, generator=generator) * torch.tensor([[1.0], [-1.0]])
    model = Affine(weight.tolist(), [0.0, 8.0], scale=1e4)
    return model, torch.zeros(3, 20), torch.zeros(3, dtype=torch.int64)


class Counted:
    """A model that counts the examples it is asked about and the gradients drawn from them."""

    facts = ModelFacts()

    def __init__(self, model):
        self.model = model
        self.forwards = self.backwards = 0

    def __call__(self, points: Tensor) -> Tensor:
        self.forwards += len(points)
        if points.requires_grad:
            points.register_hook(self.count)
        return self.model(points)

    def count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def test_a_dead_gradient_ends_the_attack_at_its_first_step():
    model, inputs, targets = saturated()
    counted = Counted(model)
    assert torch.equal(jsma(counted, inputs, targets, targeted=True), inputs)
    assert counted.forwards == 3


@pytest.mark.parametrize("settings", [{"temperature": 1e4}, {"saliency": "logits"}], ids=str)
def test_undoing_the_temperature_or_using_logits_revives_it(settings):
    model, inputs, targets = saturated()
    adversarial = jsma(model, inputs, targets, targeted=True, **settings)
    assert (model(adversarial).argmax(dim=1) == targets).all()


def test_a_gradient_that_is_small_but_alive_is_followed():
    # The slopes are near 1e-35: their product is 0 in single precision, their ranking is not.
    model = Affine(FOUR_PIXELS, [0.0, 80.0, 0.0]).float()
    model.weight.data[0] += 60
    adversarial = jsma(model, BLACK, TARGET, targeted=True)
    assert model(adversarial).argmax(dim=1) == 0


@pytest.mark.parametrize(("saliency", "backwards"), [("softmax", 1), ("logits", 2)])
def test_a_step_asks_for_one_forward_and_as_few_gradients_as_it_needs(saliency, backwards):
    model = Counted(Affine(FOUR_PIXELS, [0.0, 8.5, -50.0]))
    jsma(model, BLACK, TARGET, saliency=saliency, targeted=True, max_features=4)
    # Two steps that draw gradients; the last point is only judged.
    assert model.forwards == 3
    assert model.backwards == 2 * backwards


@pytest.mark.parametrize("max_features", [2, 5, 8])
def test_what_changes_goes_to_a_bound_and_is_not_too_much(tangled, max_features):
    inputs = torch.rand(20, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    adversarial = jsma(
        tangled, inputs, tangled.decided(inputs), change="both", max_features=max_features
    )
    changed = adversarial != inputs
    assert (lp_norm(adversarial - inputs, "l0") <= max_features).all()
    assert set(adversarial[changed].tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"saliency": "loud"}, "saliency must be one of 'softmax', 'logits', got 'loud'"),
        ({"temperature": 0}, "temperature must be a finite number above 0, got 0"),
        ({"max_features": 1}, "max_features must be at least 2, got 1"),
        ({"change": "up"}, "change must be one of 'increase', 'decrease', 'both', got 'up'"),
    ],
    ids=str,
)
def test_settings_are_checked(tangled, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        jsma(tangled, torch.zeros(1, 12), torch.tensor([0]), **settings)
