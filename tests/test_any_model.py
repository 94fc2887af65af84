"""Attacks on models as people bring them: fronts without gradients, masks, units, places."""

from copy import deepcopy
from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import deaf, examples_of, query
from distillguard import AdversarialTrainer, attacks, datasets, evaluate
from distillguard._geometry import COUNTS, inside, lp_norm
from distillguard.attacks._checks import ModelFacts, sounded
from distillguard.attacks._engine import logits_and_gradient
from distillguard.functional import margin_loss
from distillguard.training import Ascent
from test_attacks_contract import EPSILON, cases, each_case, misclassified, pixels

REPEATED = ["fab_targeted", "carlini_wagner_linf", "carlini_wagner_l2", "ddn", "fmn"]
STRONG = ["carlini_wagner_l2", "carlini_wagner_linf", "carlini_wagner_l0", "ddn", "deepfool", "fmn"]


@pytest.fixture(scope="module")
def digits():
    """A network trained on real digits, half of whose pixels lie at a bound."""
    X, y = datasets.load_digits("train")
    inputs, labels = (part[:60] for part in datasets.load_digits("test"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        adam = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            adam.zero_grad()
            nn.functional.cross_entropy(net(X), y).backward()
            adam.step()
    net.requires_grad_(False)
    right = net(inputs).argmax(dim=1) == labels
    return net, inputs[right], labels[right]


# A front that changes no value within the bounds changes no verdict.


def rounded_root(inputs: Tensor) -> Tensor:
    return inputs.sqrt() ** 2


FRONTS = {
    "deaf": deaf,
    "deaf below": partial(deaf, high=2.0),
    "deaf above": partial(deaf, low=-1.0),
    "ReLU": torch.relu,
    "absolute value": torch.abs,
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "root, then square": rounded_root,
    "half of the slope": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "one column": lambda x: torch.cat([deaf(x[..., :1]), x[..., 1:]], dim=-1),
    "normalised": lambda x: deaf((x - 0.13) / 0.31, -0.13 / 0.31, (1 - 0.13) / 0.31) * 0.31 + 0.13,
}


NORMS = {"carlini_wagner_linf": "linf", "fab_targeted": "linf", "carlini_wagner_l0": "l0"}


def briefly(name, model, inputs, labels):
    """Points of an attack with few steps, and their mean distance."""
    steps = 15 if name == "fab_targeted" else 40
    adversarial = getattr(attacks, name)(model, inputs, labels, steps=steps, random_state=0)
    return adversarial, lp_norm(adversarial - inputs, NORMS.get(name, "l2")).mean().item()


@pytest.fixture(scope="module")
def bare(digits):
    return cache(lambda name: briefly(name, *digits)[1])


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", [*STRONG, "fab_targeted"])
def test_distances_behind_a_front_are_those_of_the_bare_network(digits, bare, name, front):
    net, inputs, labels = digits
    adversarial, distance = briefly(name, lambda x: net(FRONTS[front](x)), inputs, labels)
    assert (net(adversarial).argmax(dim=1) != labels).all()
    assert distance == pytest.approx(bare(name), rel=0.02)


@pytest.mark.parametrize("front", ["deaf", "root, then square", "half of the slope"])
@pytest.mark.parametrize("name", ["pgd", "apgd", "fgsm"])
def test_a_budget_attack_fools_as_many_behind_a_front(digits, name, front):
    net, inputs, labels = digits
    attack = partial(getattr(attacks, name), epsilon=0.1, loss="margin", random_state=0)
    fooled = [
        (net(attack(model, inputs, labels)).argmax(dim=1) != labels).sum().item()
        for model in (net, lambda x: net(FRONTS[front](x)))
    ]
    assert 0 < fooled[0] < len(inputs)
    assert abs(fooled[1] - fooled[0]) <= 1


# A class that is ruled out by a value that no network computes changes no verdict.

FILLS = {
    "-1e4": lambda logits: torch.full_like(logits[:, :2], -1e4),
    "-1e9": lambda logits: logits[:, :2] - 1e9,
    "lowest": lambda logits: torch.full_like(logits[:, :2], torch.finfo(logits.dtype).min),
}


def ruling_out(net, fill):
    """The network with two more classes that never win."""

    def model(inputs):
        logits = net(inputs)
        return torch.cat([logits, FILLS[fill](logits)], dim=1)

    return model


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", [*STRONG, "fab_targeted", "sigma_zero", "jsma"])
def test_distances_are_those_of_the_network_without_the_classes_that_are_ruled_out(
    digits, name, fill
):
    net, inputs, labels = digits
    norms = {"carlini_wagner_linf": "linf", "fab_targeted": "linf"}
    norms |= dict.fromkeys(("carlini_wagner_l0", "sigma_zero", "jsma"), "l0")
    settings = {} if name == "jsma" else {"steps": 15, "random_state": 0}
    attack = partial(getattr(attacks, name), **settings)
    distances = []
    for model in (net, ruling_out(net, fill)):
        adversarial = attack(model, inputs, labels)
        fooled = net(adversarial).argmax(dim=1) != labels
        length = lp_norm(adversarial - inputs, norms.get(name, "l2"))
        distances.append((fooled.sum().item(), length[fooled].mean().item()))
    assert distances[1] == pytest.approx(distances[0], rel=0.01)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd_targeted", "square", "fgsm", "rays"])
def test_a_budget_attack_fools_as_many_as_without_the_classes_that_are_ruled_out(
    digits, name, fill
):
    net, inputs, labels = digits
    settings = {"queries": 100} if name in ("square", "rays") else {}
    settings |= {"steps": 25, "n_targets": 4} if name == "apgd_targeted" else {}
    attack = partial(getattr(attacks, name), epsilon=0.1, random_state=0, **settings)
    fooled = [
        (net(attack(model, inputs, labels)).argmax(dim=1) != labels).sum().item()
        for model in (net, ruling_out(net, fill))
    ]
    assert 0 < fooled[0] < len(inputs)
    assert fooled[0] == fooled[1]


@pytest.mark.parametrize("fill", ["-1e9", "lowest"])
def test_a_random_model_and_one_that_goes_by_place_are_seen_behind_a_fill(digits, fill):
    net, inputs, labels = digits

    def noisy(inputs):
        logits = net(inputs)
        return logits + torch.rand_like(logits)

    report = evaluate(ruling_out(noisy, fill), inputs, labels, epsilon=0.05, random_state=0)
    assert "unstable-predictions" in {finding.code for finding in report.findings}

    def by_place(inputs):
        logits = net(inputs)
        return logits + torch.arange(len(logits))[:, None]

    with pytest.raises(ValueError, match="model must answer each example by its own values"):
        attacks.pgd(ruling_out(by_place, fill), inputs, labels, epsilon=0.1)


@given(
    low=st.floats(-1e3, 1e3),
    width=st.sampled_from([1e-3, 1.0, 255.0, 1e5]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
def test_a_hair_inside_is_another_number_in_every_dtype_and_unit(low, width, dtype):
    bounds = torch.tensor([low, low + width], dtype=dtype)
    points = bounds[None].to(torch.promote_types(dtype, torch.float32))
    moved = inside(points, *points[0].tolist(), dtype).to(dtype)
    if (bounds[1] - bounds[0]).double() <= 8 * torch.finfo(dtype).eps * bounds.abs().max().double():
        return  # Hardly a number between them.
    assert bounds[0] < moved[0, 0] < moved[0, 1] < bounds[1]


def test_coordinates_that_lie_on_no_bound_or_may_not_change_are_not_moved():
    points = torch.tensor([[0.0, 1e-9, 0.5, 0.3, 1.0]])
    low, high = torch.tensor([[0, 0, 0, 0.3, 0]]), torch.tensor([[1, 1, 1, 0.3, 1]])
    moved = inside(points, low, high, torch.float32)
    assert (moved != points).tolist() == [[True, False, False, False, True]]


def test_a_step_that_a_dtype_inside_the_model_swallows_is_taken_wider(digits):
    net, inputs, labels = digits

    def model(x: Tensor) -> Tensor:
        return net(deaf(x.bfloat16()).float())

    adversarial = attacks.ddn(model, inputs, labels)
    bare = attacks.ddn(lambda x: net(x.bfloat16().float()), inputs, labels)
    assert (model(adversarial).argmax(dim=1) != labels).all()
    distances = [lp_norm(found - inputs, "l2").mean().item() for found in (adversarial, bare)]
    assert distances[0] == pytest.approx(distances[1], rel=0.03)


class Counted:
    def __init__(self, model):
        self.model, self.rows = model, 0

    def __call__(self, inputs: Tensor) -> Tensor:
        self.rows += len(inputs)
        return self.model(inputs)


@pytest.mark.parametrize("name", [*STRONG, "fab_targeted", "pgd", "apgd"])
def test_an_ordinary_network_is_asked_at_the_points_themselves_and_no_oftener(digits, name):
    net, inputs, labels = digits
    settings = {"epsilon": 0.1} if "pgd" in name else {}
    settings |= {"steps": 25} if name == "fab_targeted" else {}
    attack = partial(getattr(attacks, name), random_state=0, **settings)
    free, known = Counted(net), Counted(net)
    known.facts = ModelFacts(rounding=32 * torch.finfo(torch.float32).eps)
    assert torch.equal(attack(free, inputs, labels), attack(known, inputs, labels))
    # Four looks at 16, 16, 16 and twice 16 examples: the checks.
    assert free.rows - known.rows <= 5 * 16


def test_a_success_a_hair_inside_the_bounds_that_is_none_at_them_does_not_count():
    def model(x: Tensor) -> Tensor:
        untouched = (x[:, :1] == 0).to(x)  # what exactly 0 means to it
        lead = deaf(x).sum(dim=1, keepdim=True) - 10 * untouched
        return torch.cat([torch.full_like(lead, 0.5), lead], dim=1)

    inputs, labels = torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    asked = query(model, inputs, labels)
    asked.facts = ModelFacts(hair=torch.float32)
    logits, gradient = logits_and_gradient(asked, examples_of(inputs, labels), inputs, margin_loss)
    assert (gradient > 0).all()
    assert torch.equal(logits, model(inputs))


def test_the_inner_attack_of_training_sees_through_a_front(digits):
    net, inputs, labels = digits
    ascent = Ascent("linf", 0.1, 5, 0.05, (0.0, 1.0))
    found = []
    for model in (net, lambda x: net(deaf(x))):
        torch.manual_seed(0)
        found.append(
            ascent(
                inputs,
                lambda x, m=model: nn.functional.cross_entropy(m(x), labels, reduction="none"),
            )
        )
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("front", [deaf, torch.relu])
def test_evaluate_gives_the_same_figures_and_findings_behind_a_front(digits, front):
    net, inputs, labels = digits
    bare, behind = (
        evaluate(model, inputs, labels, epsilon=0.08, attacks="quick", random_state=0)
        for model in (net, lambda x: net(front(x)))
    )
    assert abs(bare.robust_accuracy - behind.robust_accuracy) <= 1 / len(inputs)
    codes = [[each.code for each in report.findings] for report in (bare, behind)]
    assert [*codes[0], "gradient-vanishes-at-bounds"] == codes[1]


def test_black_and_white_images_behind_a_front_have_gradients(digits):
    net, inputs, _ = digits
    inputs = inputs.round()
    labels = net(inputs).argmax(dim=1)
    report = evaluate(
        lambda x: net(deaf(x)), inputs, labels, epsilon=0.1, attacks="quick", random_state=0
    )
    assert report.observations.zero_gradients == 0


def test_gradients_are_compared_at_both_bounds_and_inside_whatever_the_images():
    drawn = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    low, high = torch.full((1, 8, 8), -2.0), torch.full((1, 8, 8), 3.0)
    points, lowest, highest = sounded(
        examples_of(torch.where(drawn < 0.5, low, high), bounds=(low, high))
    )
    assert torch.equal(lowest, low.expand_as(points))
    assert torch.equal(highest, high.expand_as(points))
    for place in (points == low, points == high, (points > low) & (points < high)):
        assert place[len(drawn) :].any(dim=0).all()


# Masks: what is excluded comes back bit-equal, and the rest is attacked as if it were alone.


@each_case
def test_coordinates_outside_the_mask_come_back_bit_equal(tangled, case):
    inputs = pixels(6)
    labels = tangled.decided(inputs)
    mask = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    adversarial = case(tangled, inputs, labels, mask=mask)
    assert torch.equal(adversarial[:, ~mask], inputs[:, ~mask])
    assert (adversarial != inputs).any()


class Completed(nn.Module):
    """A model of the first coordinates, to which it adds the rest of each input."""

    facts = ModelFacts()

    def __init__(self, model: nn.Module, rest: Tensor):
        super().__init__()
        self.model, self.rest = model, rest

    def forward(self, inputs: Tensor) -> Tensor:
        rest = self.rest.expand(len(inputs), -1)
        return self.model(torch.cat([inputs, rest], dim=1))


@pytest.mark.parametrize("case", cases(draws=False))
def test_what_the_mask_leaves_is_attacked_as_if_it_were_the_whole_input(tangled, case):
    if case.row.name.startswith("jsma") and case.row.settings.get("saliency") == "logits":
        pytest.skip("equal pairs may be chosen in another order")
    inputs = pixels(4, shape=(12,))
    labels = tangled.decided(inputs)
    tangled.eval().facts = ModelFacts()
    for row in range(4):
        whole, label = inputs[row : row + 1], labels[row : row + 1]
        mask = torch.arange(12) < 7
        masked = case(tangled, whole, label, mask=mask)
        alone = case(Completed(tangled, whole[:, 7:]), whole[:, :7], label)
        torch.testing.assert_close(masked[:, :7], alone, rtol=0, atol=1e-7)


@each_case
def test_a_mask_for_each_example_is_its_own(tangled, case):
    inputs = pixels(5)
    labels = tangled.decided(inputs)
    masks = torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(2)) < 0.7
    together = case(tangled, inputs, labels, mask=masks)
    alone = torch.cat(
        [case(tangled, inputs[i : i + 1], labels[i : i + 1], mask=masks[i]) for i in range(5)]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


@each_case
def test_a_mask_that_leaves_nothing_returns_the_input(tangled, case):
    inputs = pixels(3)
    labels = tangled.decided(inputs)
    adversarial = case.briefly(tangled, inputs, labels, mask=torch.zeros(1, dtype=torch.bool))
    assert torch.equal(adversarial, inputs)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(12), TypeError, "mask must have dtype torch.bool, got torch.float32"),
        ([True] * 12, TypeError, "mask must be a boolean tensor or None, got list"),
        (torch.ones(5, dtype=torch.bool), ValueError, r"mask must have the shape of one input"),
        (torch.ones(4, 12, dtype=torch.bool), ValueError, r"with a first axis of 1 or 6, got \(4"),
    ],
)
def test_a_mask_that_fits_nothing_is_refused(tangled, mask, error, message):
    inputs = pixels(6, shape=(12,))
    with pytest.raises(error, match=message):
        attacks.fgsm(tangled, inputs, tangled.decided(inputs), epsilon=0.1, mask=mask)


# Bounds by coordinate.


@each_case
def test_keeps_to_the_bounds_of_each_coordinate(tangled, case):
    inputs = pixels(6)
    labels = tangled.decided(inputs)
    spread = 0.05 + 0.5 * torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(3)).double()
    low, high = inputs.amin(dim=0) - spread, inputs.amax(dim=0) + 0.1
    adversarial = case(tangled, inputs, labels, bounds=(low, high))
    assert ((adversarial >= low) & (adversarial <= high)).all()
    assert (adversarial != inputs).any()


