"""What every attack promises. One table: adding an attack is adding a row."""

import inspect
import random
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Halfspace, Tangled
from distillguard import attacks
from distillguard._geometry import lp_norm
from distillguard.attacks._checks import ModelFacts
from distillguard.exceptions import NoGradientError
from distillguard.functional import margin_loss
from distillguard.testing import check_attack

LOSSES = ("cross_entropy", "margin", "dlr", "rescaled_cross_entropy")


class Row(NamedTuple):
    """An attack with settings that are quick on twelve pixels."""

    name: str
    attack: Callable[..., Tensor]
    settings: dict[str, Any]
    norms: tuple[str, ...]
    """What a budget attack takes as ``norm``; what a minimum-distance attack minimises."""
    budget: bool = True
    losses: tuple[str | None, ...] = (None,)
    takes_norm: bool = True
    gradients: bool = True
    draws: bool = False
    """Whether it draws random numbers of its own."""
    shortest: Mapping[str, Any] = MappingProxyType({})
    """Over ``settings``: the smallest effort that the attack accepts."""
    strong: Mapping[str, Any] = MappingProxyType({})
    """Over ``settings``: what it takes to do what can be done."""
    reach: float = 0.9
    """Share of a budget within which it fools all that can be fooled."""
    slack: float = 1.05
    """How far above the closed form a smallest perturbation may lie, as a ratio."""
    from_bounds: bool = True
    """Whether a few steps take it away from exact zeros and ones."""


SQUARE = {"queries": 20}
BLIND: dict[str, Any] = {"gradients": False, "draws": True, "shortest": {"queries": 2}}
SALIENT: dict[str, Any] = {
    "norms": ("l0",),
    "budget": False,
    "takes_norm": False,
    "shortest": {"max_features": 2},
    "slack": 2.0,
}

