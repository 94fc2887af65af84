"""What stands where in a drawing, read from its artists."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgba
from scipy.stats import binomtest

from distillguard import attacks
from distillguard.evaluation import (
    AdversarialExamplesDisplay,
    AttackTrace,
    AttackTraceDisplay,
    Example,
    Histogram,
    HistogramDisplay,
    RobustnessCurveDisplay,
    TransferMatrixDisplay,
    compare,
)
from distillguard.evaluation._attack_displays import _one_digit, curve
from distillguard.evaluation._statistics import intervals
from distillguard.evaluation.report._pictures import data_url, scaled
from test_report_by_hand import BASE, RICH, row, told


@pytest.fixture(autouse=True)
def closed():
    mpl.use("Agg")
    yield
    pyplot.close("all")


def ends(count, n):
    return 100 * np.array(binomtest(count, n).proportion_ci(0.95, "wilson"))


def ticks(axis):
    return [
        (place, text.get_text())
        for place, text in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    ]


def test_a_curve_is_a_step_to_the_right_with_a_band_of_its_own_colour():
    display = RobustnessCurveDisplay.from_predictions([0.0, 0.1, 0.2, np.inf], norm="l0", name="a")
    line, band = display.line_, display.band_
    assert line.get_drawstyle() == "steps-post"
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0, 0.1, 0.2], [75, 50, 25])
    # The band steps as the line does: at 0.1 it is as high on the left as at 0.
    corners = {(round(x, 3), round(y, 3)) for x, y in band.get_paths()[0].vertices}
    for x, count in ((0, 3), (0.1, 3), (0.1, 2), (0.2, 2), (0.2, 1)):
        assert {(x, round(end, 3)) for end in ends(count, 4)} <= corners
    assert to_rgba(line.get_color())[:3] == pytest.approx(band.get_facecolor()[0][:3])
    assert band.get_facecolor()[0][3] == pytest.approx(0.2)  # the line is seen through it
    assert band.get_linewidth() == [0]
    assert display.ax_.get_ylim() == (0, 100)
    assert display.ax_.get_xlim()[0] == 0
    assert display.ax_.get_xlim()[1] > 0.2
    assert display.ax_.get_xlabel() == "epsilon (l0, values)"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["a"]
    nameless = RobustnessCurveDisplay(display.curve).plot(color="red")
    assert nameless.ax_.get_legend() is None
    assert nameless.line_.get_color() == "red"
    assert nameless.band_.get_facecolor()[0][:3].tolist() == [1, 0, 0]
    assert nameless.ax_ is not display.ax_


def test_bars_of_a_histogram_stand_between_its_edges_with_their_intervals():
    histogram = Histogram(np.array([3, 0, 7]), np.array([0.0, 1e-5, 0.5, 1.0]), "gradient")
    axes = HistogramDisplay(histogram).plot().ax_
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches]
    assert bars == [pytest.approx((place + 0.05, 0.9, n)) for place, n in enumerate((3, 0, 7))]
    lines = axes.collections[0].get_segments()
    for place, (segment, count) in enumerate(zip(lines, (3, 0, 7), strict=True)):
        assert segment[:, 0].tolist() == [place + 0.5] * 2
        assert segment[:, 1] == pytest.approx(ends(count, 10) / 10, abs=1e-9)
    assert ticks(axes.xaxis) == [(0, "0"), (1, "1e-05"), (2, "0.5"), (3, "1")]
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {60}
    none = HistogramDisplay(Histogram(np.array([0, 0]), np.array([0.0, 0.5, 1.0]), "gradient"))
    assert [bar.get_height() for bar in none.plot().ax_.patches] == [0, 0]


def luminance(colour):
    """Relative luminance (WCAG 2)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_a_heat_map_runs_from_0_to_100_and_its_texts_stand_out():
    shares = np.array([[0.0, 0.3, 0.59], [0.6, 0.75, 1.0], [np.nan, 0.5, 0.9]])
    display = TransferMatrixDisplay(shares, ["a", "b", "c"]).plot()
    image, axes = display.ax_.images[0], display.ax_
    assert image.get_clim() == (0, 100)
    assert np.ma.filled(image.get_array().astype(float), np.nan) == pytest.approx(
        100 * shares, nan_ok=True
    )
    assert image.get_cmap().name == "viridis"
    assert axes.get_aspect() == "auto"
    for text in axes.texts:
        column, line = text.get_position()
        share = shares[line, column]
        assert text.get_text() == ("none" if np.isnan(share) else f"{100 * share:.0f} %")
        assert (text.get_ha(), text.get_va()) == ("center", "center")
        behind = 1.0 if np.isnan(share) else luminance(image.get_cmap()(share))
        light, dark = sorted((behind, luminance(to_rgba(text.get_color()))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3
    assert [text.get_color() for text in axes.texts] == ["white"] * 3 + ["black"] * 4 + [
        "white",
        "black",
    ]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == [(0, "a"), (1, "b"), (2, "c")]
    assert {(text.get_rotation(), text.get_ha()) for text in axes.get_xticklabels()} == {
        (30, "right")
    }
    numbered = TransferMatrixDisplay(shares)
    assert numbered.names == ["0", "1", "2"]


def test_cells_of_compared_networks_hold_accuracies_with_what_tells_their_error():
    other = replace(BASE, n_examples=40)
    worse = replace(BASE, robust_accuracy=0.25)
    display = compare(one=BASE, both=[BASE, worse]).plot()
    texts = {text.get_position(): text.get_text() for text in display.ax_.texts}
    low = told(16, 20).replace(" [", "\n[")
    assert texts[0, 0] == low
    assert display.ax_.images[0].get_clim() == (0, 100)
    assert texts[1, 0] == "80.0 %\n± 0.0"
    # The attacks and the worst case; 50 % and 25 % have a deviation of 25 / sqrt(2) %.
    assert texts[1, 3] == "37.5 %\n± 17.7"
    assert len(texts) == 2 * 5
    assert display.figure_.get_size_inches().tolist() == pytest.approx([3.5 + 2.8, 1.8 + 2.5])
    assert display.ax_.get_ylabel() == "attack, after those above it"
    apart = [replace(each, survivors_only=False) for each in (BASE, other)]
    display = compare(a=apart[0], b=apart[1]).plot()
    assert display.ax_.get_ylabel() == "attack"
    assert display.ax_.get_xlabel() == "network"
    names = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert names == ["a\nlinf 0.1, 20 examples", "b\nlinf 0.1, 40 examples"]
    alike = compare(a=BASE, b=BASE).plot()
    assert alike.ax_.get_xlabel() == "network (linf 0.1, 20 examples)"
    assert [text.get_text() for text in alike.ax_.get_xticklabels()] == ["a", "b"]
    long = "x" * 50
    named = compare({long: replace(BASE, attacks=(row(long, 16, 4, 12),))}).plot()
    assert [text.get_text() for text in named.ax_.get_xticklabels()] == ["x" * 29 + "…"]
    assert [text.get_text() for text in named.ax_.get_yticklabels()][1] == "x" * 39 + "…"


def test_the_bars_of_a_report_have_their_intervals_and_the_clean_one_another_colour():
    figure = RICH.plot()
    (axes,) = figure.axes
    counts = [16, 12, 10, 10, 7]
    bars = [patch for patch in axes.patches if patch.get_height() > 0.5]
    assert [bar.get_width() for bar in bars] == pytest.approx([5 * count for count in counts])
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx(range(5))
    colours = [bar.get_facecolor() for bar in bars]
    assert colours == [to_rgba("C7")] + [to_rgba("C0")] * 4
    found = [each.get_segments()[0][:, 0] for each in axes.collections]
    for span, count in zip(found, counts, strict=True):
        assert span == pytest.approx(ends(count, 20))
    assert [text for _, text in ticks(axes.yaxis)] == [
        "clean", "FGSM", "PGD", "worst case of these", "to quote",
    ]  # fmt: skip
    assert axes.yaxis_inverted()
    assert (axes.get_xlim(), axes.get_xlabel()) == ((0, 100), "accuracy (%)")
    assert axes.get_title() == "A title, linf 0.1"
    assert figure.get_size_inches().tolist() == [7, 3]
    assert BASE.plot().axes[0].get_title() == "Net, linf 0.1"
    # An interval that ends short of the share, by rounding, has no error below 0.
    odd = replace(BASE, clean_accuracy=1.0, clean_interval=(0.9, 1 - 1e-12))
    assert odd.plot().axes[0].collections[0].get_segments()[0][1, 0] == pytest.approx(100)
    odd = replace(BASE, clean_accuracy=0.0, clean_interval=(1e-12, 0.1))
    assert odd.plot().axes[0].collections[0].get_segments()[0][0, 0] == pytest.approx(0)


def test_traces_are_drawn_as_steps_of_what_stands_and_as_lines_of_the_rest():
    trace = SimpleNamespace(
        margin=np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0], [7.0, 8.0]]),
        distance=np.full((4, 2), np.nan),
        standing=np.array([1.0, 0.5, 0.25]),
        standing_interval=intervals([1, 0.5, 0.25], 4),
    )
    assert [each.shape for each in curve(trace, "distance")] == [(2,)] * 4
    values = np.array([[1, 2], [3, 3], [5, 6], [7, 8]])
    places, middle, low, high = curve(trace, "margin")
    assert places.tolist() == [1, 2]
    for found, share in ((low, 0.25), (middle, 0.5), (high, 0.75)):
        assert found.tolist() == np.quantile(values, share, axis=0).tolist()
    places, middle, low, high = curve(trace, "standing")
    assert (places.tolist(), middle.tolist()) == ([0, 1, 2], [100, 50, 25])
    assert [low[1], high[1]] == pytest.approx(ends(2, 4))


