"""evaluate: judged by hand-made attacks whose results are known beforehand."""

import math
import types
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distillguard import attacks, evaluate
from distillguard.evaluation import (
    AttackSpec,
    confidence_histogram,
    gradient_histogram,
    robustness_curve,
    transfer_matrix,
)


def identity(model, inputs, labels):
    return inputs


def nearest(halfspace, norm, beyond=1.001):
    """Move each input just across the boundary, by the shortest way in the norm."""
    gradient = halfspace.w.detach()
    direction = {"linf": gradient.sign(), "l2": gradient / gradient.norm()}[norm]

    def attack(model, inputs, labels):
        least = beyond * halfspace.least_epsilon(inputs, norm)
        away = torch.where(labels == 1, -1.0, 1.0) * least
        return inputs + away[:, None, None] * direction.view(1, *inputs.shape[1:])

    return attack


def points(table):
    """An attack that looks its answers up by the input's first value."""

    def attack(model, inputs, labels):
        return torch.stack([table.get(x.flatten()[0].item(), x) for x in inputs])

    return attack


class Threshold(nn.Module):
    """Class 1 where the first value is above a half."""

    def forward(self, inputs):
        value = inputs.flatten(1)[:, :1] - 0.5
        return torch.cat([-value, value], dim=1)


@pytest.fixture
def four():
    """Four inputs of class 0 that differ in their first value, and their labels."""
    inputs = torch.full((4, 3), 0.25, dtype=torch.float64)
    inputs[:, 0] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    return inputs, torch.zeros(4, dtype=torch.int64)


def moved(inputs, by):
    """The lookup table that adds ``by`` to the first value of the given inputs."""
    table = {}
    for x, step in zip(inputs, by, strict=True):
        point = x.clone()
        point[0] += step
        table[x[0].item()] = point
    return table


def test_an_attack_that_does_nothing_leaves_the_clean_accuracy(halfspace, examples):
    inputs, labels = examples(40)
    labels[:10] = 1 - labels[:10]
    report = evaluate(halfspace, inputs, labels, epsilon=0.1, attacks={"none": identity})
    assert report.clean_accuracy == report.robust_accuracy == 0.75
    (row,) = report.attacks
    assert (row.attacked, row.fooled, row.success_rate, row.median_distance) == (30, 0, 0.0, None)
    assert row.forwards is row.backwards is None  # whom it asked instead is not known


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_examples_fall_exactly_where_the_closed_form_says(halfspace, examples, norm):
    inputs, labels = examples(41)
    least = halfspace.least_epsilon(inputs, norm)
    epsilon = least.median().item() * 1.01
    attack = nearest(halfspace, norm)
    report = evaluate(
        halfspace, inputs, labels, norm=norm, epsilon=epsilon, attacks={"nearest": attack}
    )
    assert report.robust_accuracy == (1.001 * least > epsilon).sum().item() / 41
    (row,) = report.attacks
    assert row.success_rate == 1
    assert row.median_distance == pytest.approx(1.001 * least.median().item(), rel=1e-9)


def test_the_median_of_an_even_number_of_distances_lies_between_the_middle_two(four):
    inputs, labels = four
    attack = points(moved(inputs, [0.41, 0.45, 0.55, 0.59]))
    report = evaluate(Threshold(), inputs, labels, epsilon=1.0, attacks={"known": attack})
    assert report.attacks[0].median_distance == pytest.approx((0.45 + 0.55) / 2)


def test_a_point_at_epsilon_up_to_rounding_counts_and_one_beyond_does_not(four):
    inputs, labels = four
    model, epsilon = Threshold(), 0.41
    exact = moved(inputs, [epsilon] * 4)
    beyond = moved(inputs, [epsilon * (1 + 1e-9)] * 4)
    for table, accuracy in ((exact, 0.0), (beyond, 1.0)):
        report = evaluate(model, inputs, labels, epsilon=epsilon, attacks={"known": points(table)})
        assert report.robust_accuracy == accuracy
        assert report.attacks[0].success_rate == 1