@each_case
def test_two_tensors_that_hold_one_number_are_those_numbers(tangled, case):
    inputs = pixels(4)
    labels = tangled.decided(inputs)
    bounds = torch.zeros(1, 3, 4).double(), torch.tensor(1.0).double()
    expected = case(tangled, inputs, labels)
    torch.testing.assert_close(
        case(tangled, inputs, labels, bounds=bounds), expected, rtol=0, atol=1e-9
    )


@each_case
def test_a_coordinate_whose_bounds_meet_stays(tangled, case):
    inputs = pixels(4)
    inputs[:, 0, 0] = 0.25
    labels = tangled.decided(inputs)
    low, high = torch.zeros(1, 3, 4).double(), torch.ones(1, 3, 4).double()
    low[0, 0], high[0, 0] = 0.25, 0.25
    adversarial = case(tangled, inputs, labels, bounds=(low, high))
    assert (adversarial[:, 0, 0] == 0.25).all()
    if case.row.from_bounds:
        assert (adversarial != inputs).any()


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ((torch.ones(12), torch.zeros(12)), ValueError, "bounds must have low at most high"),
        ((torch.zeros(7), 1.0), ValueError, r"bounds must be broadcastable to one example \(12,"),
        ((torch.zeros(12), float("nan")), ValueError, "bounds must be finite"),
        ((torch.full((12,), 0.4), torch.ones(12)), ValueError, "inputs must be within bounds, got"),
        ((1.0, 1.0), ValueError, "bounds must be finite with low below high"),
        ((0.0, "1"), TypeError, "bounds must be a number or a tensor, got '1'"),
    ],
)
def test_bounds_that_make_no_box_around_the_inputs_are_refused(tangled, bounds, error, message):
    inputs = pixels(4, shape=(12,))
    with pytest.raises(error, match=message):
        attacks.fgsm(tangled, inputs, tangled.decided(inputs), epsilon=0.1, bounds=bounds)


