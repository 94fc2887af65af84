"""Attacks at work: traces, what is drawn of them, fooled examples, and the loss around one."""

import io
from collections import Counter
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from scipy.stats import binomtest
from torch import nn

from distillguard import UndefendedClassifier, attacks, evaluate
from distillguard._plot import drawn
from distillguard.evaluation import (
    AdversarialExamplesDisplay,
    AttackTrace,
    AttackTraceDisplay,
    LossSurfaceDisplay,
    RobustnessCurveDisplay,
    RobustnessReport,
    TransferMatrixDisplay,
    compare,
)
from distillguard.evaluation._attack_displays import held_on
from distillguard.functional import margin_loss

mpl.use("Agg")

HOSTILE = ("$\\frac{a}{b$", "_hidden", "$x_1$ <b>&", "100 $", "\\$y\\$", "%s {0} {name}")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def texts_of(figure):
    """What a figure says, read back from SVG, where formulas would be broken into parts."""
    file = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    root = ElementTree.fromstring(file.getvalue().decode())
    return ["".join(each.itertext()).strip() for each in root.iter() if each.tag.endswith("}text")]


class Book:
    """What an attack asks, by example, kept in plain lists."""

    def __init__(self, n):
        self.pages = [[] for _ in range(n)]

    def __call__(self, indices, points, logits):
        for place, point, answer in zip(indices.tolist(), points, logits, strict=True):
            self.pages[place].append((point.double().numpy(), answer.double().numpy()))


WALKS = {
    "pgd": partial(attacks.pgd, epsilon=0.05, steps=6, loss="margin"),
    "square": partial(attacks.square, epsilon=0.05, queries=12),
    "ddn": partial(attacks.ddn, steps=8),
}


@pytest.mark.parametrize("name", WALKS)
def test_a_trace_holds_every_question_whatever_the_batches(halfspace, examples, name):
    inputs, labels = examples(9)
    walk = partial(WALKS[name], halfspace, inputs, labels, random_state=0)
    book = Book(9)
    walk(callback=book)
    for batch_size in (2, 256):
        trace = AttackTrace(inputs, labels, norm="l2")
        walk(callback=trace, batch_size=batch_size)
        assert trace.questions.tolist() == [len(page) for page in book.pages]
        for place, page in enumerate(book.pages):
            for number, (point, (zero, one)) in enumerate(page):
                margin = (zero - one) if labels[place] else (one - zero)
                away = np.linalg.norm(point - inputs[place].double().numpy())
                found = [
                    table[place, number]
                    for table in (trace.margin, trace.cross_entropy, trace.distance)
                ]
                assert found == pytest.approx([margin, np.logaddexp(0, margin), away], rel=1e-5)
            assert np.isnan(trace.margin[place, len(page) :]).all()


def test_the_best_margin_of_a_trace_is_that_of_the_returned_point(halfspace, examples):
    inputs, labels = examples(12)
    trace = AttackTrace(inputs, labels, epsilon=0.05)
    found = WALKS["pgd"](halfspace, inputs, labels, random_state=0, callback=trace)
    margin = margin_loss(halfspace(found), labels).detach().numpy()
    assert np.nanmax(trace.margin, axis=1) == pytest.approx(margin)
    assert (np.isfinite(trace.first_success) == (margin > 0)).all()
    assert 0 < trace.standing[-1] == np.mean(margin <= 0) < 1
    # PGD asks no more about what it has fooled.
    fooled = np.isfinite(trace.first_success)
    assert (trace.first_success[fooled] == trace.questions[fooled]).all()


def test_what_stands_is_counted_by_hand():
    inputs, labels = torch.full((4, 2), 0.5), torch.tensor([0, 0, 1, 1])
    right, wrong = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    settings = {"norm": "linf", "epsilon": 0.1}
    trace = AttackTrace(inputs, labels, **settings)
    assert trace.standing.tolist() == [1]
    near, far = inputs[:1] + 0.1, inputs[:1] + 0.1001
    trace(torch.tensor([0, 1]), torch.cat([near, near]), torch.stack([right, wrong]))
    trace(torch.tensor([0]), far, wrong[None])  # beyond epsilon
    trace(torch.tensor([2, 0]), torch.cat([near, near]), torch.stack([wrong, wrong]))
    assert trace.questions.tolist() == [3, 1, 1, 0]
    assert trace.first_success.tolist() == [3, 1, np.inf, np.inf]
    assert trace.standing.tolist() == [1, 0.75, 0.75, 0.5]
    for share, found in zip((4, 3, 3, 2), trace.standing_interval, strict=True):
        expected = binomtest(share, 4).proportion_ci(0.95, method="wilson")
        assert found == pytest.approx((expected.low, expected.high))
    assert repr(trace) == ("AttackTrace(norm='linf', epsilon=0.1: 5 questions about 4 examples)")
    aimed = AttackTrace(inputs, labels, targeted=True, **settings)
    aimed(torch.tensor([0, 1]), torch.cat([near, near]), torch.stack([right, wrong]))
    assert aimed.first_success.tolist() == [1, np.inf, np.inf, np.inf]
    tied = AttackTrace(inputs, labels, **settings)
    tied(torch.tensor([0]), near, torch.tensor([[1.0, 1.0]]))
    assert tied.first_success.tolist() == [np.inf] * 4  # a tie is the label's