def test_points_outside_the_bounds_or_not_finite_never_count(four):
    inputs, labels = four
    table = moved(inputs, [1.5, math.nan, math.inf, 0.2])
    report = evaluate(Threshold(), inputs, labels, epsilon=1.0, attacks={"cheat": points(table)})
    (row,) = report.attacks
    assert (row.illegal, row.fooled, row.success_rate) == (3, 1, 0.25)
    assert report.robust_accuracy == 0.75
    assert "returned 3 points outside the bounds" in str(report)


def test_the_worst_case_is_taken_example_by_example(four):
    inputs, labels = four
    first = points(moved(inputs[:2], [0.45, 0.45]))
    second = points(moved(inputs[2:], [0.45, 0.45]))
    report = evaluate(
        Threshold(),
        inputs,
        labels,
        epsilon=0.5,
        attacks={"a": first, "b": second},
        survivors_only=False,
    )
    assert [row.robust_accuracy for row in report.attacks] == [0.5, 0.5]
    assert report.robust_accuracy == 0


@pytest.mark.parametrize(("survivors_only", "met"), [(True, [3, 2]), (False, [3, 3])])
def test_attacks_meet_survivors_or_all_correct_examples(four, survivors_only, met):
    inputs, labels = four
    labels[3] = 1
    seen = []

    def watched(attack):
        def call(model, inputs, labels):
            seen.append(len(inputs))
            return attack(model, inputs, labels)

        return call

    first = watched(points(moved(inputs[:1], [0.45])))
    report = evaluate(
        Threshold(),
        inputs,
        labels,
        epsilon=0.5,
        attacks={"first": first, "second": watched(identity)},
        survivors_only=survivors_only,
        diagnosis=None,
    )
    assert seen == met
    assert [row.attacked for row in report.attacks] == met
    assert report.clean_accuracy == 0.75
    assert report.robust_accuracy == 0.5
    # On survivors only, the first attack's successes are errors of the second row as well.
    assert report.attacks[1].robust_accuracy == (0.5 if survivors_only else 0.75)


def test_intervals_are_wilsons(four):
    inputs, labels = four
    report = evaluate(
        Threshold(),
        inputs,
        labels,
        epsilon=0.5,
        attacks={"a": points(moved(inputs[:1], [0.45]))},
    )
    # Wilson 1927: centre (p + z²/2n) / (1 + z²/n), half width z sqrt(p q / n + z²/4n²) / (...).
    z, n, p = 1.959963984540054, 4, 0.75
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert report.robust_interval == pytest.approx((centre - half, centre + half))
    assert report.clean_interval[1] == pytest.approx(1)


def test_evaluations_are_counted_at_the_model_whoever_asks(halfspace, examples):
    inputs, labels = examples(10)

    def greedy(model, inputs, labels):
        for _ in range(3):
            points = inputs.clone().requires_grad_()
            logits = model(points)
            torch.autograd.grad(logits[:, 0].sum(), points, retain_graph=True)
            torch.autograd.grad(logits[:, 1].sum(), points)
        with torch.no_grad():
            model(inputs[:5])
        return inputs

    report = evaluate(halfspace, inputs, labels, epsilon=0.1, attacks={"greedy": greedy})
    (row,) = report.attacks
    assert (row.forwards, row.backwards) == (3.5, 6.0)
    assert report.costs["clean pass"].forwards == report.costs["judging"].forwards == 10


def test_labels_of_any_kind_are_looked_up_in_classes(four):
    inputs, _ = four
    inputs[3, 0] = 0.9
    estimator = types.SimpleNamespace(model_=Threshold(), classes_=np.array(["zebra", "ant"]))
    labels = np.array(["zebra", "zebra", "ant", "ant"])
    report = evaluate(estimator, inputs, labels, epsilon=0.01, attacks={"none": identity})
    assert report.clean_accuracy == 0.75
    table = moved(inputs[:1], [0.45])
    report = evaluate(estimator, inputs, labels, epsilon=0.5, attacks={"known": points(table)})
    (example,) = report.examples
    assert (example.label, example.predicted, example.attack) == ("zebra", "ant", "known")
    assert example.distance == pytest.approx(0.45)
    with pytest.raises(ValueError, match="known classes, got 'cat'; known are 'zebra', 'ant'"):
        evaluate(estimator, inputs, ["zebra", "ant", "cat", "ant"], epsilon=0.1)