# Units.


@pytest.mark.parametrize("case", cases(draws=False))
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 255.0), (-3.0, 1000.0), (2.0, 2.0**-10)])
def test_results_do_not_depend_on_units(tangled, case, shift, scale):
    inputs = pixels(6)
    labels = tangled.decided(inputs)
    tangled.eval()
    budget = {"epsilon": scale * EPSILON[case.norm]} if case.row.budget else {}

    expected = case(tangled, inputs, labels)
    scaled = inputs * scale + shift
    found = case(
        lambda z: tangled((z - shift) / scale),
        scaled,
        labels,
        bounds=(shift, shift + scale),
        **budget,
    )
    wrong = misclassified(tangled, (found - shift) / scale, labels)
    assert torch.equal(wrong, misclassified(tangled, expected, labels))
    unit = 1 if case.norm in COUNTS else scale
    distance = lp_norm(found - scaled, case.norm)[wrong].mean().item() / unit
    known = lp_norm(expected - inputs, case.norm)[wrong].mean().item()
    assert distance == pytest.approx(known, rel=0.02)


@pytest.mark.parametrize("high", [1.0, 255.0, 1000.0, 1e-3])
def test_ddn_fools_every_digit_in_any_units(digits, high):
    net, inputs, labels = digits

    def model(z: Tensor) -> Tensor:
        return net(z / high)

    found = attacks.ddn(model, inputs * high, labels, bounds=(0.0, high))
    assert (model(found).argmax(dim=1) != labels).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "apgd_targeted", "square"])
