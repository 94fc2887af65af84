"""The temperature softmax and the losses: numbers worked out by hand, limits, invariances."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from distillguard import functional
from distillguard.functional import (
    cross_entropy,
    distillation_loss,
    dlr_loss,
    log_softmax,
    margin_loss,
    rescaled_cross_entropy,
    soft_cross_entropy,
    softmax,
)

LN2, LN3 = math.log(2), math.log(3)


def rows(*values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def random_logits(n: int = 6, n_classes: int = 5, seed: int = 0, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)


def random_labels(n: int = 6, n_classes: int = 5, seed: int = 0) -> Tensor:
    return torch.randint(n_classes, (n,), generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor | list[float], **tolerances: float) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), **tolerances)


# Golden numbers: logits chosen so that the probabilities are simple fractions.


def test_softmax_of_logarithms_is_their_argument_normalised():
    close(softmax(rows([0.0, LN2, LN3])), [[1 / 6, 2 / 6, 3 / 6]])


def test_temperature_two_takes_square_roots_of_the_odds():
    close(softmax(rows([0.0, 2 * LN3]), temperature=2.0), [[1 / 4, 3 / 4]])
    close(log_softmax(rows([0.0, 2 * LN3]), temperature=2.0), [[math.log(1 / 4), math.log(3 / 4)]])


def test_log_softmax_keeps_what_the_softmax_loses_to_underflow():
    logits = rows([500.0, 0.0], dtype=torch.float32)
    assert softmax(logits)[0, 1] == 0
    close(log_softmax(logits), [[0.0, -500.0]])


def test_soft_cross_entropy_of_even_targets_by_hand():
    loss = soft_cross_entropy(rows([0.0, 2 * LN3]), rows([0.5, 0.5]), temperature=2.0)
    close(loss, [0.5 * math.log(16 / 3)])


def test_cross_entropy_by_hand():
    close(
        cross_entropy(rows([0.0, LN3], [0.0, LN3]), torch.tensor([0, 1])), [2 * LN2, 2 * LN2 - LN3]
    )


def test_distillation_loss_by_hand():
    student, teacher = rows([0.0, 0.0]), rows([4 * LN3, 0.0])
    labels = torch.tensor([1])
    # Soft targets (3/4, 1/4) against (1/2, 1/2): ln 2, times 16; the hard term is ln 2.
    close(distillation_loss(student, teacher, labels, 4.0, 0.25), [(0.75 * 16 + 0.25) * LN2])


def test_margin_by_hand_with_every_logit_negative():
    logits = rows([-5.0, -1.0, -3.0], [-5.0, -1.0, -3.0], [-5.0, -1.0, -3.0])
    close(margin_loss(logits, torch.tensor([0, 1, 2])), [4.0, -2.0, 2.0])


def test_dlr_by_hand():
    logits = rows([9.0, 5.0, 1.0, 0.0], [9.0, 5.0, 1.0, 0.0])
    close(dlr_loss(logits, torch.tensor([0, 1])), [-4 / 8, 4 / 8])


# Temperatures and limits.


def test_the_soft_term_carries_the_factor_temperature_squared():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    for temperature in (0.5, 1.0, 7.0, 100.0):
        soft = soft_cross_entropy(student, softmax(teacher, temperature), temperature)
        loss = distillation_loss(student, teacher, random_labels(), temperature, 0.0)
        close(loss, temperature**2 * soft)


def test_at_high_temperature_distillation_matches_logits():
    # Hinton 2015, section 2.1: with logits of zero mean the gradient tends to (z - v) / N.
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    student.requires_grad_()
    loss = distillation_loss(student, teacher, random_labels(), 1e4, 0.0)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(dim=1, keepdim=True)) / student.shape[1]
    close(gradient, expected, rtol=0, atol=1e-3)


def test_at_temperature_one_the_gradient_is_the_difference_of_probabilities():
    student, teacher = random_logits(seed=1).requires_grad_(), random_logits(seed=2)
    loss = distillation_loss(student, teacher, random_labels(), 1.0, 0.0)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    close(gradient, (torch.softmax(student, 1) - torch.softmax(teacher, 1)).detach())


def test_the_hard_weight_mixes_linearly_between_the_two_terms():
    student, teacher, labels = random_logits(seed=1), random_logits(seed=2), random_labels()
    soft, hard, mixed = (
        distillation_loss(student, teacher, labels, 3.0, weight) for weight in (0.0, 1.0, 0.3)
    )
    close(hard, torch.nn.functional.cross_entropy(student, labels, reduction="none"))
    close(mixed, 0.7 * soft + 0.3 * hard)


def test_no_gradient_reaches_the_teacher():
    student, teacher = (
        random_logits(seed=1).requires_grad_(),
        random_logits(seed=2).requires_grad_(),
    )
    distillation_loss(student, teacher, random_labels(), 2.0, 0.5).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_soft_cross_entropy_at_equality_is_the_entropy_and_never_below():
    logits, others = random_logits(seed=1), random_logits(seed=2)
    targets = softmax(logits, 5.0)
    entropy = torch.from_numpy(scipy.stats.entropy(targets.numpy(), axis=1))
    close(soft_cross_entropy(logits, targets, 5.0), entropy)
    assert (soft_cross_entropy(others, targets, 5.0) > entropy).all()


def test_one_hot_soft_targets_give_the_cross_entropy():
    logits, labels = random_logits(), random_labels()
    one_hot = torch.nn.functional.one_hot(labels, 5).to(logits)
    close(soft_cross_entropy(logits, one_hot), cross_entropy(logits, labels))


def test_a_target_of_zero_contributes_zero_even_where_the_logarithm_is_infinite():
    logits = torch.tensor([[6e4, -6e4]], dtype=torch.float16, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.tensor([[1.0, 0.0]], dtype=torch.float16))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.tolist() == [[0.0, 0.0]]


# Invariances and edges.


def test_dlr_does_not_see_shift_or_positive_scale():
    logits, labels = random_logits(), random_labels()
    close(dlr_loss(logits + 100, labels), dlr_loss(logits, labels))
    close(dlr_loss(1000 * logits, labels), dlr_loss(logits, labels))
    close(dlr_loss(1e-3 * logits, labels), dlr_loss(logits, labels), rtol=1e-6, atol=0)


def test_dlr_of_two_classes_is_the_margin():
    logits, labels = random_logits(n_classes=2), random_labels(n_classes=2)
    close(dlr_loss(logits, labels), margin_loss(logits, labels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dlr_of_equal_logits_is_zero_in_every_precision(dtype):
    logits = torch.full((2, 4), 3.0, dtype=dtype, requires_grad=True)
    loss = dlr_loss(logits, torch.tensor([0, 1]))
    assert loss.tolist() == [0.0, 0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert not gradient.isnan().any()


def test_a_tie_with_the_label_has_margin_zero():
    assert margin_loss(rows([2.0, 2.0, 1.0]), torch.tensor([0])).item() == 0


@pytest.mark.parametrize("loss", [cross_entropy, margin_loss, dlr_loss])
def test_each_loss_is_one_value_per_example_that_its_neighbours_do_not_touch(loss):
    logits, labels = random_logits(), random_labels()
    together = loss(logits, labels)
    alone = torch.cat([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(logits))])
    assert together.shape == labels.shape
    assert torch.equal(together, alone)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda z: softmax(z, 3.0), id="softmax"),
        pytest.param(lambda z: log_softmax(z, 3.0), id="log_softmax"),
        pytest.param(
            lambda z: soft_cross_entropy(z, softmax(random_logits(seed=9), 3.0), 3.0), id="soft"
        ),
        pytest.param(
            lambda z: distillation_loss(z, random_logits(seed=9), random_labels(), 3.0, 0.3),
            id="distillation",
        ),
        pytest.param(lambda z: cross_entropy(z, random_labels()), id="cross_entropy"),
        pytest.param(lambda z: margin_loss(z, random_labels()), id="margin"),
        pytest.param(lambda z: dlr_loss(z, random_labels()), id="dlr"),
    ],
)
def test_gradients_agree_with_finite_differences(function):
    assert torch.autograd.gradcheck(function, random_logits().requires_grad_())


# Errors.


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_finite_and_above_zero_is_refused(temperature):
    message = rf"^temperature must be a finite number above 0, got {temperature!r}$"
    logits = random_logits()
    for call in (
        lambda: softmax(logits, temperature),
        lambda: log_softmax(logits, temperature),
        lambda: soft_cross_entropy(logits, softmax(logits), temperature),
        lambda: distillation_loss(logits, logits, random_labels(), temperature, 0.5),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_temperature_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match=r"^temperature must be a number, got '20'$"):
        softmax(random_logits(), "20")


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_hard_label_weight_outside_the_unit_interval_is_refused(weight):
    logits = random_logits()
    with pytest.raises(ValueError, match=rf"^hard_label_weight must be in \[0, 1\], got {weight}$"):
        distillation_loss(logits, logits, random_labels(), 2.0, weight)


def test_soft_targets_of_another_shape_are_refused():
    message = r"^soft_targets must have the shape of logits \(6, 5\), got \(6, 4\)$"
    with pytest.raises(ValueError, match=message):
        soft_cross_entropy(random_logits(), random_logits(n_classes=4))


@pytest.mark.parametrize("label", [-100, -1, 5])
@pytest.mark.parametrize("loss", [cross_entropy, margin_loss, dlr_loss])
def test_a_label_that_is_no_class_is_never_passed_over(loss, label):
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        loss(random_logits(1), torch.tensor([label]))


@pytest.mark.parametrize("name", ["cross_entropy", "margin_loss", "dlr_loss", "mart_loss"])
def test_labels_of_another_length_or_dtype_are_refused(name):
    logits = torch.zeros(4, 3)
    given = (logits, logits) if name == "mart_loss" else (logits,)
    loss = getattr(functional, name)
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\)"):
        loss(*given, torch.tensor([0]))
    with pytest.raises(TypeError, match=r"labels must have dtype torch.int64, got torch.int32"):
        loss(*given, torch.zeros(4, dtype=torch.int32))


# --- the rescaled cross-entropy ------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_rescaling_refuses_a_scale_that_is_none(scale):
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        rescaled_cross_entropy(random_logits(), torch.zeros(6).long(), scale)


def test_rescaling_is_pytorchs_cross_entropy_of_logits_one_apart():
    torch.manual_seed(0)
    logits = torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(6, (50,))
    first, second = logits.detach().topk(2, dim=1).values.unbind(1)
    for scale in (0.5, 1.0, 3.0):
        losses = rescaled_cross_entropy(logits, labels, scale)
        units = (logits * (scale / (first - second))[:, None]).detach().requires_grad_()
        expected = nn.functional.cross_entropy(units, labels, reduction="none")
        torch.testing.assert_close(losses, expected)
        (found,) = torch.autograd.grad(losses.sum(), logits)
        (inner,) = torch.autograd.grad(expected.sum(), units)
        torch.testing.assert_close(found, inner * (scale / (first - second))[:, None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "logits", [[3e4, -3e4, 0.0], [1e4, 1e4, -1e4], [0.0, 0.0, 0.0], [1e-6, 0.0, -1e-6]]
)
def test_rescaling_has_a_finite_gradient_that_is_not_zero_whatever_the_logits(dtype, logits):
    inputs = torch.tensor([logits], dtype=dtype, requires_grad=True)
    losses = rescaled_cross_entropy(inputs, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(losses.sum(), inputs)
    assert bool(losses.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any())


def test_rescaling_does_not_see_a_class_that_is_ruled_out():
    logits, labels = torch.randn(20, 5), random_labels(20)
    apart = 1e-2 * logits
    masked = nn.functional.pad(apart, (0, 1), value=-1e9)
    torch.testing.assert_close(
        rescaled_cross_entropy(masked, labels), rescaled_cross_entropy(apart, labels)
    )


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_rescaling_does_not_see_a_factor_or_a_shift(factor):
    logits, labels = torch.randn(20, 5, dtype=torch.float64), random_labels(20)
    torch.testing.assert_close(
        rescaled_cross_entropy(factor * logits + 7, labels), rescaled_cross_entropy(logits, labels)
    )