@pytest.mark.parametrize(
    ("given", "made"), [("auto", "brief"), ("brief", "brief"), ("full", "full"), (None, None)]
)
def test_quick_attacks_shorten_the_diagnosis_that_nobody_asked_for_alone(
    halfspace, examples, given, made
):
    settings = {"epsilon": 0.1, "attacks": "quick", "random_state": 0, "diagnosis": given}
    report = evaluate(halfspace, *examples(10), **settings)
    assert report.observations.diagnosis == made


def test_arrays_tensors_datasets_and_loaders_give_one_result(halfspace, examples):
    inputs, labels = examples(30)
    attack = {"pgd": partial(attacks.pgd, epsilon=0.05, steps=5, random_state=3)}
    dataset = TensorDataset(inputs, labels)
    shuffled = [(inputs[i : i + 7], labels[i : i + 7]) for i in range(0, 30, 7)]
    ragged = DataLoader(shuffled, batch_size=None)
    sources = [
        (inputs, labels),
        (inputs.numpy(), labels.numpy()),
        (inputs, labels.tolist()),
        (dataset, None),
        (DataLoader(dataset, batch_size=16), None),
        (ragged, None),
    ]
    reports = [
        evaluate(halfspace, X, y, epsilon=0.05, attacks=attack, chunk_size=size, random_state=0)
        for (X, y), size in zip(sources, (1024, 13, 1, 1024, 7, 50), strict=True)
    ]
    expected = reports[0]
    assert 0 < expected.robust_accuracy < 1
    for report in reports[1:]:
        assert report.robust_accuracy == expected.robust_accuracy
        assert report.attacks[0].median_distance == expected.attacks[0].median_distance
        assert report.attacks[0].backwards == expected.attacks[0].backwards
        # Logits of other batches differ by their kernels' rounding, and their mean with them.
        seen = asdict(report.observations)
        assert seen == {
            name: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            for name, value in asdict(expected.observations).items()
        }
        assert [e.distance for e in report.examples] == [e.distance for e in expected.examples]


def test_the_model_and_the_random_state_come_back_as_they_were():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[2].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.random.get_rng_state()
    with torch.no_grad():
        evaluate(model, torch.rand(20, 3).clone(), torch.zeros(20).long(), epsilon=0.1)
    torch.random.set_rng_state(before)
    assert [part.training for part in model] == [True, True, False, True]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_global_random_state_is_untouched(halfspace, examples):
    inputs, labels = examples(5)
    before = torch.random.get_rng_state()
    noisy = {"noise": lambda model, x, y: x + 0.01 * torch.rand_like(x)}
    evaluate(halfspace, inputs, labels, epsilon=0.1, attacks=noisy)
    assert torch.equal(before, torch.random.get_rng_state())