def test_a_budget_larger_than_the_bounds_is_refused(digits, name, norm):
    net, inputs, labels = digits
    corners = {"linf": 1.0, "l2": 8.0, "l1": 64.0}[norm]
    message = f"epsilon must be at most {corners:g}, .* got {2 * corners}; .* 8 / 255"
    attack = partial(getattr(attacks, name), net, inputs, labels, norm=norm)
    with pytest.raises(ValueError, match=message):
        attack(epsilon=2 * corners)
    if norm != "linf":
        with pytest.raises(ValueError, match=r"^epsilon must be at most 1, "):
            attack(epsilon=0.9 * corners, mask=torch.arange(64).view(1, 8, 8) < 1)
    assert attack(epsilon=corners).shape == inputs.shape


def test_evaluate_and_robust_training_refuse_it_too(digits):
    net, inputs, labels = digits
    with pytest.raises(ValueError, match=r"^epsilon must be at most 1, .* got 8.0"):
        evaluate(net, inputs, labels, epsilon=8, attacks="quick")
    with pytest.raises(ValueError, match=r"^epsilon must be at most 1, .* got 8"):
        AdversarialTrainer(epsilon=8, max_epochs=1).fit(inputs.flatten(1), labels)


# What the model is told and asked.


@each_case
def test_the_callback_hears_every_question_and_its_answer(tangled, case):
    inputs = pixels(5, dtype=torch.float32)
    labels = tangled.float().decided(inputs)
    heard, rows = [], []
    counting = Counted(tangled.eval())
    counting.facts = ModelFacts(rounding=32 * torch.finfo(torch.float32).eps)

    def listen(indices: Tensor, points: Tensor, logits: Tensor) -> None:
        heard.append((indices, points, logits))
        rows.append(len(points))

    silent = case(tangled, inputs, labels, batch_size=3)
    assert torch.equal(case(counting, inputs, labels, callback=listen, batch_size=3), silent)
    assert sum(rows) == counting.rows
    for indices, points, logits in heard:
        assert points.dtype == inputs.dtype
        assert points.shape[1:] == inputs.shape[1:]
        assert not points.requires_grad
        torch.testing.assert_close(tangled(points), logits, rtol=1e-4, atol=1e-4)
        distance = lp_norm(points - inputs[indices], "linf")
        assert (distance <= 1).all()
    assert {int(i) for indices, *_ in heard for i in indices} == set(range(5))