TABLE = [
    Row("fgsm", attacks.fgsm, {}, ("linf", "l2", "l1"), losses=LOSSES),
    Row(
        "pgd-from-input",
        attacks.pgd,
        {"steps": 8, "random_start": False},
        ("linf", "l2", "l1"),
        losses=LOSSES,
        shortest={"steps": 1},
    ),
    Row(
        "pgd",
        attacks.pgd,
        {"steps": 8},
        ("linf", "l2", "l1"),
        losses=LOSSES,
        draws=True,
        strong={"steps": 12},
        shortest={"steps": 1},
    ),
    Row("pgd-restarts", attacks.pgd, {"steps": 8, "restarts": 3}, ("linf",), draws=True),
    Row(
        "pgd-blocks",
        attacks.pgd,
        {"steps": 8, "restarts": 3, "random_start": "blocks", "step_decay": True},
        ("linf", "l2", "l1"),
        draws=True,
        strong={"steps": 12},
    ),
    Row("pgd-momentum", attacks.pgd, {"steps": 10, "momentum": 1.0}, ("linf",), draws=True),
    Row("pgd-to-the-end", attacks.pgd, {"steps": 10, "early_stop": False}, ("l2",), draws=True),
    Row(
        "apgd",
        attacks.apgd,
        {"steps": 8},
        ("linf", "l2"),
        losses=LOSSES,
        draws=True,
        shortest={"steps": 1},
    ),
    Row(
        "apgd-l1",
        attacks.apgd,
        {"steps": 12},
        ("l1",),
        losses=LOSSES,
        draws=True,
        shortest={"steps": 1},
        strong={"steps": 40},
    ),
    Row(
        "apgd_targeted",
        attacks.apgd_targeted,
        {"steps": 6},
        ("linf", "l2"),
        draws=True,
        shortest={"steps": 1, "n_targets": 1},
    ),
    Row(
        "apgd_targeted-l1",
        attacks.apgd_targeted,
        {"steps": 10},
        ("l1",),
        draws=True,
        shortest={"steps": 1, "n_targets": 1},
        strong={"steps": 40},
    ),
    Row(
        "pgd-l0",
        attacks.pgd,
        {"steps": 8},
        ("l0", "l0_pixels"),
        losses=LOSSES,
        draws=True,
        strong={"steps": 40},
        shortest={"steps": 1},
    ),
    Row(
        "sparse_rs",
        attacks.sparse_rs,
        {"queries": 20},
        ("l0", "l0_pixels"),
        **BLIND,
        strong={"queries": 300},
    ),
    Row(
        "guided_sparse_rs",
        attacks.guided_sparse_rs,
        {"steps": 20},
        ("l0", "l0_pixels"),
        draws=True,
        shortest={"steps": 1},
        strong={"steps": 100},
    ),
    Row(
        "sigma_zero",
        attacks.sigma_zero,
        {"steps": 20},
        ("l0", "l0_pixels"),
        budget=False,
        shortest={"steps": 1},
        strong={"steps": 200},
    ),
    Row("square-linf", attacks.square, SQUARE, ("linf",), **BLIND, strong={"queries": 100}),
    Row(
        "rays",
        attacks.rays,
        {"queries": 40},
        ("linf",),
        takes_norm=False,
        gradients=False,
        shortest={"queries": 3},
        strong={"queries": 300},
    ),
    # Its l2 pattern has little to choose from on a dozen pixels, and stalls in local maxima.
    Row(
        "square-l2",
        attacks.square,
        SQUARE,
        ("l2",),
        **BLIND,
        strong={"queries": 40, "restarts": 5},
        reach=0.55,
    ),
    Row(
        "square-l1",
        attacks.square,
        SQUARE,
        ("l1",),
        **BLIND,
        strong={"queries": 40, "restarts": 5},
        reach=0.3,
    ),
    Row(
        "fab_targeted",
        attacks.fab_targeted,
        {"steps": 4, "n_targets": 2},
        ("linf", "l2", "l1"),
        budget=False,
        shortest={"steps": 1, "n_targets": 1},
        strong={"steps": 15},
    ),
    Row(
        "deepfool",
        attacks.deepfool,
        {"steps": 8},
        ("linf", "l2"),
        budget=False,
        shortest={"steps": 1},
        strong={"steps": 50},
    ),
    Row(
        "ddn",
        attacks.ddn,
        {"steps": 20},
        ("l2",),
        budget=False,
        takes_norm=False,
        shortest={"steps": 1},
        strong={"steps": 100, "initial_norm": 0.1},
    ),
    Row(
        "fmn",
        attacks.fmn,
        {"steps": 20},
        ("linf", "l2", "l1"),
        budget=False,
        shortest={"steps": 1},
        strong={"steps": 100},
    ),
    Row(
        "carlini_wagner_l2",
        attacks.carlini_wagner_l2,
        {"steps": 20},
        ("l2",),
        budget=False,
        takes_norm=False,
        shortest={"steps": 1},
        strong={"steps": 100},
    ),
    Row(
        "carlini_wagner_linf",
        attacks.carlini_wagner_linf,
        {"steps": 20},
        ("linf",),
        budget=False,
        takes_norm=False,
        shortest={"steps": 1},
        strong={"steps": 100},
    ),
    Row(
        "carlini_wagner_l0",
        attacks.carlini_wagner_l0,
        {"steps": 20},
        ("l0",),
        budget=False,
        takes_norm=False,
        shortest={"steps": 1},
        strong={"steps": 200},
    ),
    # Their step does not shrink, and some distances are below it. Bounds lie at infinity: that
    # pixels leave them is tested in test_carlini_wagner_paper.py.
    Row(
        "carlini_wagner_l2-paper",
        attacks.carlini_wagner_l2,
        {"algorithm": "paper", "steps": 30},
        ("l2",),
        budget=False,
        takes_norm=False,
        shortest={"steps": 1},
        slack=2.6,
        from_bounds=False,
    ),
    Row(
        "carlini_wagner_linf-paper",
        attacks.carlini_wagner_linf,
        {"algorithm": "paper", "steps": 4},
        ("linf",),
        budget=False,
        takes_norm=False,
        shortest={"steps": 1},
        strong={"steps": 10},
        slack=1.35,
        from_bounds=False,
    ),
    Row(
        "carlini_wagner_l0-paper",
        attacks.carlini_wagner_l0,
        {"algorithm": "paper", "steps": 2},
        ("l0",),
        budget=False,
        takes_norm=False,
        shortest={"steps": 1},
        strong={"steps": 10},
    ),
    # Pixels go two at a time: where one is enough it takes two.
    Row("jsma-softmax", attacks.jsma, {"change": "both"}, **SALIENT),
    Row("jsma-logits", attacks.jsma, {"change": "both", "saliency": "logits"}, **SALIENT),
]


def contributed() -> Row:
    """The attack and the row that CONTRIBUTING.md shows, as it shows them."""
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    attack, row = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {"Row": Row, "__name__": "contributed"}
    exec(compile(attack, "CONTRIBUTING.md", "exec"), names)
    written: Row = eval(row, names)
    return written._replace(shortest={"tries": 2}, strong={"tries": 300})


TABLE.append(contributed())

EPSILON = {"linf": 0.1, "l2": 0.3, "l1": 0.7, "l0": 2, "l0_pixels": 2}
"""Budgets that fool the tangled network on some examples and not on others."""