class Stairs(torch.nn.Module):
    def forward(self, inputs):
        return torch.cat([-inputs, inputs], dim=1)


@pytest.mark.parametrize("quantity", ["standing", "margin", "cross_entropy", "distance"])
def test_each_quantity_of_traces_has_axes_of_its_own(quantity):
    inputs, labels = torch.linspace(-0.5, -0.1, 5)[:, None], torch.zeros(5, dtype=torch.int64)
    trace = AttackTrace(inputs, labels, norm="l2", epsilon=0.25)
    attacks.pgd(
        Stairs(), inputs, labels, epsilon=0.25, norm="l2", bounds=(-1.0, 1.0), steps=4,
        step_size=0.05, random_start=False, callback=trace,
    )  # fmt: skip
    display = AttackTraceDisplay.from_traces({"a": trace, "b": trace}, quantity=quantity)
    stands = quantity == "standing"
    line, other = display.lines_
    assert line.get_drawstyle() == ("steps-post" if stands else "default")
    band = display.ax_.collections[0]
    assert to_rgba(line.get_color())[:3] == pytest.approx(band.get_facecolor()[0][:3])
    assert line.get_color() != other.get_color()
    assert band.get_facecolor()[0][3] == pytest.approx(0.2)
    assert band.get_linewidth() == [0]
    assert (display.ax_.get_ylim() == (0, 100)) == stands
    assert (display.ax_.get_xlim()[0] == 0) == stands
    level = [each for each in display.ax_.lines if list(each.get_ydata()) == [0, 0]]
    assert len(level) == (quantity == "margin")
    corners = band.get_paths()[0].vertices
    left, right = corners[:, 0].min(), corners[:, 0].max()
    assert (left, right) == (line.get_xdata()[0], line.get_xdata()[-1])
    # Steps have two corners at each place, lines one, above and below.
    assert len(corners) > 4 * len(line.get_xdata()) - 4 if stands else True
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["a", "b"]