def test_what_a_callback_raises_reaches_the_caller(tangled):
    inputs = pixels(2)

    def stop(*question: Tensor) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        attacks.pgd(tangled, inputs, tangled.decided(inputs), epsilon=0.1, callback=stop)
    with pytest.raises(TypeError, match="callback must be None or callable, got int"):
        attacks.pgd(tangled, inputs, tangled.decided(inputs), epsilon=0.1, callback=3)


@each_case
def test_a_model_that_answers_by_place_is_refused_with_the_remedy(tangled, case):
    inputs = pixels(20)
    side = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = (tangled.eval()(inputs) + side).argmax(dim=1)
    with pytest.raises(ValueError, match=r"^model must answer each example by its own.*mask="):
        case.briefly(lambda x: tangled(x) + side[: len(x)], inputs, labels)


def test_a_model_that_is_hardly_random_is_not_taken_for_one_that_answers_by_place(digits):
    net, inputs, labels = digits
    inputs, labels = inputs[:8], labels[:8]
    # Of two differences between draws, about every other is above a hundredth.
    scale = 0.0026 * net(inputs).abs().amax().item()

    def hardly_random(x: Tensor) -> Tensor:
        return net(x) + scale * torch.randn(len(x), 10)

    for seed in range(20):
        attacks.fgsm(hardly_random, inputs, labels, epsilon=0.1, random_state=seed)