class Case(NamedTuple):
    row: Row
    norm: str
    loss: str | None

    def __call__(
        self, model: Any, inputs: Tensor, labels: Tensor, effort: str = "settings", **more: Any
    ) -> Tensor:
        settings = {**self.row.settings, **getattr(self.row, effort)}
        if self.row.takes_norm:
            settings["norm"] = self.norm
        if self.row.budget:
            settings["epsilon"] = EPSILON[self.norm]
        if self.loss is not None:
            settings["loss"] = self.loss
        return self.row.attack(model, inputs, labels, **{"random_state": 0, **settings, **more})

    def briefly(self, model: Any, inputs: Tensor, labels: Tensor, **more: Any) -> Tensor:
        """The smallest effort: for promises that do not depend on what an attack finds."""
        return self(model, inputs, labels, "shortest", **more)


def cases(every_loss: bool = False, **wanted: bool) -> list[Any]:
    """One pytest parameter per attack, norm and, if asked for, loss."""
    return [
        pytest.param(Case(row, norm, loss), id="-".join(filter(None, [row.name, norm, loss])))
        for row in TABLE
        if all(getattr(row, key) == value for key, value in wanted.items())
        for norm in row.norms
        for loss in (row.losses if every_loss else row.losses[:1])
    ]


def is_first_norm(case: Case) -> bool:
    return case.norm == case.row.norms[0]


each_case = pytest.mark.parametrize("case", cases())
each_case_and_loss = pytest.mark.parametrize("case", cases(every_loss=True))
each_rank = pytest.mark.parametrize("shape", [(12,), (2, 3, 2)], ids=str)


def pixels(
    n: int, shape: tuple[int, ...] = (1, 3, 4), seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Images of every grey, one black and one white among them, and black and white pixels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, *shape, generator=generator, dtype=torch.float64)
    images[1::4] = images[1::4].round()
    images[2:3], images[3:4] = 0, 1
    return images.to(dtype)