def example(original, adversarial, **more):
    known = {"label": "0", "predicted": "1", "attack": "a", "distance": 0.125, "index": 3}
    return Example(original, adversarial, **known | more)


def test_three_pictures_of_an_example_stand_side_by_side():
    dark = torch.full((2, 3), 0.5)
    lighter = dark.clone()
    lighter[0, 1] = 0.75
    darker = dark.clone()
    darker[1, 2] = 0.25
    shown = [example(dark, lighter), example(dark, darker, distance=0.25, label="x")]
    display = AdversarialExamplesDisplay(shown, norm="l0").plot()
    assert display.factor_ == 2
    extents = [image.get_extent() for image in display.ax_.images]
    assert extents == [
        pytest.approx((column + 0.03, column + 0.97, line + 0.97, line + 0.03))
        for line in range(2)
        for column in range(3)
    ]
    images = [np.asarray(image.get_array())[..., 0] for image in display.ax_.images]
    assert images[2].tolist() == [[0.5, 1.0, 0.5], [0.5, 0.5, 0.5]]
    assert images[5].tolist() == [[0.5, 0.5, 0.5], [0.5, 0.5, 0.0]]
    assert {image.get_interpolation() for image in display.ax_.images} == {"nearest"}
    assert [place for place, _ in ticks(display.ax_.xaxis)] == [0.5, 1.5, 2.5]
    assert ticks(display.ax_.yaxis) == [
        (0.5, "“0” taken for\n“1”\na, 0.125"),
        (1.5, "“x” taken for\n“1”\na, 0.25"),
    ]
    assert (display.ax_.get_xlim(), display.ax_.get_ylim()) == ((0, 3), (2, 0))
    assert display.ax_.get_aspect() == 1
    assert not any(side.get_visible() for side in display.ax_.spines.values())
    assert display.figure_.get_size_inches().tolist() == pytest.approx([7, 0.6 + 3.2])
    assert display.ax_.get_ylabel() == "fooled examples (l0 distance, values)"


@pytest.mark.parametrize(
    ("largest", "factor"),
    [
        (0.0, 1.0),
        (0.5, 1.0),
        (0.75, 0.6),
        (1.0, 0.5),
        (0.1, 5),
        (0.11, 4),
        (8 / 255, 10),
        (0.26, 1),
    ],
)
def test_a_difference_is_multiplied_by_one_digit_that_keeps_it_in_half_of_the_range(
    largest, factor
):
    assert _one_digit(largest) == factor
    assert largest * factor <= 0.5 * (1 + 1e-4)


def test_pictures_are_scaled_by_their_bounds_and_nothing_else_is_a_picture():
    values = torch.tensor([[-1.0, 0.0, 1.0, 3.0, 5.0]])
    assert scaled(values, (-1.0, 3.0)).tolist() == [[[0, 0.25, 0.5, 1, 1]]]
    assert scaled(values[None], ((-1.0,), (3.0,))).shape == (1, 1, 5)
    assert scaled(torch.zeros(3, 2, 2), (0.0, 1.0)).shape == (3, 2, 2)
    for other in (torch.zeros(2), torch.zeros(2, 2, 2), torch.zeros(1, 1, 2, 2)):
        assert scaled(other, (0.0, 1.0)) is None
        assert data_url(other, (0.0, 1.0)) == ""
    assert not scaled(values.clone().requires_grad_(), (0.0, 1.0)).requires_grad
    assert scaled(values.half(), (-1.0, 3.0)).dtype == torch.float32