def test_foreign_random_attacks_repeat_under_the_same_seed(halfspace, examples):
    inputs, labels = examples(60)

    def noise(model, x, y):
        return (x + 0.2 * (torch.rand_like(x) - 0.5)).clamp(0, 1)

    first, second, other = (
        evaluate(
            halfspace, inputs, labels, epsilon=0.1, attacks={"noise": noise}, random_state=seed
        ).robust_accuracy
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_our_attacks_in_a_mapping_repeat_under_the_same_seed(halfspace, examples):
    inputs, labels = examples(40)
    epsilon = 3 * halfspace.least_epsilon(inputs, "linf").max().item()
    # Steps that lead nowhere: what is fooled is fooled by the random start.
    start = partial(attacks.pgd, epsilon=epsilon, steps=1, step_size=1e-9 * epsilon)

    def distance(attack, seed):
        report = evaluate(
            halfspace, inputs, labels, epsilon=epsilon, attacks={"a": attack}, random_state=seed
        )
        return report.attacks[0].median_distance

    for attack in (start, partial(start, random_state=None), partial(partial(start), norm="linf")):
        assert distance(attack, 1) == distance(attack, 1) != distance(attack, 2)
    # A seed of their own stays.
    seeded = partial(start, random_state=1)
    assert distance(seeded, 5) == distance(seeded, 6) == distance(start, 1)


def test_an_attack_that_writes_into_its_arguments_changes_nothing(halfspace, examples):
    inputs, labels = examples(8)
    kept = inputs.clone()

    def vandal(model, inputs, labels):
        # The mirror image lies on the other side; written in place, it would look unmoved.
        labels.copy_(1 - labels)
        return inputs.copy_(1 - inputs)

    report = evaluate(
        halfspace, inputs, labels, epsilon=1e-6, attacks={"vandal": vandal, "none": identity}
    )
    assert torch.equal(inputs, kept)
    assert report.robust_accuracy == 1


@pytest.mark.parametrize(
    ("entry", "norm"),
    [
        (identity, "linf"),
        ((identity, "l2"), "l2"),
        (AttackSpec(identity, "l0"), "l0"),
        (partial(attacks.pgd, epsilon=0.1, steps=1), "linf"),
        (partial(partial(attacks.pgd, epsilon=0.1, norm="l2"), steps=1), "l2"),
    ],
)
def test_distances_are_given_in_the_attacks_own_norm(halfspace, examples, entry, norm):
    report = evaluate(halfspace, *examples(4), epsilon=0.1, attacks={"attack": entry})
    assert report.attacks[0].distance_norm == norm


def test_an_attack_that_finds_no_gradient_is_reported_and_the_others_run(four):
    inputs, labels = four

    class Detached(Threshold):
        def forward(self, inputs):
            return super().forward(inputs.detach())

    report = evaluate(
        Detached(),
        inputs,
        labels,
        epsilon=0.5,
        attacks={
            "blind": partial(attacks.fgsm, epsilon=0.5),
            "known": points(moved(inputs, [0.45] * 4)),
        },
    )
    assert report.attacks[0].error.startswith("model must be differentiable")
    assert report.robust_accuracy == 0


def test_a_plain_callable_and_one_example_are_enough():
    def model(inputs):
        return torch.stack([inputs.sum(dim=1), 1.2 - inputs.sum(dim=1)], dim=1)

    report = evaluate(model, np.array([[0.5, 0.5]]), [0], epsilon=0.3, attacks="quick")
    assert report.robust_accuracy == 0
    assert report.model == "model"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epsilon": 0.0}, ValueError, "epsilon must be a finite number above 0, got 0.0"),
        (
            {"norm": "l7"},
            ValueError,
            "norm must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'l7'",
        ),
        (
            {"model": LogisticRegression().fit([[0.0], [1.0]], [0, 1])},
            TypeError,
            "model must be an estimator of distillguard, .*, got a fitted LogisticRegression; pass",
        ),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1, got 0"),
        ({"random_state": -1}, ValueError, "random_state must be at least 0, got -1"),
        (
            {"model": 3},
            TypeError,
            "model must be a module or a callable from inputs to",
        ),
        ({"X": torch.rand(4, 3) + 7}, ValueError, "X must be within bounds"),
        ({"X": torch.zeros(0, 3), "y": []}, ValueError, "X must hold at least one example"),
        ({"y": None}, TypeError, "y must be given when X is an array or a tensor"),
        ({"y": [0, 0]}, ValueError, "y must have one label for each of 4 inputs, got 2"),
        ({"y": [0.5, 0, 0, 0]}, TypeError, "y must hold integer classes, got 0.5"),
        ({"y": [[0, 1], [0, 1], [0, 1], [0, 1]]}, ValueError, r"y must hold one class per example"),
        ({"y": [0, 0, 0, 5]}, ValueError, "y must be classes from 0 to 1"),
        ({"X": [torch.zeros(2)]}, TypeError, r"X must yield pairs \(inputs, labels\)"),
        ({"X": DataLoader(torch.zeros(4, 3)), "y": None}, TypeError, "X must yield pairs"),
        ({"X": DataLoader(torch.zeros(4, 3))}, TypeError, "y must be None when X yields pairs"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(four, change, error, message):
    arguments = {"model": Threshold(), "X": four[0], "y": four[1], "epsilon": 0.1} | change
    if isinstance(arguments["X"], list):
        arguments |= {"X": DataLoader(arguments["X"]), "y": None}
    model, X, y = (arguments.pop(name) for name in ("model", "X", "y"))
    with pytest.raises(error, match=message):
        evaluate(model, X, y, **arguments)


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_answers_that_sum_to_one_by_chance_stop_no_attack(chunk_size):
    # Rounded probabilities do so too. The first row, which is wrong and not attacked, sums to 1.1.
    def model(inputs):
        share = inputs[:, :1]
        return torch.cat([share, 1 - share, 0.1 * (inputs[:, 1:] > 0.5)], dim=1)

    X, y = torch.tensor([[0.9, 0.9], [0.8, 0.1], [0.7, 0.1]]), torch.tensor([1, 0, 0])
    report = evaluate(model, X, y, epsilon=0.25, chunk_size=chunk_size, random_state=0)
    assert [row.error for row in report.attacks] == [None] * len(report.attacks)
    assert not report.observations.failed
    assert report.robust_accuracy == pytest.approx(1 / 3)


def test_an_unfitted_estimator_is_refused():
    estimator = types.SimpleNamespace(fit=None)
    with pytest.raises(NotFittedError, match="model must be fitted before it is evaluated"):
        evaluate(estimator, np.zeros((2, 2)), [0, 1], epsilon=0.1)


@pytest.mark.parametrize("made_inside", [True, False])
def test_under_inference_mode_the_report_is_the_same(halfspace, examples, made_inside):
    inputs, labels = examples(20)
    settings = {"epsilon": 0.03, "attacks": "quick", "random_state": 0}
    expected = evaluate(halfspace, inputs, labels, **settings)
    bars = gradient_histogram(halfspace, inputs)
    with torch.inference_mode():
        if made_inside:
            inputs, labels = inputs.clone(), labels.clone()
        report = evaluate(halfspace, inputs, labels, **settings)
        assert gradient_histogram(halfspace, inputs).counts.tolist() == bars.counts.tolist()
        assert torch.is_inference_mode_enabled()
    assert report.observations == expected.observations


def test_a_model_that_turns_gradients_on_is_evaluated_as_it_is(halfspace, examples):
    inputs, labels = examples(20)
    settings = {"epsilon": 0.03, "attacks": "quick", "random_state": 0}
    expected = evaluate(lambda points: halfspace(points), inputs, labels, **settings)
    factor = torch.ones(1, dtype=inputs.dtype, requires_grad=True)

    @torch.enable_grad()
    def purified(points):
        return halfspace(points) * factor

    report = evaluate(purified, inputs, labels, **settings)
    assert report.robust_accuracy == expected.robust_accuracy
    assert not report.observations.failed
    curves = [
        robustness_curve(model, inputs, labels, minimum_distance="fmn", norm="linf")
        for model in (halfspace, purified)
    ]
    assert curves[0].epsilons.tolist() == curves[1].epsilons.tolist()


def test_curves_and_matrices_come_out_under_inference_mode_too(halfspace, examples):
    inputs, labels = examples(20)
    near = partial(attacks.deepfool, norm="l2")
    models = {"a": halfspace, "b": halfspace}

    def measured():
        curve = robustness_curve(
            halfspace, inputs, labels, minimum_distance={"near": near}, norm="l2"
        )
        matrix = transfer_matrix(models, near, inputs, labels)
        return (
            curve.epsilons.tolist(),
            matrix.matrix.tolist(),
            confidence_histogram(halfspace, inputs),
        )

    expected = measured()
    with torch.inference_mode():
        inputs, labels = inputs.clone(), labels.clone()
        inside = measured()
    assert inside[:2] == expected[:2]
    assert inside[2].counts.tolist() == expected[2].counts.tolist()


def test_inputs_that_require_a_gradient_are_detached(halfspace, examples):
    inputs, labels = examples(20)
    settings = {"epsilon": 0.03, "attacks": "quick", "random_state": 0}
    expected = evaluate(halfspace, inputs, labels, **settings)
    report = evaluate(halfspace, inputs.requires_grad_(), labels, **settings)
    assert report.observations == expected.observations
    assert inputs.grad is None
    assert not any(e.original.requires_grad for e in report.examples)


def test_a_model_that_writes_into_its_input_leaves_the_examples_to_the_attacks(halfspace, examples):
    inputs, labels = examples(20)
    kept = inputs.clone()

    def scribbling(inputs):
        logits = halfspace(inputs)
        if not inputs.requires_grad:
            inputs.sub_(0.5).mul_(2)
        return logits

    def watched(model, inputs, labels):
        met.append(inputs.clone())
        return inputs

    met = []
    evaluate(scribbling, inputs, labels, epsilon=0.03, attacks={"watched": watched})
    assert torch.equal(inputs, kept)
    assert torch.equal(met[0], kept)


# l1.


@pytest.mark.parametrize("d", [20, 300, 2000, 16_000])
@pytest.mark.parametrize("share", [0.0, 0.01])
def test_in_l1_a_linear_model_stands_below_the_least_radius_and_falls_above_it(d, share):
    # One telling feature, as in tables; then as many more as a hundredth of the way needs.
    generator = torch.Generator().manual_seed(d)
    w = 0.01 * torch.randn(d, generator=generator)
    w[d // 2] = 1.0
    x = torch.full((1, d), 0.5)
    gains = (0.5 * w.abs().double()).sort(descending=True).values.cumsum(dim=0)
    whole = int((gains < max(share * gains[-1], 0.1)).sum())
    slack = max(share * gains[-1].item(), 0.1)
    before = gains[whole - 1].item() if whole else 0.0
    needed = 0.5 * whole + 0.5 * (slack - before) / (gains[whole].item() - before)

    model = nn.Linear(d, 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([w, -w]) / slack)
        offset = 1 - (w.double() @ x[0].double()) / slack
        model.bias.copy_(torch.stack([offset, -offset]))
    settings = {"norm": "l1", "random_state": 0}
    for factor, expected in ((0.9, 1), (1.05, 0), (1.5, 0), (2.5, 0)):
        report = evaluate(model, x, torch.tensor([0]), epsilon=factor * needed, **settings)
        assert (report.robust_accuracy, report.findings) == (expected, ())


def test_in_l1_too_a_model_whose_gradients_mislead_is_found_out(halfspace, examples):
    inputs, labels = examples(30)

    def stepped(points):
        # The sign of the distance in steps: no slope anywhere.
        return halfspace(points) * 0 + (1e3 * halfspace(points)).sign()

    epsilon = 3 * halfspace.least_epsilon(inputs, "l1").median().item()
    settings = {"norm": "l1", "epsilon": epsilon, "random_state": 0}
    report = evaluate(stepped, inputs, labels, **settings)
    assert {"zero-gradients"} <= {finding.code for finding in report.findings}
    report = evaluate(stepped, inputs, labels, diagnosis="full", **settings)
    assert report.observations.only_black_box is not None
    assert {"zero-gradients"} <= {finding.code for finding in report.findings}


def test_bytes_within_the_bounds_of_their_own_channel_are_inputs_like_any():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 2, 3, 3), generator=generator, dtype=torch.uint8)
    pixels[:, 0] %= 2
    labels = (pixels[:, 1, 1, 1] > 120).long()
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 2))
    ends = torch.zeros(2, 1, 1), torch.tensor([1.0, 255.0]).view(2, 1, 1)
    settings = {"epsilon": 1.0, "attacks": {"none": identity}, "bounds": ends}
    found, expected = (evaluate(model, X, labels, **settings) for X in (pixels, pixels.float()))
    assert found.clean_accuracy == expected.clean_accuracy
    with pytest.raises(TypeError, match="X must be floating point, got uint8"):
        evaluate(model, pixels, labels, **settings | {"bounds": (0.0, 1.0)})


@pytest.mark.parametrize(
    "ask",
    [
        partial(evaluate, epsilon=0.05, attacks="quick", diagnosis="full"),
        partial(evaluate, epsilon=0.05, attacks="standard", diagnosis=None),
        partial(robustness_curve, budget=attacks.pgd, epsilons=[0.05, 0.1]),
        partial(robustness_curve, minimum_distance=partial(attacks.ddn, steps=5), norm="l2"),
        partial(robustness_curve, minimum_distance=lambda model, x, y: x),
        lambda model, *data, **more: transfer_matrix(
            [model, model], attacks.fgsm, *data, epsilon=0.1, **more
        ),
        lambda model, *data, **more: transfer_matrix([model], lambda m, x, y: x, *data, **more),
        gradient_histogram,
        confidence_histogram,
    ],
)
def test_a_model_is_asked_about_no_more_than_the_batch_size_at_once(halfspace, examples, ask):
    data, asked = examples(40), []
    halfspace.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    ask(halfspace, *data, batch_size=24, random_state=0)
    assert max(asked) == 24