def test_side_information_travels_as_masked_coordinates(digits):
    net, inputs, labels = digits
    side = torch.randn(len(inputs), 10, generator=torch.Generator().manual_seed(0))
    labels = (net(inputs) + side).argmax(dim=1)

    def model(packed: Tensor) -> Tensor:
        return net(packed[:, :64]) + packed[:, 64:]

    packed = torch.cat([inputs.flatten(1), side], dim=1)
    free = torch.arange(74) < 64
    bounds = torch.where(free, 0.0, packed.amin()), torch.where(free, 1.0, packed.amax())
    found = attacks.ddn(model, packed, labels, steps=30, bounds=bounds, mask=free)
    assert torch.equal(found[:, 64:], side)
    assert (model(found).argmax(dim=1) != labels).all()
    ones = [slice(i, i + 1) for i in range(len(inputs))]
    one_by_one = torch.cat(
        [
            attacks.ddn(lambda x, one=one: net(x) + side[one], inputs[one], labels[one], steps=30)
            for one in ones
        ]
    )
    distance = lp_norm(one_by_one - inputs, "l2")
    torch.testing.assert_close(lp_norm(found - packed, "l2"), distance, rtol=1e-3, atol=1e-4)


def test_a_model_that_draws_random_numbers_is_not_taken_for_one_that_goes_by_place(tangled):
    inputs = pixels(8)
    labels = tangled.decided(inputs)
    tangled.eval()

    def noisy(x: Tensor) -> Tensor:
        return tangled(x + 0.1 * torch.randn_like(x))

    attacks.pgd(noisy, inputs, labels, epsilon=0.1, random_state=0)


# A success is one that anybody can repeat.


