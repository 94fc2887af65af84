"""Curves, histograms and the transfer matrix, against closed forms."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import attacks
from distillguard.evaluation import (
    HistogramDisplay,
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
    assert gradient_histogram(lambda x: x @ weight, inputs, temperature=1).counts[-1] == 2


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
    assert matrix[0] == pytest.approx([0.75, 0.75, 0])
    assert matrix[2] == pytest.approx([0, 0, 2 / 3])


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
    bars = HistogramDisplay(confidence_histogram(halfspace, inputs, bins=4)).plot()
    assert sum(bar.get_height() for bar in bars.ax_.patches) == 10
    assert bars.ax_.get_xlabel() == "probability of the predicted class"
    matrix = TransferMatrixDisplay([[1.0, 0.25], [0.5, 1.0]], ["a", "b"]).plot()
    assert [text.get_text() for text in matrix.ax_.texts] == ["100 %", "25 %", "50 %", "100 %"]
    mpl.pyplot.close("all")