def misclassified(model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    modes = {part: part.training for part in model.modules()}
    logits = model.eval()(inputs)
    for part, training in modes.items():
        part.training = training
    return margin_loss(logits, labels) > 0


@pytest.mark.parametrize("case", [case for case in cases() if is_first_norm(case.values[0])])
def test_keeps_every_promise_that_users_can_test(case):
    row = case.row
    settings = {**row.settings, **row.shortest}
    settings |= {"norm": case.norm} if row.takes_norm else {}
    settings |= {"epsilon": EPSILON[case.norm]} if row.budget else {}
    # How much it finds follows with the closed forms, at an effort that finds it.
    attack = partial(row.attack, **settings)
    check_attack(attack, norm=case.norm, skip=("fools", "targeted"))


# The closed form: what the dual norm of a half-space says can be fooled, and nothing else.


def check_closed_form(halfspace: Halfspace, inputs: Tensor, labels: Tensor, case: Case) -> None:
    bounds = (-10.0, 10.0)
    if case.norm.startswith("l0"):
        # How many it takes follows from the bounds, and here from how deep in its class one is.
        signed = halfspace.signed_distance(inputs).detach().sign()[:, None]
        depth = 0.02 * torch.arange(len(inputs), dtype=torch.float64)[:, None]
        deeper = inputs.flatten(1) + depth * signed * halfspace.w.detach().sign()
        inputs, bounds = deeper.clamp(0, 1).view_as(inputs), (0.0, 1.0)
    least = least_distance(halfspace, inputs, case.norm)
    epsilon = least.quantile(0.5, interpolation="lower").item()

    adversarial = case(halfspace, inputs, labels, "strong", epsilon=epsilon, bounds=bounds)

    fooled = halfspace(adversarial).argmax(dim=1) != labels
    reach = 1.0 if case.norm.startswith("l0") else case.row.reach
    assert fooled[least <= reach * epsilon].all()
    assert not fooled[least > 1.001 * epsilon].any()
    assert fooled.any()
    assert not fooled.all()


@pytest.mark.parametrize("case", cases(every_loss=True, budget=True))
def test_fools_what_the_budget_reaches_and_nothing_else(halfspace, examples, case):
    check_closed_form(halfspace, *examples(12), case)


@pytest.mark.parametrize("case", cases(budget=True))
@each_rank
def test_attacks_examples_of_any_number_of_axes(halfspace, examples, case, shape):
    check_closed_form(halfspace, *examples(12, shape=shape), case)


def fewest(halfspace: Halfspace, inputs: Tensor, norm: str) -> Tensor:
    """How many values, or pixels, must go to a bound before the sign changes: the best first."""
    signed = halfspace.signed_distance(inputs).detach()
    towards = -signed.sign()[:, None] * halfspace.w.detach()
    room = torch.where(towards > 0, 1 - inputs.flatten(1), inputs.flatten(1))
    gains = towards.abs() * room
    if norm == "l0_pixels" and inputs.ndim == 4:
        gains = gains.view(inputs.shape).sum(dim=1).flatten(1)
    gains = gains.sort(dim=1, descending=True).values.cumsum(dim=1)
    return (gains <= signed.abs()[:, None]).sum(dim=1) + 1


def least_distance(halfspace: Halfspace, inputs: Tensor, norm: str) -> Tensor:
    """The closed form in every norm."""
    if norm.startswith("l0"):
        return fewest(halfspace, inputs, norm).double()
    return halfspace.least_epsilon(inputs, norm)


@pytest.mark.parametrize("case", cases(budget=False))
@each_rank
def test_finds_nearly_the_smallest_perturbation_and_none_smaller(halfspace, examples, case, shape):
    inputs, labels = examples(8, shape=shape)
    least = least_distance(halfspace, inputs, case.norm)

    adversarial = case(halfspace, inputs, labels, "strong")

    distance = lp_norm(adversarial - inputs, case.norm)
    assert (halfspace(adversarial).argmax(dim=1) != labels).all()
    assert (distance >= least * (1 - 1e-9)).all()
    assert (distance <= least * case.row.slack).all()


# Bounds, budgets and what comes back.


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_stays_within_bounds_exactly_and_within_epsilon_up_to_rounding(tangled, case, dtype):
    inputs = pixels(10, dtype=dtype)
    model = tangled.to(dtype)
    labels = tangled.decided(inputs)

    adversarial = case(model, inputs, labels)

    assert adversarial.shape == inputs.shape
    assert adversarial.dtype == dtype
    assert adversarial.isfinite().all()
    assert (adversarial >= 0).all()
    assert (adversarial <= 1).all()
    if case.row.budget:
        delta = adversarial.double() - inputs.double()
        # Each of the twelve pixels is rounded once, by half a unit in the last place of 1.
        share = {"linf": 1.0, "l2": 12**0.5, "l1": 12.0}.get(case.norm, 0.0)
        rounding = share * torch.finfo(dtype).eps
        assert (lp_norm(delta, case.norm) <= EPSILON[case.norm] + rounding).all()


@each_case
def test_keeps_to_bounds_other_than_zero_and_one(tangled, case):
    inputs = 3 * pixels(10, dtype=torch.float32) - 2.9
    labels = tangled.float().decided(inputs)
    adversarial = case(tangled, inputs, labels, bounds=(-2.9, 0.1))
    limits = torch.tensor([-2.9, 0.1])
    assert (adversarial >= limits[0]).all()
    assert (adversarial <= limits[1]).all()
    assert (adversarial != inputs).any()
    # What one attack returns another takes: 0.1 in float32 is more than 0.1 in float64.
    case(tangled, adversarial, labels, bounds=(-2.9, 0.1))


@each_case
def test_changes_neither_inputs_nor_labels_and_shares_no_memory_with_them(tangled, case):
    inputs = pixels(6)
    labels = tangled.decided(inputs)
    before = inputs.clone(), labels.clone()
    case.briefly(tangled, inputs, labels).fill_(7)
    assert torch.equal(inputs, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("case", cases(budget=False))
def test_a_minimum_distance_attack_returns_what_it_cannot_fool_unchanged(case):
    model = Halfspace(scale=1.0)
    with torch.no_grad():
        model.b.fill_(100.0)
    inputs = pixels(6)
    labels = torch.ones(6, dtype=torch.int64)
    assert torch.equal(case(model, inputs, labels), inputs)


class Shelf(nn.Module):
    """Class 0 by its lead where the inputs are bright; a tie, which class 0 wins, elsewhere."""

    def forward(self, inputs: Tensor) -> Tensor:
        lead = (inputs.flatten(1).mean(dim=1) - 0.4).relu()
        return torch.stack([lead, 0 * lead], dim=1)


@pytest.mark.parametrize("case", cases(budget=False))
def test_a_tie_that_the_label_wins_is_no_success_of_a_minimum_distance_attack(case):
    inputs = pixels(6)
    labels = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(case(Shelf(), inputs, labels), inputs)


@pytest.mark.parametrize("case", cases(budget=False))
def test_a_minimum_distance_attack_does_not_touch_what_is_misclassified(tangled, case):
    inputs = pixels(6)
    labels = (tangled.decided(inputs) + 1) % 4
    assert torch.equal(case(tangled, inputs, labels), inputs)


@each_case
def test_an_empty_batch_gives_an_empty_batch(tangled, case):
    adversarial = case.briefly(tangled, pixels(0), torch.zeros(0, dtype=torch.int64))
    assert adversarial.shape == (0, 1, 3, 4)


# Examples do not see one another.


@each_case
def test_an_example_fares_the_same_alone_in_any_batch_and_in_any_order(tangled, case):
    inputs = pixels(6)
    labels = tangled.decided(inputs)
    together = case(tangled, inputs, labels)

    order = torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled_in_fours = case(tangled, inputs[order], labels[order], batch_size=4)
    alone = case(tangled, inputs[5:], labels[5:])

    close = partial(torch.testing.assert_close, rtol=0, atol=1e-9)
    close(shuffled_in_fours, together[order])
    close(alone, together[5:])


# Every iterate is judged, and nothing that was not.


class Recording:
    """A model that remembers what it was asked and how far it was from misclassifying."""

    facts = ModelFacts()

    def __init__(self, model: nn.Module, label: Tensor):
        self.model = model.eval()
        self.label = label
        self.points: list[Tensor] = []
        self.margins: list[Tensor] = []

    def __call__(self, points: Tensor) -> Tensor:
        logits = self.model(points)
        self.points.append(points.detach().clone())
        self.margins.append(margin_loss(logits.detach(), self.label.expand(len(points))))
        return logits


@each_case
@pytest.mark.parametrize("effort", ["settings", "shortest"])
def test_returns_the_best_of_all_points_that_the_model_was_asked_about(tangled, case, effort):
    for inputs in (pixels(8, seed=3) * 0.8 + 0.1).split(1)[4:7]:
        label = tangled.decided(inputs)
        model = Recording(tangled, label)

        adversarial = case(model, inputs, label, effort)

        points, margins = torch.cat(model.points), torch.cat(model.margins)
        mine = margin_loss(tangled(adversarial), label)
        allowed = ((points >= 0) & (points <= 1)).flatten(1).all(dim=1)
        if case.row.budget:
            allowed &= lp_norm(points - inputs, case.norm) <= EPSILON[case.norm] * (1 + 1e-9)
            assert mine >= margins[allowed].max() - 1e-12
        elif (fooling := allowed & (margins > 0)).any():
            nearest = lp_norm(points[fooling] - inputs, case.norm).min()
            assert mine > 0
            assert lp_norm(adversarial - inputs, case.norm) <= nearest + 1e-12
        else:
            assert torch.equal(adversarial, inputs)
        assert (points == adversarial).flatten(1).all(dim=1).any()
        assert len(points.unique(dim=0)) > 1


# A model is borrowed.


def trace(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the process that an attack must not change."""
    return {
        "modes": [part.training for part in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "hooks": [len(part._forward_hooks) for part in model.modules()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "dtype": torch.get_default_dtype(),
    }


@each_case
def test_gives_the_model_back_as_it_was(tangled, case):
    inputs = pixels(6)
    labels = tangled.decided(inputs)
    before = trace(tangled)
    case.briefly(tangled, inputs, labels)
    case.briefly(tangled, inputs, labels, random_state=None)
    assert trace(tangled) == before


class Interrupting(Tangled):
    """Presses Ctrl-C at its third answer."""

    answers = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.answers += 1
        if self.answers == 3:
            raise KeyboardInterrupt
        return super().forward(inputs)


@each_case
def test_gives_the_model_back_when_interrupted(case):
    model, inputs = Interrupting(), pixels(6)
    labels = Tangled().decided(inputs)
    before = trace(model)
    with pytest.raises(KeyboardInterrupt):
        case.briefly(model, inputs, labels, batch_size=2)
    assert trace(model) == before


@each_case
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(tangled, case, mode):
    inputs = pixels(5)
    labels = tangled.decided(inputs)
    expected = case.briefly(tangled, inputs, labels)
    with mode():
        adversarial = case.briefly(tangled, inputs + 0, labels + 0)
        assert trace(tangled)["grad mode"] == (False, mode is torch.inference_mode)
    assert torch.equal(adversarial, expected)


@each_case
def test_attacks_a_model_in_train_mode_as_it_predicts_in_eval_mode(tangled, case):
    inputs = pixels(5)
    labels = tangled.decided(inputs)
    in_train = case.briefly(tangled, inputs, labels)
    assert torch.equal(in_train, case.briefly(tangled.eval(), inputs, labels))


@each_case
def test_frozen_parameters_make_no_difference(tangled, case):
    inputs = pixels(5)
    labels = tangled.decided(inputs)
    expected = case.briefly(tangled, inputs, labels)
    assert torch.equal(case.briefly(tangled.requires_grad_(False), inputs, labels), expected)
    assert not any(p.requires_grad for p in tangled.parameters())


@each_case
def test_attacks_a_callable_that_is_no_module(tangled, case):
    inputs = pixels(5)
    labels = tangled.decided(inputs)
    expected = case.briefly(tangled, inputs, labels)
    tangled.eval()
    assert torch.equal(case.briefly(lambda points: tangled(points), inputs, labels), expected)


# Randomness.


@each_case
def test_the_same_random_state_gives_the_same_result_whatever_the_global_one(tangled, case):
    inputs = pixels(6)
    labels = tangled.decided(inputs)
    first = case.briefly(tangled, inputs, labels, random_state=5)
    torch.rand(3)
    assert torch.equal(case.briefly(tangled, inputs, labels, random_state=np.int64(5)), first)


@each_case
def test_other_seeds_give_other_results_exactly_where_random_numbers_are_drawn(tangled, case):
    inputs = pixels(12, seed=1)
    labels = tangled.decided(inputs)
    results = [case.briefly(tangled, inputs, labels, random_state=seed) for seed in (0, 1, None)]
    alike = [torch.equal(results[0], other) for other in results[1:]]
    assert alike == [not case.row.draws] * 2


@pytest.mark.parametrize("case", [case for case in cases() if is_first_norm(case.values[0])])
def test_a_model_that_draws_repeats_under_the_same_random_state(tangled, case):
    asked: list[Tensor] = []

    def model(points: Tensor) -> Tensor:
        answers = tangled.eval()(points)
        return answers + torch.randn_like(answers)

    def runs(seed: int) -> list[Tensor]:
        asked.clear()
        case.briefly(model, inputs, labels, random_state=seed, callback=keep)
        return list(asked)

    def keep(_indices: Tensor, _points: Tensor, logits: Tensor) -> None:
        asked.append(logits)

    inputs = pixels(4)
    labels = tangled.decided(inputs)
    first, again, other = runs(5), runs(5), runs(6)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


# What the engine is told.


@pytest.mark.parametrize("case", [case for case in cases() if is_first_norm(case.values[0])])
def test_batches_are_no_larger_than_asked_and_the_bar_and_the_callback_see_every_example(
    tangled, case, capsys
):
    inputs, seen = pixels(7), []

    def keep(indices: Tensor, points: Tensor, logits: Tensor) -> None:
        assert len(points) == len(logits) == len(indices)
        seen.append(indices.clone())

    labels = tangled.decided(inputs)
    case.briefly(tangled, inputs, labels, batch_size=3, progress=True, callback=keep)
    assert max(map(len, seen)) == 3
    assert torch.cat(seen).unique().tolist() == list(range(7))
    assert "7/7" in capsys.readouterr().err


# Edges on which other libraries fail.


@pytest.mark.parametrize("case", cases(from_bounds=True))
@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_images_of_exact_zeros_or_ones_can_move(case, grey):
    model, inputs = Halfspace(), torch.full((1, 3, 4), grey, dtype=torch.float64)
    with torch.no_grad():
        # Just across the boundary: a small step inwards is enough.
        towards = model.w.sign() * (1 if grey == 0 else -1)
        inwards = (model.w.abs() * (towards > 0)).sum()
        model.b.copy_(-(model.w.sum() * grey) - 0.02 * inwards * (1 if grey == 0 else -1))
    labels = model(inputs).argmax(dim=1)

    adversarial = case(model, inputs, labels, "strong")

    assert (model(adversarial).argmax(dim=1) != labels).all()


@pytest.mark.parametrize("attack", [attacks.fgsm, partial(attacks.pgd, steps=1, step_size=0.2)])
def test_the_iterate_of_a_single_step_is_judged(halfspace, examples, attack):
    inputs, labels = examples(6)
    adversarial = attack(halfspace, inputs, labels, epsilon=0.2)
    assert (halfspace(adversarial).argmax(dim=1) != labels).all()


@each_case
def test_all_logits_negative_make_no_difference(case):
    class Shifted(Tangled):
        shift = 0.0

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) + self.shift

    model, inputs = Shifted(), pixels(8)
    labels = model.decided(inputs)
    expected = misclassified(model, case(model, inputs, labels), labels)
    model.shift = -1024.0
    assert (model.decided(inputs) == labels).all()
    assert torch.equal(misclassified(model, case(model, inputs, labels), labels), expected)


class Bytes(Tangled):
    """Takes the images as they are stored, 0 to 255."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs / 255)


@each_case
def test_images_of_whole_numbers_are_attacked_within_their_own_bounds(case):
    model, inputs = Bytes(), (255 * pixels(8)).round()
    labels = model.decided(inputs)
    units = 1 if case.norm.startswith("l0") else 255
    more = {"epsilon": units * EPSILON[case.norm]} if case.row.budget else {}
    adversarial = case(model, inputs, labels, "strong", bounds=(0.0, 255.0), **more)
    assert ((adversarial >= 0) & (adversarial <= 255)).all()
    assert misclassified(model, adversarial, labels).any()


class Units(Tangled):
    """Takes its inputs in units of 1/256: doubling is exact, so that nothing is rounded anew."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs / 256)


@pytest.mark.parametrize("case", cases(draws=False))
def test_in_other_units_an_attack_finds_the_same_points(tangled, case):
    inputs = pixels(8)
    labels = tangled.decided(inputs)
    units = 1 if case.norm.startswith("l0") else 256
    more = {"epsilon": units * EPSILON[case.norm]} if case.row.budget else {}
    found = case(Units(), 256 * inputs, labels, bounds=(0.0, 256.0), **more)
    torch.testing.assert_close(found / 256, case(tangled, inputs, labels), rtol=0, atol=1e-6)


class Flat(nn.Module):
    """Prefers class 1 everywhere and slopes nowhere; black pixels are no exception."""

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.flatten(1) * 0).sum(dim=1, keepdim=True) + inputs.new_tensor([0.0, 9.0, 1.0])


@each_case_and_loss
def test_a_zero_gradient_gives_a_zero_step_and_never_nan(case):
    inputs = pixels(5)
    adversarial = case(Flat(), inputs, torch.ones(5, dtype=torch.int64))
    assert adversarial.isfinite().all()
    if not case.row.draws:
        assert torch.equal(adversarial, inputs)


@each_case
def test_targeting_the_other_of_two_classes_is_not_targeting_the_true_one(
    halfspace, examples, case
):
    inputs, labels = examples(8)
    least = least_distance(halfspace, inputs, case.norm).median().item()
    more = {"epsilon": least} if case.row.budget else {}
    away = case(halfspace, inputs, labels, **more)
    towards = case(halfspace, inputs, 1 - labels, targeted=True, **more)
    assert torch.equal(halfspace(away).argmax(dim=1), halfspace(towards).argmax(dim=1))
    assert (halfspace(towards).argmax(dim=1) != labels).any()


@each_case
def test_a_targeted_attack_reaches_the_class_it_was_given(tangled, case):
    inputs = pixels(12, seed=2) * 0.6 + 0.2
    labels = tangled.decided(inputs)
    targets = (labels + 1) % 4
    more = {"epsilon": 6 * EPSILON[case.norm]} if case.row.budget else {}
    adversarial = case(tangled, inputs, targets, targeted=True, **more)
    nearer = margin_loss(tangled.eval()(adversarial), targets) < margin_loss(
        tangled(inputs), targets
    )
    assert nearer.double().mean() > 0.5
    assert (tangled.decided(adversarial) == targets).any()


# Precisions.


@each_case
def test_a_bfloat16_model_is_attacked_through_float32_inputs(tangled, case):
    model, inputs = tangled.bfloat16(), pixels(10, dtype=torch.float32)
    labels = tangled.decided(inputs.bfloat16())
    adversarial = case(model, inputs, labels)
    assert adversarial.dtype == torch.float32
    assert misclassified(model, adversarial.bfloat16(), labels).any()


@each_case
def test_double_inputs_of_a_single_precision_model_come_back_double(tangled, case):
    model, inputs = tangled.float(), pixels(6)
    labels = tangled.decided(inputs.float())
    adversarial = case(model, inputs, labels)
    assert adversarial.dtype == torch.float64
    assert misclassified(model, adversarial.float(), labels).any()


# What is refused. The messages themselves are tested in test_validation.py.


@each_case
def test_probabilities_are_refused_with_the_remedy(tangled, case):
    inputs = pixels(4)
    labels = tangled.decided(inputs)
    message = (
        r"^model must return logits, got rows in \[0, 1\] that sum to 1; remove the final softmax "
        r"\(gradients through it vanish and attacks then mislead\)$"
    )
    before = trace(tangled)
    with pytest.raises(ValueError, match=message):
        case.briefly(nn.Sequential(tangled, nn.Softmax(dim=1)), inputs, labels)
    assert trace(tangled) == before


@each_case
def test_a_model_cut_off_from_its_input_is_refused_exactly_by_gradient_attacks(tangled, case):
    inputs = pixels(4)
    labels = tangled.decided(inputs)
    tangled.eval()
    for cut in (lambda x: tangled(x).detach(), lambda x: tangled(x.detach())):
        if case.row.gradients:
            with pytest.raises(NoGradientError, match=r"^model must be differentiable with respec"):
                case.briefly(cut, inputs, labels)
        else:
            assert torch.equal(
                case.briefly(cut, inputs, labels), case.briefly(tangled, inputs, labels)
            )


BAD_INPUTS = [
    pytest.param(torch.zeros(2, 12).long(), TypeError, "inputs must be floating", id="integers"),
    pytest.param(torch.full((2, 12), 2.0), ValueError, "inputs must be within bounds", id="bounds"),
    pytest.param(torch.full((2, 12), torch.nan), ValueError, "inputs must be finite", id="nan"),
]


@each_case
@pytest.mark.parametrize(("inputs", "error", "message"), BAD_INPUTS)
def test_inputs_that_are_no_examples_are_refused(tangled, case, inputs, error, message):
    with pytest.raises(error, match=f"^{message}"):
        case.briefly(tangled, inputs, torch.zeros(2, dtype=torch.int64))


BAD_LABELS = [
    pytest.param(torch.zeros(3).long(), ValueError, r"labels must have shape \(2,\)", id="length"),
    pytest.param(torch.zeros(2), TypeError, "labels must have dtype torch.int64", id="dtype"),
    pytest.param(
        torch.tensor([0, 4]), ValueError, "labels must be classes from 0 to 3", id="class"
    ),
]


@each_case
@pytest.mark.parametrize(("labels", "error", "message"), BAD_LABELS)
def test_labels_that_are_no_classes_are_refused(tangled, case, labels, error, message):
    with pytest.raises(error, match=f"^{message}"):
        case.briefly(tangled, pixels(2), labels)


BAD_SETTINGS = [
    pytest.param({"batch_size": 0}, "batch_size must be at least 1, got 0", id="batch_size"),
    pytest.param({"random_state": -1}, "random_state must be at least 0, got -1", id="seed"),
    pytest.param({"bounds": (1.0, 0.0)}, "bounds must be finite with low below high", id="bounds"),
]


@each_case
@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_settings_common_to_all_attacks_are_checked(tangled, case, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        case.briefly(tangled, pixels(2), torch.zeros(2, dtype=torch.int64), **settings)


@pytest.mark.parametrize("case", cases(budget=True))
@pytest.mark.parametrize("epsilon", [0, -0.1, torch.nan, torch.inf])
def test_a_budget_is_a_finite_number_above_zero(tangled, case, epsilon):
    with pytest.raises(
        ValueError, match=rf"^epsilon must be a finite number above 0, got {epsilon}$"
    ):
        case.briefly(tangled, pixels(2), torch.zeros(2, dtype=torch.int64), epsilon=epsilon)


@pytest.mark.parametrize(
    ("attack", "limits"),
    [
        (attacks.square, {"p_init": 1.0, "queries": 1}),
        (attacks.square, {"queries": 2, "restarts": 1}),
        (partial(attacks.sparse_rs, norm="l0"), {"alpha_init": 1.0, "queries": 1}),
        (attacks.guided_sparse_rs, {"alpha_init": 1.0}),
        (attacks.apgd, {"rho": 0.0}),
        (attacks.apgd, {"rho": 1.0}),
        (attacks.apgd_targeted, {"rho": 0.0, "n_targets": 1}),
        (attacks.apgd_targeted, {"rho": 1.0}),
        (attacks.pgd, {"momentum": 0.0, "restarts": 1}),
        (attacks.fab_targeted, {"alpha_max": 0.0, "beta": 0.0, "eta": 1.0, "n_targets": 1}),
        (attacks.fab_targeted, {"alpha_max": 1.0, "beta": 1.0, "restarts": 1}),
        (attacks.deepfool, {"overshoot": 0.0, "n_candidates": 1}),
        (attacks.carlini_wagner_l0, {"confidence": 0.0}),
        (attacks.carlini_wagner_l2, {"confidence": 0.0}),
        (attacks.carlini_wagner_linf, {"confidence": 0.0}),
        (attacks.jsma, {"max_features": 2}),
    ],
)
def test_the_ends_of_the_documented_ranges_are_allowed(halfspace, examples, attack, limits):
    inputs, labels = examples(2)
    function = getattr(attack, "func", attack)
    names = inspect.signature(function).parameters
    more: dict[str, Any] = {"steps": 1} if "steps" in names else {}
    more |= {"epsilon": 1} if "epsilon" in names else {}
    found = attack(halfspace, inputs, labels, random_state=0, **more, **limits)
    assert ((found >= 0) & (found <= 1)).all()


def test_every_public_attack_has_a_row():
    assert {row.attack.__name__ for row in TABLE} == {*attacks.__all__, "noise"}
