"""What the forms are made from in which an evaluation attacks a model again."""

import pytest
import torch
from torch import nn

from distillguard._data import Spec, examples
from distillguard._geometry import lp_norm
from distillguard._processes import ALONE
from distillguard._random import example_keys
from distillguard.evaluation import _adapted_forms
from distillguard.evaluation._adaptation import Campaign, attempted
from distillguard.evaluation._adapted_forms import (
    PLAIN,
    Subject,
    along_student,
    answered_at_hand,
    climbs,
    labelled,
    points_around,
    spread,
)
from distillguard.evaluation._adapted_remedies import forms_for
from distillguard.evaluation._captions import Captions
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._query import QueryCounter
from distillguard.evaluation._records import Records
from distillguard.evaluation._run import Run
from distillguard.evaluation.diagnosis._findings import Finding

COLUMNS = 400


@pytest.fixture
def inputs():
    return torch.rand(20, COLUMNS, generator=torch.Generator().manual_seed(0))


def told_apart(x):
    """A class and nothing else: whether the values are more than a half on average."""
    return nn.functional.one_hot((x.mean(dim=1) > 0.5).long(), 3).float()


def subject_of(inputs, threat, model=told_apart, labels=None, **settings):
    labels = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else labels
    places, records = torch.arange(len(inputs)), Records()
    records.add({"label": labels, "predicted": model(inputs).argmax(dim=1)})
    records.sample.add(example_keys(inputs, 0), inputs=inputs, labels=labels, index=places)
    captions = Captions.of(None, None, None, None, False)
    run = Run(QueryCounter(model), {}, threat, True, 64, 0, records, Spec(), captions)
    settings = {"random": False, **settings}
    return Subject(run, examples(inputs, labels), 7, None, ALONE, **settings)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_noise_is_about_as_long_as_the_radius(norm, inputs):
    subject = subject_of(inputs, ThreatModel(norm, 0.3, (0.0, 1.0)))
    noise = spread(subject) * (2 * torch.rand(2000, COLUMNS) - 1)
    assert lp_norm(noise, norm).mean().item() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_points_to_learn_from_are_the_examples_and_points_of_the_box_around_them(norm, inputs):
    threat = ThreatModel(norm, 9 if norm == "l0" else 0.9, (0.0, 1.0))
    points = points_around(subject_of(inputs, threat))
    assert torch.equal(points[: len(inputs)], inputs)
    others = points[len(inputs) :]
    assert len(points) == _adapted_forms.QUESTIONS
    assert bool((others >= 0).all())
    assert bool((others <= 1).all())
    assert bool((others != inputs.repeat(len(others) // len(inputs), 1)).any(dim=1).all())


def test_examples_to_go_towards_are_of_the_classes_that_the_model_puts_them_in(inputs):
    subject = subject_of(inputs, ThreatModel("linf", 0.1, (0.0, 1.0)))
    goals, classes = answered_at_hand(subject)
    assert torch.equal(goals, inputs)
    assert torch.equal(classes, told_apart(inputs).argmax(dim=1))
    assert len(classes.unique()) == 2  # where the labels know but one


def test_a_model_that_tells_the_class_alone_is_searched_by_it_unless_it_is_random(inputs):
    threat = ThreatModel("linf", 0.1, (0.0, 1.0))
    assert labelled(subject_of(inputs, threat)) is told_apart
    assert labelled(subject_of(inputs, threat, random=True)) is None
    assert labelled(subject_of(inputs, threat._replace(norm="l2"))) is None
    assert labelled(subject_of(inputs, threat, model=lambda x: x[:, :3])) is None


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_on_a_mean_over_draws_go_on_after_a_success(norm, inputs):
    """The next mean may not be fooled by what just fooled this one."""
    threat, asked = ThreatModel(norm, 0.1, (0.0, 1.0)), []

    def fooled(x):
        asked.append(len(x))
        return x.sum(dim=1, keepdim=True) * torch.tensor([0.0, 1.0])

    labels = torch.zeros(len(inputs), dtype=torch.int64)
    for random in (False, True):
        for attack in climbs(subject_of(inputs, threat, random=random)).values():
            asked.clear()
            attack(fooled, inputs, labels)
            assert (sum(asked) > 20 * len(inputs)) == random


def test_a_student_learns_around_the_examples_as_far_as_the_widest_bounds_have_it(
    inputs, monkeypatch
):
    """Its noise is given as a share of each coordinate's width."""
    told = {}

    def distilled(model, inputs, **settings):
        told.update(settings)
        raise StopIteration

    monkeypatch.setattr(_adapted_forms, "distil_surrogate", distilled)
    high = torch.linspace(1, 4, COLUMNS)
    subject = subject_of(inputs, ThreatModel("linf", 0.5, (torch.zeros(COLUMNS), high)))
    with pytest.raises(StopIteration):
        along_student(subject)
    assert told["reach"] * 4 == pytest.approx(0.5)
    assert told["rounds"] * len(inputs) == _adapted_forms.QUESTIONS


@pytest.mark.parametrize(("scaled", "more"), [(0.1, False), (0.39, False), (0.6, True)])
def test_zero_gradients_that_a_scale_brings_back_need_no_other_way(scaled, more, inputs):
    """Where most of them come back, the logits have a gradient; where most do not, none."""
    figures = {"share": 0.8, "share_scaled": scaled}
    finding = Finding("zero-gradients", "severe", "", "", "", figures)
    run = subject_of(inputs, ThreatModel("linf", 0.1, (0.0, 1.0))).run
    forms = forms_for(finding, run)
    assert forms[0] is PLAIN
    assert (len(forms) > 1) == more


def everywhere(inputs):
    return torch.ones(len(inputs), dtype=torch.bool)


def test_all_examples_count_that_any_adapted_attack_ran_on(inputs):
    model = lambda x: torch.stack([x[:, 0] - 0.5, 0 * x[:, 0]], dim=1)  # noqa: E731
    given = inputs.clone()
    given[:, 0] = torch.linspace(0.6, 0.9, 20)
    subject = subject_of(given, ThreatModel("linf", 0.25, (0.0, 1.0)), model)
    campaign = Campaign(subject, everywhere(given), [])
    darker = lambda model, x, y: (x - 0.25).clamp(min=0)  # noqa: E731
    campaign.run("darker", darker, model)
    campaign.run("darker again", darker, model)
    told = campaign.outcome(("a",))
    fell = int((given[:, 0] < 0.75).sum())
    assert 0 < fell < 20
    assert (told.standing, told.attacked, told.fooled) == (20, 20, fell)
    assert [row.attacked for row in told.attacks] == [20, 20 - fell]


def test_an_adapted_attack_that_raises_is_told_of_with_its_error(inputs):
    subject = subject_of(inputs, ThreatModel("linf", 0.1, (0.0, 1.0)))
    campaign = Campaign(subject, everywhere(inputs), [])

    def torn(model, x, y):
        raise ValueError("no such thing")

    campaign.run("torn", torn, told_apart)
    (row,) = campaign.outcome(("a",)).attacks
    assert "no such thing" in row.error
    assert row.fooled == 0


def test_a_random_model_is_judged_by_means_over_draws_that_no_attack_has_seen(inputs):
    drawn = []

    def noisy(x):
        drawn.append(torch.rand(()).item())
        return told_apart(x) + drawn[-1]

    subject = subject_of(inputs, ThreatModel("linf", 0.1, (0.0, 1.0)), noisy, random=True)
    subject.chunk_size = 20
    model = subject.steady(subject.base)

    def asks(model, x, y):
        drawn.clear()
        model(x)
        return x

    attempted(subject, "asks", asks, model, everywhere(inputs))
    seen, judged = drawn[: _adapted_forms.DRAWS], drawn[_adapted_forms.DRAWS :]
    assert len(seen) == len(judged) == _adapted_forms.DRAWS
    assert not set(seen) & set(judged)