def test_half_precision_is_measured_in_single():
    inputs = torch.zeros(1, 2, dtype=torch.float16)
    trace = AttackTrace(inputs, torch.tensor([0]), norm="l1")
    points = torch.full((1, 2), 1e-4, dtype=torch.float16)
    trace(torch.tensor([0]), points, torch.tensor([[-0.1, 300.0]], dtype=torch.float16))
    assert trace.margin.tolist() == [[pytest.approx(300.1, abs=1e-3)]]
    assert trace.distance.item() == pytest.approx(2e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"norm": "l7"}, ValueError, "norm must be one of 'linf'"),
        ({"epsilon": 0}, ValueError, "epsilon must be a finite number above 0"),
        ({"labels": torch.zeros(2)}, TypeError, "labels must"),
        ({"inputs": [[1.0]]}, TypeError, "inputs must"),
    ],
)
def test_what_cannot_be_traced_is_refused(change, error, message):
    settings = {"inputs": torch.zeros(2, 2), "labels": torch.tensor([0, 1])} | change
    with pytest.raises(error, match=message):
        AttackTrace(settings.pop("inputs"), settings.pop("labels"), **settings)


def traced(halfspace, examples, names):
    inputs, labels = examples(12)
    traces = {}
    for name, walk in zip(names, list(WALKS.values()) * 2, strict=False):
        traces[name] = AttackTrace(inputs, labels, epsilon=0.05)
        walk(halfspace, inputs, labels, random_state=0, callback=traces[name])
    return traces


def test_a_display_of_traces_draws_what_a_pass_buys(halfspace, examples):
    traces = traced(halfspace, examples, ["pgd", "square", "ddn"])
    display = AttackTraceDisplay.from_traces(traces)
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_xlabel() == "forward passes about each example"
    assert display.ax_.get_ylabel() == "examples that stand (%)"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == list(traces)
    for line, trace in zip(display.lines_, traces.values(), strict=True):
        assert line.get_xdata().tolist() == list(range(len(trace.standing)))
        assert line.get_ydata() == pytest.approx(100 * trace.standing)
    units = {"cross_entropy": "(nats)", "margin": "(logits)", "distance": "(linf, input units)"}
    for quantity, unit in units.items():
        other = display.plot(pyplot.figure().subplots(), quantity=quantity)
        assert other.ax_.get_ylabel().endswith(unit)
    # The median of the first questions, asked about every example.
    first = np.median(traces["pgd"].distance[:, 0])
    assert display.lines_[0].get_ydata()[0] == pytest.approx(first)


def test_an_example_that_is_asked_no_more_keeps_its_last_value():
    nan = np.nan
    table = np.array([[1.0, 2.0, 3.0], [4.0, nan, nan], [nan, nan, nan], [5.0, 6.0, nan]])
    assert held_on(table).tolist() == [[1, 2, 3], [4, 4, 4], [5, 6, 6]]


def test_names_are_drawn_as_they_are(halfspace, examples):
    display = AttackTraceDisplay.from_traces(traced(halfspace, examples, HOSTILE))
    assert set(HOSTILE) <= set(texts_of(display.figure_))
    matrix = TransferMatrixDisplay(np.eye(len(HOSTILE)), HOSTILE).plot()
    assert set(HOSTILE) <= set(texts_of(matrix.figure_))
    for name in HOSTILE:
        curve = RobustnessCurveDisplay.from_predictions([0.1], norm="linf", name=name)
        assert name in texts_of(curve.figure_)
    inputs, labels = examples(4)
    none = dict.fromkeys(HOSTILE, lambda model, inputs, labels: inputs)
    report = evaluate(halfspace, inputs, labels, epsilon=0.1, attacks=none, title=HOSTILE[0])
    said = texts_of(report.plot())
    assert set(HOSTILE) <= set(said)
    sides = Counter(texts_of(compare(dict.fromkeys(HOSTILE, report)).plot().figure_))
    assert {sides[name] for name in HOSTILE} == {2}
    assert f"{HOSTILE[0]}, linf 0.1" in said
    assert drawn("a\n b" + "c" * 60, 10) == "a bcccccc…"


