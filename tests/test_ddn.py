"""What decoupling direction and norm promises beyond the contract of every attack."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conftest import Halfspace, Recording, Tangled
from distillguard._geometry import lp_norm
from distillguard.attacks import ddn
from distillguard.functional import margin_loss


def inputs_of(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 12, generator=generator, dtype=torch.float64)


# Algorithm 1, written a second time: one example, plain loops and lists.


def algorithm_1(model, x: Tensor, label: int, steps: int, norm: float, gamma: float, sign: int):
    """All iterates at which the model is asked, with the cross-entropy at temperature 1."""
    iterates, delta = [x], torch.zeros_like(x)
    for k in range(steps):
        point = iterates[-1].clone().requires_grad_()
        logits = model(point[None])
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([label])), point)
        step_size = 0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2
        delta = iterates[-1] - x + sign * step_size * gradient / gradient.norm()
        fooled = (logits.argmax().item() == label) is (sign < 0)
        norm *= 1 - gamma if fooled else 1 + gamma
        # No perturbation within the bounds is longer than that to their farthest corner.
        norm = min(norm, torch.maximum(x, 1 - x).norm().item())
        iterates.append((x + norm * delta / delta.norm()).clamp(0, 1))
    return torch.stack(iterates)


@pytest.mark.parametrize("targeted", [False, True])
def test_agrees_with_the_algorithm_in_plain_loops(tangled, targeted):
    inputs = inputs_of(5)
    labels = tangled.eval()(inputs).argsort(dim=1, descending=True)[:, int(targeted)]
    settings = {"steps": 15, "gamma": 0.1, "initial_norm": 0.3}
    model = Recording(tangled)

    adversarial = ddn(model, inputs, labels, temperature=1.0, targeted=targeted, **settings)

    asked = torch.stack(model.points)
    for i, (x, label) in enumerate(zip(inputs, labels.tolist(), strict=True)):
        expected = algorithm_1(tangled, x, label, 15, 0.3, 0.1, -1 if targeted else 1)
        torch.testing.assert_close(asked[:, i], expected, rtol=0, atol=1e-9)
        margins = margin_loss(tangled(expected), torch.full((16,), label))
        fooling = expected[(margins < 0) if targeted else (margins > 0)]
        assert len(fooling)
        nearest = (fooling - x).norm(dim=1).argmin()
        torch.testing.assert_close(adversarial[i], fooling[nearest], rtol=0, atol=1e-9)


def test_asks_once_more_than_it_takes_steps_and_the_last_time_without_a_gradient(tangled):
    model, inputs = Recording(tangled.eval()), inputs_of(4)
    ddn(model, inputs, tangled.decided(inputs), steps=7)
    assert sum(map(len, model.points)) == 4 * 8
    assert model.backwards == 4 * 7


def test_what_is_misclassified_already_costs_one_evaluation(tangled):
    model, inputs = Recording(tangled.eval()), inputs_of(4)
    ddn(model, inputs, (tangled.decided(inputs) + 1) % 4, steps=7)
    assert len(model.points) == 1


@pytest.mark.parametrize("n_steps", [100, 200])
def test_comes_within_a_hundredth_of_the_boundary(halfspace, examples, n_steps):
    inputs, labels = examples(16)
    least = halfspace.least_epsilon(inputs, "l2")
    adversarial = ddn(halfspace, inputs, labels, steps=n_steps, initial_norm=0.1, gamma=0.05)
    distance = lp_norm(adversarial - inputs, "l2")
    assert (distance >= least * (1 - 1e-9)).all()
    assert (distance <= least * 1.05).all()
    assert (distance / least).median() <= 1.01


@pytest.mark.parametrize("scale", [1e-4, 8.0, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_auto_temperature_is_blind_to_the_scale_of_the_logits(scale, dtype):
    model, inputs = Tangled().to(dtype).eval(), inputs_of(6, seed=1).to(dtype)
    labels = model.decided(inputs)
    expected = ddn(model, inputs, labels, steps=20)
    adversarial = ddn(lambda points: scale * model(points), inputs, labels, steps=20)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-3)
    assert (model(adversarial).argmax(dim=1) != labels).all()


def test_a_saturated_softmax_defeats_temperature_one_and_nothing_else(examples):
    model = Halfspace(scale=1e5)
    inputs, labels = examples(8)
    sure = model(inputs).abs().amax(dim=1) > 1000
    inputs, labels = inputs[sure], labels[sure]

    blind = ddn(model, inputs, labels, temperature=1.0)
    undone = ddn(model, inputs, labels, temperature=1e5)
    auto = ddn(model, inputs, labels)

    assert torch.equal(blind, inputs)
    assert (model(undone).argmax(dim=1) != labels).all()
    assert (model(auto).argmax(dim=1) != labels).all()


@pytest.mark.parametrize("n_classes", [2, 10, 1000])
def test_auto_temperature_leaves_no_gradient_dead_however_many_classes(n_classes):
    # One logit towers over all others, the worst case for a softmax.
    weight = torch.zeros(n_classes, 4)
    weight[0] = 1e6
    inputs, labels = torch.full((1, 4), 0.5), torch.tensor([0])
    bias = torch.zeros(n_classes)
    bias[1] = 1e6
    model = Recording(lambda points: points @ weight.T + bias)
    adversarial = ddn(model, inputs, labels, steps=60)
    assert adversarial.sum() < 1.01
    assert adversarial.sum() > 0.9


def test_the_norm_tried_never_leaves_the_bounds_behind():
    class Stubborn(Halfspace):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) + inputs.new_tensor([0.0, 1e3])

    model, inputs = Recording(Stubborn()), inputs_of(3)
    adversarial = ddn(model, inputs, torch.ones(3, dtype=torch.int64), steps=50, gamma=0.99)
    assert torch.equal(adversarial, inputs)
    assert torch.cat(model.points).isfinite().all()


def test_a_long_way_without_success_does_not_make_the_norm_longer_than_the_bounds_allow():
    asked = []

    def model(points: Tensor) -> Tensor:
        # Fooled from the 21st point on, wherever that lies.
        asked.append(points.detach().clone())
        lead = points.flatten(1).sum(dim=1)
        reached = 0.0 if len(asked) <= 20 else 200.0
        return torch.stack([lead + 100.0, reached - lead], dim=1)

    x = torch.full((1, 12), 0.5, dtype=torch.float64)
    ddn(Recording(model), x, torch.tensor([0]), steps=30, gamma=0.5)
    lengths = [(points - x).norm().item() for points in asked]
    # Half the diagonal is as far as one can go; each success halves the norm to try.
    for halvings, length in enumerate(lengths[21:], start=1):
        assert length <= math.sqrt(3) * 0.5**halvings * (1 + 1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"initial_norm": 0.0}, "initial_norm must be a finite number above 0, got 0.0"),
        ({"gamma": 0}, "gamma must be a finite number above 0, got 0"),
        ({"gamma": 1.0}, "gamma must be below 1, got 1.0"),
        ({"temperature": -1}, "temperature must be a finite number above 0, got -1"),
        ({"temperature": "cold"}, "temperature must be one of 'auto', got 'cold'"),
    ],
    ids=str,
)
def test_settings_are_checked(tangled, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ddn(tangled, torch.zeros(1, 12), torch.tensor([0]), **settings)