@pytest.fixture(scope="module")
def convolutions():
    """A convolutional network on digits."""
    X, y = datasets.load_digits("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        adam = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(25):
            adam.zero_grad()
            nn.functional.cross_entropy(net(X), y).backward()
            adam.step()
    return net.requires_grad_(False)


@pytest.mark.parametrize(
    "name", ["fab_targeted", "carlini_wagner_linf", "carlini_wagner_l2", "ddn"]
)
def test_a_success_stands_alone_in_any_batch_and_in_double_precision(convolutions, name):
    net = deepcopy(convolutions)
    inputs, labels = (part[:150] for part in datasets.load_digits("test"))
    settings = {"steps": 20} | ({"n_targets": 3} if name == "fab_targeted" else {})
    found = getattr(attacks, name)(net, inputs, labels, random_state=0, **settings)
    tried = (net(inputs).argmax(dim=1) == labels) & (found != inputs).flatten(1).any(dim=1)
    found, labels = found[tried], labels[tried]
    assert len(found) > 100
    for size in (len(found), 32, 2, 1):
        answers = torch.cat([net(part) for part in found.split(size)])
        assert (answers.argmax(dim=1) != labels).all()
    assert (net.double()(found.double()).argmax(dim=1) != labels).all()


# evaluate.


def test_evaluate_attacks_within_mask_and_bounds_and_judges_others_by_them(digits):
    net, inputs, labels = digits
    mask = torch.arange(64).view(1, 8, 8) < 32
    everything = partial(attacks.fgsm, epsilon=0.3, loss="margin", mask=torch.ones(1, 8, 8) > 0)
    report = evaluate(
        net,
        inputs,
        labels,
        epsilon=0.3,
        attacks={"within": partial(attacks.fgsm, epsilon=0.3, loss="margin"), "all": everything},
        mask=mask,
        survivors_only=False,
        random_state=0,
    )
    within = attacks.fgsm(net, inputs, labels, epsilon=0.3, loss="margin", mask=mask)
    expected = (net(within).argmax(dim=1) == labels).double().mean().item()
    assert report.attacks[0].robust_accuracy == pytest.approx(expected)
    assert report.attacks[1].illegal == len(inputs)
    assert report.attacks[1].robust_accuracy == 1
    assert np.array(report.mask).shape == (1, *inputs.shape[1:])
    assert type(report).from_json(report.to_json()) == report


def test_evaluate_takes_a_mask_for_each_example_and_bounds_for_each_coordinate(digits):
    net, inputs, labels = digits
    masks = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    low, high = torch.zeros(inputs.shape[1:]), torch.full(inputs.shape[1:], 1.0)
    seen = []

    def note(indices: Tensor, points: Tensor, logits: Tensor) -> None:
        seen.append((indices, points))

    asked = {"PGD": partial(attacks.pgd, epsilon=0.3, bounds=(low, high), callback=note)}
    settings = {"epsilon": 0.3, "mask": masks, "bounds": (low, high), "random_state": 0}
    report = evaluate(net, inputs, labels, attacks=asked, chunk_size=16, **settings)
    by_hand = attacks.pgd(net, inputs, labels, **settings)
    expected = (net(by_hand).argmax(dim=1) == labels).double().mean().item()
    assert report.robust_accuracy == pytest.approx(expected, abs=2 / len(inputs))
    assert seen
    whole = evaluate(net, inputs, labels, attacks="quick", **settings)
    assert report.robust_accuracy >= whole.quoted_accuracy
    assert type(whole).from_json(whole.to_json()) == whole


def test_a_model_whose_backward_fails_is_evaluated_by_what_needs_none(digits):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise NotImplementedError("no derivative of this kernel")

    net, inputs, labels = digits
    random = {"Square": partial(attacks.square, epsilon=0.2, queries=50, random_state=0)}
    report = evaluate(
        lambda x: net(Broken.apply(x)), inputs, labels, epsilon=0.2, attacks=random, random_state=0
    )
    bare = evaluate(net, inputs, labels, epsilon=0.2, attacks=random, random_state=0)
    assert report.robust_accuracy == bare.robust_accuracy


def test_a_state_file_belongs_to_one_mask_and_one_box(digits, tmp_path):
    net, inputs, labels = digits
    mask = torch.arange(64).view(1, 8, 8) < 32
    low, high = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    settings = {"epsilon": 0.1, "attacks": "quick", "state_file": tmp_path / "state"}
    settings |= {"random_state": 0, "bounds": (low, high)}
    first = evaluate(net, inputs, labels, mask=mask, **settings)
    assert evaluate(net, inputs, labels, mask=mask, **settings).attacks == first.attacks
    for other in ({"mask": ~mask}, {"mask": mask, "bounds": (low - 1, high)}):
        with pytest.raises(ValueError, match=r"^state_file must belong to the same") as caught:
            evaluate(net, inputs, labels, **{**settings, **other})
        assert len(str(caught.value)) < 600


def test_what_evaluate_finds_out_about_the_model_is_counted_apart(digits):
    net, inputs, labels = digits
    report = evaluate(net, inputs, labels, epsilon=0.1, attacks="quick", random_state=0)
    assert 0 < report.costs["checks"].forwards <= 5 * 16
    alone = Counted(net)
    alone.facts = ModelFacts()
    attacks.fgsm(alone, inputs, labels, epsilon=0.1, loss="margin", judge_last=False)
    assert report.attacks[0].forwards * len(inputs) == alone.rows == len(inputs)
