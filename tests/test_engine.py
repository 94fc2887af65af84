"""The engine: full batches, every example its own way, and a model that is asked correctly."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import examples_of, query
from distillguard._batches import batches, few_sizes
from distillguard.attacks import pgd
from distillguard.attacks._checks import ModelFacts
from distillguard.attacks._engine import logits_and_gradient, logits_and_jacobian, logits_at, run
from distillguard.attacks._examples import Examples
from distillguard.attacks._losses import success_margin
from distillguard.functional import cross_entropy, margin_loss


class CountdownState(NamedTuple):
    examples: Examples
    asked: Tensor


class Countdown:
    """Asks the model about an example as often as its label says, and returns that count."""

    facts = ModelFacts()

    def start(self, examples: Examples) -> CountdownState:
        return CountdownState(examples, torch.zeros_like(examples.inputs))

    def step(self, model, state: CountdownState) -> CountdownState:
        model(state.examples, state.examples.inputs)
        return state._replace(asked=state.asked + 1)

    def done(self, state: CountdownState) -> Tensor:
        return state.asked.flatten(1)[:, 0] >= state.examples.labels

    def result(self, state: CountdownState) -> Tensor:
        return state.examples.inputs + state.asked


class Ledger(nn.Module):
    """A model of many classes that remembers the rows of each question."""

    facts = ModelFacts()

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[Tensor] = []
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        assert not self.training
        self.questions.append(inputs.detach()[:, 0].clone())
        return -self.weight * torch.arange(100).to(inputs) * inputs[:, :1]


COMMON = {
    "targeted": False,
    "bounds": (0.0, 1.0),
    "mask": None,
    "progress": False,
    "callback": None,
    "gradients": False,
}


def attack(model, lifetimes: list[int], batch_size: int, **settings):
    inputs = torch.arange(1.0, len(lifetimes) + 1)[:, None].repeat(1, 2) / 1000
    common = {**COMMON, "random_state": 0}
    labels = torch.tensor(lifetimes, dtype=torch.int64)
    adversarial = run(
        Countdown(), model, inputs, labels, batch_size=batch_size, **{**common, **settings}
    )
    return inputs, adversarial


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 8))
def test_each_example_is_asked_about_exactly_as_often_as_it_needs(lifetimes, batch_size):
    model = Ledger()
    inputs, adversarial = attack(model, lifetimes, batch_size)
    expected = inputs + torch.tensor(lifetimes, dtype=torch.float32).reshape(-1, 1)
    torch.testing.assert_close(adversarial, expected)
    asked = torch.cat([*model.questions, torch.zeros(0)])
    for row, lifetime in zip(inputs[:, 0], lifetimes, strict=True):
        assert (asked == row).sum() == lifetime


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 8))
def test_the_batch_stays_full_while_anything_waits(lifetimes, batch_size):
    model = Ledger()
    attack(model, lifetimes, batch_size)
    sizes = [len(question) for question in model.questions]
    assert max(sizes) <= batch_size
    last = torch.tensor(len(lifetimes) / 1000)
    waiting = [not torch.isclose(question, last).any() for question in model.questions]
    while_waiting = waiting.index(False)
    assert all(size == batch_size for size in sizes[:while_waiting])


def test_a_decided_example_leaves_at_once_and_the_next_takes_its_place():
    model = Ledger()
    attack(model, [3, 1, 2, 1], batch_size=2)
    rows = [[round(1000 * row) for row in question.tolist()] for question in model.questions]
    assert rows == [[1, 2], [1, 3], [1, 3], [4]]


def test_batches_of_dwindling_survivors_come_in_few_sizes():
    # Every size of batch from 100 down to 1 is asked for; 32, 64, 96 and 1 to 31 are 34 sizes.
    lifetimes = [*range(1, 100), 99]
    model = Ledger()
    attack(model, lifetimes, batch_size=100)
    sizes = {len(question) for question in model.questions}
    assert sizes <= {*range(1, 32), 32, 64, 96}
    asked = torch.cat(model.questions).mul(1000).round().long().bincount(minlength=101)[1:]
    assert asked.tolist() == lifetimes


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 64, 100])
def test_cutting_into_few_sizes_loses_nothing_and_keeps_the_order(n):
    examples = torch.arange(n)
    assert torch.equal(torch.cat(few_sizes(examples)), examples)
    assert torch.equal(torch.cat(list(batches(examples, 40))), examples)
    assert all(len(part) <= 40 for part in batches(examples, 40))


def test_a_gradient_through_several_batches_is_that_of_one(tangled):
    points = torch.rand(77, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(77) % 3
    tangled.eval()
    one = logits_and_gradient(
        query(tangled, points), examples_of(points, labels), points, cross_entropy
    )

    def in_parts(points: Tensor) -> Tensor:
        return torch.cat([tangled(part) for part in few_sizes(points)])

    for whole, cut in zip(
        one,
        logits_and_gradient(
            query(in_parts, points), examples_of(points, labels), points, cross_entropy
        ),
        strict=True,
    ):
        torch.testing.assert_close(cut, whole)


def test_the_first_answer_is_checked_and_labels_against_its_classes():
    with pytest.raises(ValueError, match=r"^labels must be classes from 0 to 99, got values in"):
        attack(Ledger(), [3, 100], batch_size=1)


def test_progress_counts_decided_examples(capsys):
    attack(Ledger(), [3, 1, 2], batch_size=2, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_without_progress_nothing_is_printed(capsys):
    attack(Ledger(), [3, 1, 2], batch_size=2)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


@pytest.mark.parametrize(
    ("weights", "asked", "answered"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float16, torch.float32),
        (torch.float32, torch.float32, torch.float32),
        (torch.float64, torch.float64, torch.float64),
    ],
)
def test_a_model_is_asked_in_its_dtype_and_answers_in_single_at_least(weights, asked, answered):
    seen = []

    class Spy(Countdown):
        def step(self, model, state: CountdownState) -> CountdownState:
            seen.append(model(state.examples, state.examples.inputs).dtype)
            return state._replace(asked=state.asked + 1)

    model, inputs = Ledger().to(weights), torch.full((1, 2), 0.5)
    adversarial = run(
        Spy(),
        model,
        inputs,
        torch.tensor([1]),
        batch_size=1,
        random_state=0,
        **COMMON,
    )
    assert model.questions[0].dtype == asked
    assert seen == [answered]
    assert adversarial.dtype == torch.float32


@pytest.mark.parametrize("inputs_dtype", [torch.bfloat16, torch.float16])
def test_points_are_held_in_single_and_asked_about_as_the_caller_gets_them(inputs_dtype):
    held = []

    class Spy(Countdown):
        def step(self, model, state: CountdownState) -> CountdownState:
            held.append(state.examples.inputs.dtype)
            model(state.examples, state.examples.inputs + 1e-3)
            return state._replace(asked=state.asked + 1)

    model, inputs = Ledger(), torch.full((1, 2), 0.7, dtype=inputs_dtype)
    adversarial = run(
        Spy(),
        model,
        inputs,
        torch.tensor([1]),
        batch_size=1,
        random_state=0,
        **COMMON,
    )
    assert held == [torch.float32]
    rounded = (inputs.float() + 1e-3).to(inputs_dtype)
    assert torch.equal(model.questions[0], rounded[:, 0].float())
    assert adversarial.dtype == inputs_dtype


def test_keys_belong_to_the_example_and_the_seed():
    keys = {}

    class Keys(Countdown):
        def result(self, state: CountdownState) -> Tensor:
            x, keys_of = state.examples.inputs, state.examples.keys
            keys.update(zip(*(part.tolist() for part in (x[:, 0], keys_of)), strict=True))
            return x

    def collect(order: list[int], batch_size: int, seed: int) -> dict[float, int]:
        keys.clear()
        inputs = torch.tensor(order)[:, None] / 10
        run(
            Keys(),
            Ledger(),
            inputs,
            torch.ones(len(order), dtype=torch.int64),
            batch_size=batch_size,
            random_state=seed,
            **COMMON,
        )
        return dict(keys)

    first = collect([1, 2, 3, 4], 2, 0)
    assert collect([3, 1, 4, 2], 3, 0) == first
    assert len(set(first.values())) == 4
    assert not set(collect([1, 2, 3, 4], 2, 1).values()) & set(first.values())


# Gradients.


def quadratic(points: Tensor) -> Tensor:
    flat = points.flatten(1)
    return torch.stack([(flat**2).sum(dim=1), flat.sum(dim=1), flat[:, 0]], dim=1)


def test_the_gradient_of_each_example_is_its_own_and_not_an_average():
    points, labels = torch.tensor([[0.5, 0.25], [0.5, 0.25]]).double(), torch.tensor([1, 1])
    # The margin of label 1 there: the best wrong logit is points[:, 0].
    logits, gradient = logits_and_gradient(
        query(quadratic, points), examples_of(points, labels), points, margin_loss
    )
    assert gradient.tolist() == [[0.0, -1.0], [0.0, -1.0]]
    assert logits.tolist() == [[0.3125, 0.75, 0.5]] * 2
    assert not logits.requires_grad
    assert not gradient.requires_grad
    assert not points.requires_grad


def test_a_jacobian_is_one_gradient_per_output():
    points, labels = torch.tensor([[0.5, 0.25]]).double(), torch.tensor([1])
    _, jacobian = logits_and_jacobian(
        query(quadratic, points), examples_of(points, labels), points, lambda logits, labels: logits
    )
    assert jacobian.tolist() == [[[1.0, 0.5], [1.0, 1.0], [1.0, 0.0]]]


def test_gradients_of_a_network_agree_with_finite_differences(tangled):
    tangled.eval()
    points = torch.rand(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    _, gradient = logits_and_gradient(
        query(tangled, points), examples_of(points, labels), points, cross_entropy
    )
    for pixel in range(12):
        nudge = torch.zeros(12, dtype=torch.float64)
        nudge[pixel] = 1e-6
        up, down = (cross_entropy(tangled(points + sign * nudge), labels) for sign in (1, -1))
        torch.testing.assert_close(
            gradient[:, pixel], ((up - down) / 2e-6).detach(), rtol=1e-5, atol=1e-8
        )


def test_a_value_alone_leaves_no_graph(tangled):
    points = torch.rand(3, 12, dtype=torch.float64, requires_grad=True)
    assert not logits_at(
        query(tangled.eval(), points), examples_of(points.detach()), points
    ).requires_grad


# Relations between attacks on the engine.


def test_early_stop_spares_the_model_what_is_decided(tangled):
    inputs = torch.rand(30, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = tangled.decided(inputs)
    questions = []

    def count(points: Tensor) -> Tensor:
        questions.append(len(points))
        return tangled(points)

    count.facts = ModelFacts()
    tangled.eval()
    spent, fooled = [], []
    for early_stop in (True, False):
        questions.clear()
        adversarial = pgd(
            count, inputs, labels, epsilon=0.15, steps=20, early_stop=early_stop, random_state=0
        )
        spent.append(sum(questions))
        fooled.append(tangled(adversarial).argmax(dim=1) != labels)
    assert torch.equal(*fooled)
    assert spent[1] == 30 * 21
    assert spent[0] >= 21 * int((~fooled[0]).sum())
    assert spent[0] < 0.6 * spent[1]


@pytest.mark.parametrize("targeted", [False, True])
def test_a_success_exceeds_the_models_rounding_of_its_largest_logit_of_either_sign(targeted):
    logits = torch.tensor([[-8.0, -7.0], [-8.0, -4.0], [6.0, 8.0], [1.0, 8.0]])
    examples = examples_of(torch.zeros(4, 1))._replace(rounding=torch.full((4,), 0.25))
    margins = [-1.0, -4.0, -2.0, -7.0] if targeted else [1.0, 4.0, 2.0, 7.0]
    expected = torch.tensor(margins) - 0.25 * 8
    assert torch.equal(success_margin(logits, examples, targeted), expected)
