"""Curves, histograms and the transfer matrix, against closed forms."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distillguard import UndefendedClassifier, attacks, datasets, evaluate
from distillguard.evaluation import (
    Histogram,
    HistogramDisplay,
    RobustnessCurve,
    RobustnessCurveDisplay,
    TransferMatrixDisplay,
    confidence_histogram,
    gradient_histogram,
    robustness_curve,
    transfer_matrix,
)


def nearest(halfspace):
    """The closest adversarial example in l2, in closed form."""

    def attack(model, inputs, labels):
        direction = halfspace.w.detach() / halfspace.w.detach().norm()
        least = 1.0001 * halfspace.least_epsilon(inputs, "l2")
        away = torch.where(labels == 1, -1.0, 1.0) * least
        return inputs + away[:, None, None] * direction.view(1, *inputs.shape[1:])

    return attack


def test_the_curve_of_a_halfspace_is_the_distribution_of_its_distances(halfspace, examples):
    inputs, labels = examples(30)
    labels[:5] = 1 - labels[:5]
    curve = robustness_curve(
        halfspace, inputs, labels, minimum_distance={"exact": nearest(halfspace)}, norm="l2"
    )
    least = 1.0001 * halfspace.least_epsilon(inputs, "l2")[5:].numpy()
    assert curve.epsilons == pytest.approx(np.sort(np.append(least, 0)))
    assert curve.robust_accuracy == pytest.approx(np.arange(25, -1, -1) / 30)


def test_budgets_and_distances_agree_on_one_curve(halfspace, examples):
    inputs, labels = examples(30)
    radii = [0.02, 0.05, 0.1]
    settings = {"budget": attacks.fgsm, "epsilons": radii, "norm": "l2"}
    alone = robustness_curve(halfspace, inputs, labels, **settings)
    both = robustness_curve(
        halfspace, inputs, labels, minimum_distance={"e": nearest(halfspace)}, **settings
    )
    least = halfspace.least_epsilon(inputs, "l2").numpy()
    for radius in radii:
        expected = (least > radius).mean()
        for curve in (alone, both):
            place = curve.epsilons.tolist().index(radius)
            assert curve.robust_accuracy[place] == pytest.approx(expected, abs=1 / 30)
    assert (np.diff(both.robust_accuracy) <= 0).all()
    with pytest.raises(ValueError, match="robustness_curve must get minimum_distance attacks"):
        robustness_curve(halfspace, inputs, labels)


def test_a_budget_attack_runs_from_the_smallest_radius_on_what_stands_there(halfspace, examples):
    inputs, labels = examples(30)
    labels[:5] = 1 - labels[:5]
    ran = []

    def exact(model, inputs, labels, *, epsilon, norm):
        ran.append((epsilon, len(inputs)))
        found = nearest(halfspace)(model, inputs, labels)
        far = (found - inputs).flatten(1).norm(dim=1) > epsilon
        return torch.where(far[:, None, None], inputs, found)

    least = 1.0001 * halfspace.least_epsilon(inputs, "l2")[5:]
    radii = least.quantile(least.new_tensor([0.77, 0.23, 0.52])).tolist()
    curve = robustness_curve(halfspace, inputs, labels, budget=exact, epsilons=radii, norm="l2")
    before = [0.0, *sorted(radii)[:2]]
    standing = [int((least > radius).sum()) for radius in before]
    assert ran == list(zip(sorted(radii), standing, strict=True))
    assert 0 < standing[2] < standing[1] < standing[0] == 25
    assert curve.robust_accuracy[-1] == pytest.approx((least > max(radii)).sum().item() / 30)


def test_the_curve_keeps_what_became_of_each_example_at_each_radius(halfspace, examples):
    inputs, labels = examples(30)
    labels[:5] = 1 - labels[:5]
    words, radii = np.array(["no", "yes"])[labels], [0.02, 0.05, 0.1]
    exact, settings = nearest(halfspace), {"norm": "l2", "random_state": 0}
    curve = robustness_curve(
        Named(halfspace),
        inputs,
        words,
        minimum_distance={"exact": lambda *args: torch.cat([args[1][:9], exact(*args)[9:]])},
        budget={"one step": attacks.fgsm},
        epsilons=radii,
        **settings,
    )
    # Examples 5 to 13 are left to the budget attack, which goes all the way to its three radii.
    falls = 1.0001 * halfspace.least_epsilon(inputs, "l2").numpy()
    falls[5:14] = [min((r for r in radii if r >= d), default=np.inf) for d in falls[5:14]]
    for radius in (*curve.epsilons, 0.07):
        table = curve.at(radius)
        within = falls[5:] <= radius * (1 + 1e-6)
        assert table.robust.tolist() == [False] * 5 + (~within).tolist()
        assert table.robust.mean() == curve.robust_accuracy[curve.epsilons <= radius][-1]
        assert table.distance[5:][within] == pytest.approx(falls[5:][within], rel=1e-5)
        assert np.isnan(table.distance[5:][~within]).all()
    names = curve.per_example.fooled_by
    assert names[:5] == (None,) * 5
    assert names[5:14] == tuple("one step" if d < np.inf else None for d in falls[5:14])
    assert set(names[5:]) == {"exact", "one step", None}
    assert set(names[14:]) == {"exact"}
    for radius in radii:
        alone = evaluate(
            Named(halfspace), inputs, words, epsilon=radius, attacks=exact, **settings
        ).per_example
        table = curve.at(radius)
        assert table.label.tolist() == alone.label.tolist() == words.tolist()
        assert table.predicted.tolist() == alone.predicted.tolist()
        assert table.margin == pytest.approx(alone.margin)
        assert table.robust.tolist() == alone.robust.tolist()
    with pytest.raises(ValueError, match=r"epsilon must be .* got -1"):
        curve.at(-1)
    with pytest.raises(ValueError, match=r"per_example must hold .* got None"):
        RobustnessCurve.from_radii(np.array([0.1]), "l2").at(0.1)


def test_gradients_are_sorted_by_the_jacobian_of_the_softmax():
    torch.manual_seed(0)
    model, inputs = nn.Linear(4, 3).double(), torch.rand(20, 4, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: model(x).softmax(dim=0)))(inputs)
    magnitude = jacobian.abs().mean(dim=(1, 2)).detach().numpy()
    edges = np.quantile(magnitude, [0, 0.25, 0.5, 1]) * [1, 1, 1, 1.01]
    counts = gradient_histogram(model, inputs, edges=edges, batch_size=7).counts
    assert counts.tolist() == np.histogram(magnitude, edges)[0].tolist()


def test_gradients_that_underflow_fall_into_the_lowest_bin():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    inputs = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    counts = gradient_histogram(lambda x: 1000 * x @ weight, inputs).counts
    assert counts[0] == counts[-1] == 1
    assert gradient_histogram(lambda x: 2 * x @ weight, inputs, temperature=2).counts[-1] == 2


def test_confidence_is_that_of_the_softmax_at_the_temperature():
    logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for temperature in (1.0, 20.0):
        confidence = torch.softmax(logits / temperature, dim=1).amax(dim=1).numpy()
        found = confidence_histogram(lambda x: x, logits, temperature=temperature, bins=10)
        assert found.counts.tolist() == np.histogram(confidence, 10, (0, 1))[0].tolist()


def test_transfer_is_counted_where_both_models_were_right():
    class Sign(nn.Module):
        def __init__(self, place):
            super().__init__()
            self.place = place

        def forward(self, inputs):
            value = inputs[:, self.place] - 0.5
            return torch.stack([-value, value], dim=1)

    models = {"first": Sign(0), "again": Sign(0), "second": Sign(1)}
    inputs = torch.tensor([[0.4, 0.4], [0.4, 0.1], [0.1, 0.4], [0.4, 0.9]])
    labels = torch.zeros(4).long()
    matrix = transfer_matrix(models, partial(attacks.fgsm, epsilon=0.2), inputs, labels)
    # The first model falls on three of its four; the second is wrong on the last from the start.
    assert np.asarray(matrix)[0] == pytest.approx([0.75, 0.75, 0])
    assert np.asarray(matrix)[2] == pytest.approx([0, 0, 2 / 3])
    assert np.asarray(matrix) is matrix.matrix
    assert np.asarray(matrix, dtype=np.float32).dtype == np.float32
    copied = np.array(matrix)
    copied[:] = 2
    assert np.nanmax(matrix.matrix) <= 1


def test_attacks_that_work_in_place_are_measured_like_those_that_do_not(halfspace, examples):
    def in_place(model, inputs, labels):
        return inputs.copy_(nearest(halfspace)(model, inputs, labels))

    inputs, labels = examples(20)
    found, expected = (
        robustness_curve(halfspace, inputs, labels, minimum_distance={"a": attack}, norm="l2")
        for attack in (in_place, nearest(halfspace))
    )
    assert np.array_equal(found.epsilons, expected.epsilons)
    assert np.array_equal(found.robust_accuracy, expected.robust_accuracy)


class Named:
    """A fitted estimator whose classes are words."""

    def __init__(self, network):
        self.model_, self.classes_ = network, np.array(["no", "yes"])


def test_curves_and_matrices_take_whatever_evaluate_takes(halfspace, examples):
    inputs, labels = examples(20)
    dataset = TensorDataset(inputs, labels)
    words = np.array(["no", "yes"])[labels]
    sources = [
        (halfspace, inputs, labels),
        (halfspace, inputs.numpy(), labels.numpy()),
        (halfspace, inputs, labels.tolist()),
        (halfspace, (inputs, labels), None),
        (halfspace, dataset, None),
        (halfspace, DataLoader(dataset, batch_size=7), None),
        (Named(halfspace), inputs, words),
        (Named(halfspace), inputs.numpy(), words.tolist()),
    ]
    settings = {"budget": "fgsm", "epsilons": np.linspace(0, 0.1, 5), "norm": "l2"}
    expected = robustness_curve(halfspace, inputs, labels, **settings)
    moved = transfer_matrix([halfspace], "fgsm", inputs, labels, epsilon=0.05)
    assert 0 < expected.robust_accuracy[-1] < 1
    assert 0 < np.asarray(moved)[0, 0] < 1
    for model, X, y in sources:
        curve = robustness_curve(model, X, y, **settings)
        assert curve.epsilons.tolist() == expected.epsilons.tolist()
        assert curve.robust_accuracy.tolist() == expected.robust_accuracy.tolist()
        matrix = transfer_matrix({"a": model}, "fgsm", X, y, epsilon=0.05)
        assert np.asarray(matrix).tolist() == np.asarray(moved).tolist()
    both = transfer_matrix([halfspace, Named(halfspace)], "fgsm", inputs, words, epsilon=0.05)
    assert both.names == ("Halfspace", "Named")
    assert (np.asarray(both) == np.asarray(moved)).all()


def test_models_of_one_class_are_numbered(halfspace, examples):
    inputs, labels = examples(20)
    matrix = transfer_matrix([halfspace] * 3, "fgsm", inputs, labels, epsilon=0.05)
    assert matrix.names == ("Halfspace", "Halfspace 2", "Halfspace 3")
    assert (np.asarray(matrix) == np.asarray(matrix)[0, 0]).all()


def test_a_mask_of_each_example_stays_with_it_where_some_are_wrong(halfspace, examples):
    inputs, labels = examples(20)
    labels[:7] = 1 - labels[:7]
    mask = (torch.arange(20) % 2 == 0)[:, None, None].expand_as(inputs)
    settings = {"norm": "l2", "epsilon": 9.0, "mask": mask}
    moved = transfer_matrix([halfspace], "deepfool", inputs, labels, **settings)
    assert moved.n_examples.item() == 13
    assert np.asarray(moved).item() == pytest.approx(6 / 13)


def test_histograms_take_whatever_evaluate_takes(halfspace, examples):
    inputs, labels = examples(20)
    dataset = TensorDataset(inputs, labels)
    for measure in (confidence_histogram, gradient_histogram):
        expected = measure(halfspace, inputs).counts.tolist()
        for model, X, y in [
            (halfspace, inputs.numpy(), labels),
            (halfspace, inputs.tolist(), None),
            (halfspace, (inputs, labels), None),
            (halfspace, dataset, None),
            (halfspace, DataLoader(dataset, batch_size=7), None),
            (halfspace, DataLoader(inputs, batch_size=7), None),
            (Named(halfspace), inputs, labels),
        ]:
            assert measure(model, X, y).counts.tolist() == expected


def test_an_estimator_with_named_classes_and_arrays_gives_the_curve_of_its_network():
    X, y = datasets.load_digits("train")
    words = np.array([f"digit {label}" for label in y.tolist()])
    estimator = UndefendedClassifier(max_epochs=2, random_state=0).fit(X[:500], words[:500])
    places = torch.tensor([np.flatnonzero(estimator.classes_ == word)[0] for word in words[:20]])
    settings = {"budget": attacks.fgsm, "epsilons": [0.0, 0.1]}
    curve = robustness_curve(estimator, X[:20].numpy(), words[:20], **settings)
    bare = robustness_curve(estimator.model_, X[:20], places, **settings)
    assert curve.robust_accuracy.tolist() == bare.robust_accuracy.tolist()
    assert curve.robust_accuracy[0] == estimator.score(X[:20], words[:20])
    # A bare attack in place of a mapping.
    nearest = robustness_curve(estimator, X[:20], words[:20], minimum_distance=attacks.ddn)
    named = robustness_curve(estimator, X[:20], words[:20], minimum_distance={"d": attacks.ddn})
    assert nearest.epsilons.tolist() == named.epsilons.tolist()


def test_a_radius_of_0_asks_for_the_clean_accuracy_and_no_attack(halfspace, examples):
    inputs, labels = examples(10)
    labels[:3] = 1 - labels[:3]

    def never(model, inputs, labels, *, epsilon, norm):
        raise AssertionError

    curve = robustness_curve(halfspace, inputs, labels, budget=never, epsilons=0)
    assert curve.robust_accuracy.tolist() == [0.7]


def test_points_that_leave_the_bounds_by_feature_or_the_mask_do_not_count(halfspace, examples):
    inputs, labels = examples(20)
    mask = torch.zeros(inputs.shape[1:], dtype=torch.bool)
    mask[0] = True
    low, high = inputs.amin(dim=0) - 0.01, inputs.amax(dim=0) + 0.01

    def everywhere(model, inputs, labels):
        return attacks.fgsm(model, inputs, labels, epsilon=1.0, bounds=(-1.0, 2.0))

    assert everywhere(halfspace, inputs, labels).sub(inputs).abs().min() > 0.9
    for limits in ({"mask": mask}, {"bounds": (low, high)}):
        curve = robustness_curve(
            halfspace, inputs, labels, minimum_distance=everywhere, norm="l2", **limits
        )
        assert curve.robust_accuracy.tolist() == [1]
        matrix = transfer_matrix([halfspace], everywhere, inputs, labels, **limits)
        assert np.asarray(matrix).tolist() == [[0]]
        # An attack of ours is told, and moves what may move.
        told = robustness_curve(
            halfspace, inputs, labels, minimum_distance="deepfool", norm="l2", **limits
        )
        assert told.robust_accuracy[-1] < 1
        settings = {"norm": "l2", "epsilon": 9.0, **limits}
        moved = transfer_matrix([halfspace], "deepfool", inputs, labels, **settings)
        assert np.asarray(moved)[0, 0] > 0


def test_points_beyond_epsilon_do_not_transfer(halfspace, examples):
    inputs, labels = examples(20)
    exact = nearest(halfspace)
    least = 1.0001 * halfspace.least_epsilon(inputs, "l2")
    epsilon = least.median().item()
    matrix = transfer_matrix([halfspace], exact, inputs, labels, norm="l2", epsilon=epsilon)
    assert np.asarray(matrix)[0, 0] == pytest.approx((least <= epsilon).double().mean().item())


def test_the_same_seed_gives_the_same_curve_and_the_curve_names_it(halfspace, examples):
    inputs, labels = examples(20)

    def noise(model, x, y):
        return (x + 0.3 * (torch.rand_like(x) - 0.5)).clamp(0, 1)

    first, second, other = (
        robustness_curve(halfspace, inputs, labels, minimum_distance=noise, random_state=seed)
        for seed in (1, 1, 2)
    )
    assert first.epsilons.tolist() == second.epsilons.tolist() != other.epsilons.tolist()
    assert (first.random_state, other.random_state) == (1, 2)


def test_shares_come_with_wilson_intervals(halfspace, examples):
    def wilson(count, n):
        interval = binomtest(int(count), int(n)).proportion_ci(0.95, "wilson")
        return pytest.approx([interval.low, interval.high], abs=1e-12)

    inputs, labels = examples(30)
    labels[:5] = 1 - labels[:5]
    exact = nearest(halfspace)
    curve = robustness_curve(halfspace, inputs, labels, minimum_distance=exact, norm="l2")
    for place, ends in enumerate(curve.robust_interval.tolist()):
        assert ends == wilson(25 - place, 30)

    bars = confidence_histogram(halfspace, inputs, bins=4)
    assert bars.n_examples == 30
    for count, share, ends in zip(bars.counts, bars.shares, bars.intervals.tolist(), strict=True):
        assert share == count / 30
        assert ends == wilson(count, 30)

    opposite = nn.Sequential(halfspace, nn.Linear(2, 2, bias=False, dtype=torch.float64))
    with torch.no_grad():
        opposite[1].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    matrix = transfer_matrix({"a": halfspace, "b": opposite}, exact, inputs, labels, norm="l2")
    # What the one knows the other does not.
    assert matrix.n_examples.tolist() == [[25, 0], [0, 5]]
    assert matrix.intervals[0, 0].tolist() == wilson(25, 25)
    assert np.isnan(matrix.intervals[0, 1]).all()
    assert np.isnan(np.asarray(matrix)[0, 1])


def test_results_print_as_tables():
    curve = RobustnessCurve.from_radii(np.array([0.0, 0.1, 0.3, np.inf]), "linf", [0.2])
    assert repr(curve) == (
        "RobustnessCurve(linf, 4 radii to 0.3, accuracy 75.0 % to 25.0 %, 4 examples)"
    )
    assert str(curve).splitlines()[-2:] == [
        "0.2               50.0 %   [15.0, 85.0]",
        "0.3               25.0 %    [4.6, 69.9]",
    ]
    assert curve._repr_html_().count("<tr>") == 5

    bars = confidence_histogram(nn.Identity(), 9 * torch.eye(3), bins=2)
    assert repr(bars) == (
        "Histogram(probability of the predicted class, 2 bins from 0 to 1, 3 examples)"
    )
    assert str(bars).splitlines()[-1] == "0.5 to 1         3  100.0 %  [43.9, 100.0]"

    inputs, labels = torch.tensor([[0.9, 0.2], [0.3, 0.4]]), torch.tensor([0, 1])
    matrix = transfer_matrix({"a": nn.Identity()}, "fgsm", inputs, labels, epsilon=0.1)
    assert repr(matrix) == "TransferMatrix(a; 2 examples in each entry)"
    assert str(matrix).splitlines()[-1] == "a        50.0 % [9.5, 90.5]"
    assert "<td>50.0 % [9.5, 90.5]</td>" in matrix._repr_html_()


def test_a_long_curve_prints_its_first_and_its_last_radius():
    curve = RobustnessCurve.from_radii(np.linspace(0.01, 1, 100), "l2")
    lines = str(curve).splitlines()
    assert len(lines) == 4 + 12
    assert (lines[4].split()[0], lines[-1].split()[0]) == ("0", "1")


def test_displays_label_their_axes_with_units(halfspace, examples):
    import matplotlib as mpl

    mpl.use("Agg")
    inputs, labels = examples(10)
    drawn = RobustnessCurveDisplay.from_predictions([0.0, 0.1, 0.3, np.inf], norm="linf", name="a")
    assert drawn.line_.get_xdata().tolist() == [0, 0.1, 0.3]
    assert drawn.line_.get_ydata().tolist() == [75, 50, 25]
    assert drawn.ax_.get_xlabel() == "epsilon (linf, input units)"
    assert drawn.ax_.get_ylabel() == "robust accuracy (%)"
    other = RobustnessCurveDisplay.from_estimator(
        halfspace, inputs, labels, budget=attacks.fgsm, epsilons=[0.1], ax=drawn.ax_
    )
    assert other.ax_ is drawn.ax_
    assert [text.get_text() for text in drawn.ax_.get_legend().get_texts()] == ["a", "Halfspace"]
    low, high = 100 * drawn.curve.robust_interval.T
    drawn_band = drawn.band_.get_paths()[0].vertices[:, 1]
    assert (drawn_band.min(), drawn_band.max()) == pytest.approx((low.min(), high.max()))
    assert drawn.figure_ is drawn.ax_.figure
    bars = HistogramDisplay(confidence_histogram(halfspace, inputs, bins=4)).plot()
    assert sum(bar.get_height() for bar in bars.ax_.patches) == 10
    assert bars.ax_.get_xlabel() == "probability of the predicted class"
    assert bars.ax_.get_ylabel() == "examples (of 10)"
    assert bars.figure_ is bars.ax_.figure
    matrix = TransferMatrixDisplay([[1.0, 0.25], [0.5, 1.0]], ["a", "b"]).plot()
    assert [text.get_text() for text in matrix.ax_.texts] == ["100 %", "25 %", "50 %", "100 %"]
    assert [axes.get_ylabel() for axes in matrix.figure_.axes] == [
        "made on (model)",
        "misclassified (%)",
    ]
    named = transfer_matrix([halfspace], "fgsm", inputs, labels, epsilon=0.1)
    drawn = TransferMatrixDisplay(named).plot()
    assert [text.get_text() for text in drawn.ax_.get_xticklabels()] == ["Halfspace"]
    mpl.pyplot.close("all")


@pytest.mark.parametrize(("counts", "shares"), [([0, 0], [0, 0]), ([0, 1], [0, 1])])
def test_a_histogram_of_hardly_any_examples_has_their_shares(counts, shares):
    histogram = Histogram(np.array(counts), np.array([0.0, 0.5, 1.0]), "probability")
    assert histogram.shares.tolist() == shares