@pytest.mark.parametrize(
    ("traces", "error", "message"),
    [
        ([1], TypeError, "traces must be a mapping"),
        ({}, ValueError, "at least one AttackTrace, got none"),
        ({"a": 3}, TypeError, r"traces\['a'\] must be an AttackTrace, got 3"),
    ],
)
def test_what_is_no_trace_is_not_drawn(traces, error, message):
    with pytest.raises(error, match=message):
        AttackTraceDisplay(traces)


class Bright(nn.Module):
    """Class 1 where the mean is above one half; 0 or 2 for what is darker or very dark."""

    def forward(self, inputs):
        mean = inputs.flatten(1).mean(dim=1)
        return 40 * torch.stack([0.5 - mean, mean - 0.5, 0.2 - mean], dim=1)


def brighter(by, model, inputs, labels):
    return (inputs + by).clamp(max=model(inputs).new_tensor(1.0))


@pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4), (3, 5, 4)])
def test_fooled_images_stand_beside_their_differences(shape):
    inputs = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.35
    labels = torch.zeros(6, dtype=torch.int64)
    report = evaluate(
        Bright(),
        inputs,
        labels,
        epsilon=0.11,
        attacks={HOSTILE[0]: partial(brighter, 0.1)},
        class_names=[HOSTILE[2], "bright", "dark"],
        random_state=0,
    )
    first = report.examples[0]
    unmoved = replace(first, adversarial=first.original, predicted=first.label, distance=0.0)
    kept = replace(report, examples=(unmoved, *report.examples))
    display = AdversarialExamplesDisplay.from_report(kept, n_examples=3)
    assert display.factor_ == 5  # a difference of 0.1 becomes half of the range
    images = [image.get_array() for image in display.ax_.images]
    assert len(images) == 9
    for row, example in enumerate(report.examples[:3]):
        pictures = (example.original, example.adversarial, torch.ones(shape))
        for found, picture in zip(images[3 * row :], pictures, strict=False):
            planes = picture.reshape(-1, 5, 4).expand(3, 5, 4).permute(1, 2, 0)
            assert np.asarray(found) == pytest.approx(planes.numpy(), abs=1e-6)
    said = texts_of(display.figure_)
    assert f"“{HOSTILE[2]}” taken for" in said
    assert f"{HOSTILE[0]}, 0.1" in said
    assert {"original", "adversarial", "difference × 5", "“bright”"} <= set(said)
    assert display.ax_.get_ylabel() == "fooled examples (linf distance, input units)"
    assert display.ax_.get_xlabel().startswith("pixel values")
    assert display.figure_ is display.ax_.figure


def test_reports_without_fooled_images_are_refused(halfspace, examples):
    inputs, labels = examples(4)
    none = evaluate(halfspace, inputs, labels, epsilon=0.1, attacks={"none": lambda m, x, y: x})
    flat = evaluate(
        Bright(), torch.full((2, 9), 0.45), torch.zeros(2, dtype=torch.int64), epsilon=0.11,
        attacks={"brighter": partial(brighter, 0.1)},
    )  # fmt: skip
    assert len(flat.examples) == 2
    for report in (none, flat, RobustnessReport.from_json(flat.to_json())):
        with pytest.raises(ValueError, match="examples must hold images of shape"):
            AdversarialExamplesDisplay.from_report(report)
    with pytest.raises(ValueError, match="n_examples must be at least 1, got 0"):
        AdversarialExamplesDisplay.from_report(flat, n_examples=0)


