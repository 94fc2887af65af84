"""One rule for every model that may refuse to answer: only another real class fools it."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from distillguard import adaptive, attacks, evaluate, functional, networks
from distillguard._rejection import rejects


@st.composite
def answers(draw):
    """Logits of 2 to 6 classes with a column of rejection, and labels."""
    n, n_classes = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    values = st.floats(-1e3, 1e3, width=32)
    logits = draw(arrays.arrays("float32", (n, n_classes + 1), elements=values))
    labels = draw(arrays.arrays("int64", n, elements=st.integers(0, n_classes - 1)))
    return logits, labels


@given(answers())
def test_the_margin_is_the_best_other_class_less_the_larger_of_truth_and_rejection(drawn):
    logits, labels = drawn
    merged = functional.merge_rejection(*map(torch.from_numpy, drawn))
    expected = [
        max(z for i, z in enumerate(row[:-1]) if i != label) - max(row[label], row[-1])
        for row, label in zip(logits, labels, strict=True)
    ]
    found = functional.margin_loss(merged, torch.from_numpy(labels))
    np.testing.assert_array_equal(found.numpy(), np.array(expected, dtype="float32"))


@given(answers())
def test_what_fools_is_answered_with_a_class_that_is_neither_true_nor_rejection(drawn):
    logits, labels = drawn
    merged = functional.merge_rejection(*map(torch.from_numpy, drawn))
    ordered = np.sort(logits, axis=1)
    clear = ordered[:, -1] > ordered[:, -2]
    answer = logits.argmax(axis=1)
    fooled = (answer != labels) & (answer != logits.shape[1] - 1)
    found = (merged.argmax(dim=1).numpy() != labels)[clear]
    np.testing.assert_array_equal(found, fooled[clear])


def test_two_columns_are_too_few_for_a_rejection():
    with pytest.raises(ValueError, match="logits must have a last column for rejection"):
        functional.merge_rejection(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))


class Wary(nn.Module):
    """Three classes by a linear map, and rejection of every point near a boundary."""

    rejects = True

    def __init__(self, lead: float = 0.15) -> None:
        super().__init__()
        self.lead = lead
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(3, 8, generator=generator)

    def forward(self, inputs):
        logits = (inputs.flatten(1) - 0.5) @ self.weight.to(inputs).T
        second = logits.topk(2, dim=1).values[:, 1]
        return torch.cat([logits, (second + self.lead)[:, None]], dim=1)


@pytest.fixture(scope="module")
def wary():
    """A model, and inputs that it answers rightly with any lead up to 1."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(400, 8, generator=generator)
    model = Wary()
    logits = model(inputs)[:, :3]
    best, second = logits.topk(2, dim=1).values.unbind(dim=1)
    clear = best - second > 0.3
    return model, inputs[clear][:40], logits.argmax(dim=1)[clear][:40]


