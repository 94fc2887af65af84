"""What a surrogate is asked about, taught and told of: each figure by hand or by a second route."""

from functools import partial

import pytest
import torch
from torch import nn

from distillguard.adaptive import _surrogate, distil_surrogate
from distillguard.adaptive._surrogate import _Lesson
from distillguard.networks import Rejecting


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a module or a callable"),
        ({"augmentation": "gradient"}, ValueError, "augmentation must be one of 'noise', 'jac"),
        ({"rounds": 0}, ValueError, "rounds must be at least 1"),
        ({"reach": 0.0}, ValueError, "reach must be a finite number above 0"),
        ({"max_epochs": 0}, ValueError, "max_epochs must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be a finite number above 0"),
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds must be finite with low below high"),
        ({"random_state": -1}, ValueError, "random_state must be at least 0"),
        ({"model": lambda x: x.softmax(1)}, ValueError, "model must return logits, got rows"),
        ({"student": lambda shape, n: 3}, TypeError, "student must be an nn.Module or a callable"),
    ],
)
def test_what_a_student_cannot_be_distilled_with_is_refused_by_its_name(settings, error, message):
    given = {"model": lambda x: x, "X": torch.rand(500, 2), "max_epochs": 1, **settings}
    with pytest.raises(error, match=message):
        distil_surrogate(given.pop("model"), given.pop("X"), **given)


@pytest.fixture
def planned(monkeypatch):
    """How surrogates were to be trained; none is."""
    plans = []
    monkeypatch.setattr(
        _surrogate, "train", lambda network, optimizer, none, plan, runtime: plans.append(
            (network, optimizer, plan, plan.source.first().inputs.shape)
        )
    )  # fmt: skip
    return plans


@pytest.mark.parametrize(
    ("augmentation", "rounds", "lessons"), [("noise", 3, 1), ("jacobian", 3, 4)]
)
def test_a_student_is_trained_on_all_answers_once_or_after_each_round(
    planned, augmentation, rounds, lessons
):
    def model(x):
        assert not torch.is_grad_enabled()
        return torch.cat([x, 4 * x[:, :1]], dim=1)

    X = torch.cat([torch.zeros(290, 2), torch.ones(310, 2)])
    linear = nn.Linear(2, 3)
    # The first class is said of zeros, the last of ones: each slope leads into the box.
    linear.weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]])
    student = distil_surrogate(
        model, X, augmentation=augmentation, rounds=rounds, reach=0.25, max_epochs=7, batch_size=50,
        learning_rate=0.125, random_state=3, student=linear,
    )  # fmt: skip
    assert len(planned) == lessons
    assert student.forwards == 600 * (1 + rounds)
    assert not student.training
    assert not student.network.training
    assert 0 <= student.seconds < 60
    for network, optimizer, plan, _ in planned:
        assert network is student.network
        assert optimizer.param_groups[0]["lr"] == 0.125
        assert (plan.stage, plan.parameter, plan.max_epochs) == ("surrogate", "student", 7)
        assert plan.source.batch_size == 50
        assert 0.99 < plan.weight_averaging < 1
        assert not plan.verbose
    points = planned[-1][2].source.inputs
    assert points.amin() >= 0
    assert points.amax() <= 1
    moved = points - X.repeat(1 + rounds, 1)
    assert moved.abs().max() <= 0.25 * (rounds if augmentation == "jacobian" else 1) + 1e-6
    assert moved.abs().max() > 0.2
    # Labels are the model's own, and what is learned is the softmax of its answers.
    batch = next(iter(planned[-1][2].source.in_order()))
    answers = torch.cat([batch.inputs, 4 * batch.inputs[:, :1]], dim=1)
    assert batch.labels.equal(answers.argmax(1))
    scored = planned[-1][2].objective(student.network, batch)
    logits = student.network(batch.inputs)
    expected = -(answers.softmax(1) * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(scored.losses, expected)
    assert scored.logits.equal(logits)
    agree = student(points).argmax(1) == torch.cat([points, 4 * points[:, :1]], 1).argmax(1)
    if len(points) == student.forwards:
        assert student.agreement == agree.double().mean().item()


def test_noise_around_an_example_is_to_both_sides_and_other_in_each_round(planned):
    seen = []
    distil_surrogate(
        lambda x: seen.append(x) or x, torch.full((500, 4), 0.5), rounds=2, reach=0.1,
        random_state=0,
    )  # fmt: skip
    asked = torch.cat(seen)
    noise = asked[500:].sub(0.5).div(0.1).view(2, -1)
    assert not noise[0].equal(noise[1])
    assert noise.mean().abs() < 0.05
    assert noise.square().mean().item() == pytest.approx(1 / 3, abs=0.02)
    assert noise.amax() > 0.99
    assert noise.amin() < -0.99


def test_a_student_rejects_where_its_model_does(planned):
    model = Rejecting(nn.Linear(4, 2))
    assert distil_surrogate(model, torch.rand(500, 4), rounds=1, random_state=0).rejects
    assert not distil_surrogate(nn.Linear(4, 2), torch.rand(500, 4), random_state=0).rejects


@pytest.mark.parametrize("n", [499, 500])
def test_fewer_than_five_hundred_examples_are_few(planned, n):
    learn = partial(distil_surrogate, lambda x: x, torch.rand(n, 2), random_state=0)
    if n < 500:
        with pytest.warns(UserWarning, match="X holds 499 examples"):
            learn(rounds=1)
    else:
        learn(rounds=1)


def test_answers_are_taken_in_parts_of_which_each_is_looked_at():
    sizes = []

    def model(x):
        sizes.append(len(x))
        return x / (x != 7).float()

    lesson, points = _Lesson(model, 0), torch.rand(1100, 2)
    lesson.ask(points)
    assert sizes == [512, 512, 76]
    assert lesson.logits.equal(points)
    assert (lesson.account.forwards, lesson.account.backwards) == (1100, 0)
    for place in (3, 600, 1050):
        wrong = points.clone()
        wrong[place] = 7
        with pytest.raises(ValueError, match="model must return finite logits"):
            lesson.ask(wrong)


@pytest.mark.parametrize(
    ("ranges", "unit"),
    [
        ([10.0, 10.0, 10.0], 1.0),
        ([1.0, 20.0, 900.0], 2.0),
        ([0.15] * 3, 1.0),
        ([0.05, 0.09, 9.0], None),
    ],
)
def test_the_unit_of_a_lesson_is_a_tenth_of_the_usual_range_where_there_is_one(ranges, unit):
    lesson = _Lesson(lambda x: torch.cat([x, 0 * x], dim=1), 0)
    lesson.ask(torch.tensor(ranges)[:, None])
    assert lesson.unit == unit
    assert lesson.logits.dtype == torch.float32