class Plane(nn.Module):
    """Two classes, their margin a plane; every point that it is asked about is kept."""

    def __init__(self, scale=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(scale * torch.randn(6, generator=generator, dtype=torch.float64))
        self.asked = []

    def forward(self, inputs):
        self.asked.append(inputs.detach().clone())
        value = inputs.flatten(1) @ self.weight
        return torch.stack([-value, value], dim=1) / 2


def drawn_on(display):
    return np.asarray(display.mesh_.get_array()).reshape(display.surface.margin.shape)


def test_the_surface_of_a_plane_is_a_plane():
    plane = Plane()
    X, y = torch.full((1, 2, 3), 0.5, dtype=torch.float64), torch.tensor([0])
    settings = {"radius": 0.2, "n_steps": 5, "random_state": 0}
    display = LossSurfaceDisplay.from_model(plane, X, y, **settings)
    surface, weight = display.surface, plane.weight.detach()
    steps = np.linspace(-0.2, 0.2, 5)
    assert surface.steps == pytest.approx(steps)
    across = (plane.asked[-1][2] - X[0]).flatten() / 0.2  # the last row, no step along the gradient
    assert across.abs().tolist() == pytest.approx([1.0] * 6)
    expected = (
        0.5 * weight.sum().item()
        + steps[None] * weight.abs().sum().item()
        + steps[:, None] * (weight @ across).item()
    )
    assert surface.margin == pytest.approx(expected)
    assert surface.cross_entropy == pytest.approx(np.logaddexp(0, expected))
    assert np.asarray(display.mesh_.get_array()).reshape(5, 5) == pytest.approx(
        surface.cross_entropy
    )
    other = display.plot(loss="margin")
    assert drawn_on(other) == pytest.approx(surface.margin)
    assert [axes.get_ylabel() for axes in other.figure_.axes] == [
        "step along random signs (input units)",
        "margin of the best other class (logits)",
    ]
    assert other.ax_.get_xlabel().endswith("(input units)")
    assert other.figure_ is other.ax_.figure
    again = LossSurfaceDisplay.from_model(plane, X, y, **settings).surface
    assert np.array_equal(again.margin, surface.margin)


def test_no_point_outside_the_bounds_is_asked_about():
    plane = Plane()
    X = torch.tensor([[0.0, 1.0, 0.5, 0.1, 0.9, 0.3]], dtype=torch.float64)
    LossSurfaceDisplay.from_model(plane, X, torch.tensor([1]), radius=0.4, n_steps=3)
    asked = torch.cat(plane.asked)
    assert asked.min() == 0
    assert asked.max() == 1


def test_a_saturated_network_is_flat_in_the_cross_entropy_alone():
    plane = Plane(1e4)
    X = torch.full((1, 6), 0.5, dtype=torch.float64)
    label = plane(X).argmax(dim=1)
    surface = LossSurfaceDisplay.from_model(plane, X, label, radius=0.05, n_steps=9).surface
    right = surface.margin < -800
    assert right.mean() > 0.4
    assert not surface.cross_entropy[right].any()
    assert np.unique(surface.margin[right]).size > 9


def test_a_model_without_a_slope_has_a_surface_too():
    flat = nn.Linear(4, 3)
    nn.init.zeros_(flat.weight)
    surface = LossSurfaceDisplay.from_model(
        flat, torch.full((1, 4), 0.5), torch.tensor([2]), radius=0.1, n_steps=4
    ).surface
    assert np.ptp(surface.margin) == 0


def test_a_model_of_stairs_is_looked_at_along_two_directions_that_move():
    """A gradient of zeros is none to walk along."""
    X, label = torch.full((1, 6), 0.5), torch.tensor([1])
    settings = {"radius": 0.4, "n_steps": 9, "random_state": 0}
    weights = torch.arange(12.0).view(6, 2).sin()
    steps = lambda x: (8 * x).round() @ weights + 0 * x.sum(dim=1, keepdim=True)  # noqa: E731
    surface = LossSurfaceDisplay.from_model(steps, X, label, **settings).surface
    assert np.ptp(surface.margin, axis=0).max() > 0
    assert np.ptp(surface.margin, axis=1).max() > 0


def test_rejection_counts_with_the_label_on_a_surface():
    model = nn.Sequential(nn.Linear(4, 3))
    model.rejects = True
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([1.0, 2.0, 5.0]))
    X, label = torch.full((1, 4), 0.5), torch.tensor([0])
    surface = LossSurfaceDisplay.from_model(model, X, label, radius=0.1, n_steps=3).surface
    # Class 1 over the larger of label and rejection.
    assert surface.margin == pytest.approx(np.full((3, 3), 2.0 - 5.0))


def test_an_estimator_is_asked_by_its_own_labels():
    X = torch.rand(12, 4, generator=torch.Generator().manual_seed(0)).numpy()
    labels = np.array(["b", "a"] * 6)
    classifier = UndefendedClassifier(nn.Linear(4, 2), max_epochs=1, random_state=0).fit(X, labels)
    surface = LossSurfaceDisplay.from_model(
        classifier, X[:1], labels[:1], radius=0.01, n_steps=3
    ).surface
    logits = classifier.model_(torch.from_numpy(X[:1]))
    assert surface.margin[1, 1] == pytest.approx((logits[0, 0] - logits[0, 1]).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": torch.zeros(2, 6), "y": torch.tensor([0, 1])}, "X must hold one example, got 2"),
        ({"y": torch.tensor([5])}, "y must"),
        ({"radius": 0.0}, "radius must be a finite number above 0"),
        ({"n_steps": 1}, "n_steps must be at least 2"),
        ({"loss": "dlr"}, "loss must be one of 'cross_entropy', 'margin'"),
        ({"X": torch.full((1, 6), 2.0)}, "X must"),
    ],
)
def test_what_has_no_surface_is_refused(change, message):
    settings = {"X": torch.zeros(1, 6), "y": torch.tensor([0]), "radius": 0.1} | change
    with pytest.raises(ValueError, match=message):
        LossSurfaceDisplay.from_model(Plane(), settings.pop("X"), settings.pop("y"), **settings)