ATTACKS = {
    "fgsm": partial(attacks.fgsm, epsilon=0.3, loss="margin"),
    "pgd on the margin": partial(attacks.pgd, epsilon=0.3, loss="margin", random_state=0),
    "pgd on the cross-entropy": partial(attacks.pgd, epsilon=0.3, random_state=0),
    "apgd": partial(attacks.apgd, epsilon=0.3, random_state=0),
    "apgd_targeted": partial(attacks.apgd_targeted, epsilon=0.3, random_state=0),
    "fab_targeted": partial(attacks.fab_targeted, random_state=0),
    "square": partial(attacks.square, epsilon=0.3, random_state=0),
    "carlini_wagner_l2": attacks.carlini_wagner_l2,
    "carlini_wagner_linf": attacks.carlini_wagner_linf,
    "carlini_wagner_l0": attacks.carlini_wagner_l0,
    "ddn": attacks.ddn,
    "fmn": attacks.fmn,
    "deepfool": attacks.deepfool,
    "jsma": attacks.jsma,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_goes_past_rejection_to_another_class(wary, name):
    model, inputs, labels = wary
    answer = model(ATTACKS[name](model, inputs, labels)).argmax(dim=1)
    changed = answer != labels
    fooled = changed & (answer != 3)
    assert fooled.double().mean() > 0.5


def test_an_attack_that_takes_rejection_for_success_is_not_believed(wary):
    model, inputs, labels = wary
    logits = model(inputs)
    rival = logits[:, :3].scatter(1, labels[:, None], -torch.inf).argmax(dim=1)

    def to_the_boundary(model, inputs, labels):
        direction = model.model.weight[rival] - model.model.weight[labels]
        lead = (logits.gather(1, labels[:, None]) - logits.gather(1, rival[:, None])).squeeze(1)
        step = lead / direction.square().sum(dim=1)
        return (inputs + step[:, None] * direction).clamp(0, 1)

    kinds = {"boundary": to_the_boundary}
    report = evaluate(model, inputs, labels, epsilon=1.0, attacks=kinds, diagnosis=None)
    assert report.clean_accuracy == 1.0
    assert report.robust_accuracy == 1.0


def test_a_clean_example_that_is_rejected_is_an_error(wary):
    _, inputs, labels = wary
    cautious = Wary(lead=100.0)
    kinds = {"nothing": lambda model, inputs, labels: inputs}
    report = evaluate(cautious, inputs, labels, epsilon=0.1, attacks=kinds, diagnosis=None)
    assert report.clean_accuracy == report.robust_accuracy == 0.0
    assert set(report.per_example.predicted) == {3}


def test_the_whole_evaluation_finds_the_closed_form_of_a_linear_model(wary):
    model, inputs, labels = wary
    epsilon = 0.1
    logits = model(inputs)[:, :3]
    gaps = model.weight[None] - model.weight[labels][:, None]
    reach = logits - logits.gather(1, labels[:, None]) + epsilon * gaps.abs().sum(dim=2)
    reach = reach.scatter(1, labels[:, None], -torch.inf)
    # The strongest rival alone decides: no third class comes near it at these inputs.
    fooled = reach.amax(dim=1) > model.lead
    assert 5 < fooled.sum() < 35
    report = evaluate(
        model,
        inputs,
        labels,
        epsilon=epsilon,
        bounds=(-1.0, 2.0),
        random_state=0,
        diagnosis=None,
    )
    assert report.n_robust == int((~fooled).sum())


def test_a_label_may_not_be_rejection(wary):
    model, inputs, labels = wary
    with pytest.raises(ValueError, match="labels must be classes from 0 to 2, got values in"):
        attacks.fgsm(model, inputs, torch.full_like(labels, 3), epsilon=0.1)
    with pytest.raises(ValueError, match="y must be classes from 0 to 2, got values in"):
        evaluate(model, inputs, torch.full_like(labels, 3), epsilon=0.1)


def test_a_target_is_reached_where_it_is_above_rejection_too(wary):
    model, inputs, labels = wary
    target = (labels + 1) % 3
    found = attacks.pgd(
        model, inputs, target, epsilon=0.4, loss="margin", targeted=True, random_state=0
    )
    answer = model(found).argmax(dim=1)
    assert (answer == target).double().mean() > 0.5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: adaptive.averaged(model, 2),
        lambda model: adaptive.gradient_from(model, model),
        lambda model: adaptive.straight_through(nn.Sequential(nn.Identity(), model), part="0"),
        lambda model: networks.Normalized(model, 0.0, 1.0),
        lambda model: nn.Sequential(nn.Flatten(), model),
    ],
)
def test_a_wrapper_rejects_where_its_model_does(wary, wrap):
    model, inputs, labels = wary
    assert rejects(wrap(model))
    assert not rejects(wrap(nn.Linear(8, 3)))
    bare = attacks.fgsm(model, inputs, labels, epsilon=0.3, loss="margin")
    wrapped = attacks.fgsm(wrap(model), inputs, labels, epsilon=0.3, loss="margin")
    assert torch.allclose(bare, wrapped, atol=1e-6)


def test_a_student_of_a_model_that_rejects_has_its_last_column_for_rejection(wary):
    model, inputs = wary[0], torch.rand(500, 8)
    settings = {"max_epochs": 1, "rounds": 1, "random_state": 0}
    assert rejects(adaptive.distil_surrogate(model, inputs, **settings))
    assert not rejects(adaptive.distil_surrogate(nn.Linear(8, 3), inputs, **settings))
