"""The museum's defences are the papers', its attacks keep to the rules, its page tells the rows."""

import importlib
import io
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
exhibits = importlib.import_module("benchmarks._museum.exhibits")
front = importlib.import_module("benchmarks._museum.transformations")
inner = importlib.import_module("benchmarks._museum.networks")
training = importlib.import_module("benchmarks._museum.training")
adaptive = importlib.import_module("benchmarks._museum.adaptive")
cards = importlib.import_module("benchmarks._museum.cards")
museum = importlib.import_module("benchmarks.museum")


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(4, 1, 28, 28)


@pytest.mark.parametrize("exhibit", exhibits.EXHIBITS, ids=lambda one: one.name)
def test_every_defence_answers_ten_classes_and_those_that_reject_one_more(exhibit, images):
    torch.manual_seed(0)
    model = exhibit.make().eval()
    assert model(images).shape == (4, 11 if exhibit.rejects else 10)
    for attacked in exhibit.stand_ins(model).values():
        asked = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(attacked(asked).logsumexp(dim=1).sum(), asked)
        assert (gradient.flatten(1) != 0).any(dim=1).all()


@pytest.mark.parametrize("exhibit", exhibits.EXHIBITS, ids=lambda one: one.name)
def test_exactly_what_is_said_to_be_random_is(exhibit, images):
    torch.manual_seed(0)
    model = exhibit.make().eval()
    with torch.no_grad():
        assert torch.equal(model(images), model(images)) != exhibit.randomised


def test_names_are_unique_and_every_broken_defence_says_its_hole():
    names = [one.name for one in exhibits.EXHIBITS]
    assert len(set(names)) == len(names)
    for one in exhibits.EXHIBITS:
        assert one.hole.endswith(".")
        assert (one.hole == "None known.") == one.control


def test_a_thermometers_code_counts_its_ones():
    values = torch.linspace(0, 1, 101, dtype=torch.float64).view(1, 1, 1, -1)
    codes = front.Thermometer(16)(values)
    assert codes.shape == (1, 16, 1, 101)
    assert set(codes.unique().tolist()) == {0.0, 1.0}
    assert (codes.diff(dim=1) <= 0).all()
    wanted = [min(math.floor(value * 16) + 1, 16) for value in values.flatten().tolist()]
    assert codes.sum(dim=1).flatten().tolist() == wanted


def test_bit_depth_leaves_so_many_levels(images):
    levels = front.BitDepth(3)(images).unique()
    torch.testing.assert_close(levels, torch.arange(8) / 7)


def test_the_median_filter_is_scipys(images):
    ours = front.MedianFilter()(images).numpy()
    assert np.array_equal(ours, ndimage.median_filter(images.numpy(), size=(1, 1, 2, 2)))


@pytest.mark.parametrize("quality", [30, 75])
def test_jpeg_is_pillows(quality):
    torch.manual_seed(1)
    smooth = nn.functional.interpolate(torch.rand(20, 1, 7, 7), 28, mode="bilinear")
    found = front.JPEG(quality)(smooth)[:, 0] * 255
    pixels = (smooth[:, 0] * 255).round().byte().numpy()
    theirs = torch.from_numpy(np.stack([decoded(image, quality) for image in pixels])).float()
    # Their cosines are integers: a coefficient at a half may be rounded the other way.
    assert ((found - theirs).abs() <= 1).double().mean() > 0.93
    assert ((found - torch.from_numpy(pixels).float()).abs() <= 1).double().mean() < 0.6


def decoded(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def test_total_variation_falls_and_its_derivative_is_that_of_its_closed_form():
    torch.manual_seed(0)
    noisy = torch.rand(2, 1, 28, 28)

    def variation(images):
        across = nn.functional.pad(images.diff(dim=3), (0, 1))
        down = nn.functional.pad(images.diff(dim=2), (0, 0, 0, 1))
        return (across**2 + down**2 + 1e-3).sqrt().sum()

    assert variation(front.TotalVariation()(noisy)) < variation(noisy)
    asked = noisy.double().requires_grad_()
    (gradient,) = torch.autograd.grad(variation(asked), asked)
    torch.testing.assert_close(front.curvature(noisy.double()), -gradient)


def test_a_resized_image_lies_whole_on_black_and_differs_by_example():
    torch.manual_seed(0)
    found = front.ResizeAndPad(22)(torch.ones(200, 1, 28, 28))
    sizes = found.flatten(1).sum(dim=1).sqrt()
    torch.testing.assert_close(sizes, sizes.round(), atol=0.05, rtol=0)
    assert set(sizes.round().tolist()) == {22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0}


def test_k_winners_are_so_many_and_the_largest():
    torch.manual_seed(0)
    values = torch.randn(5, 4, 5, 5)
    kept = inner.KWinners(0.1)(values)
    for before, after in zip(values.flatten(1), kept.flatten(1), strict=True):
        assert (after != 0).sum() == 10
        assert torch.equal(after[after != 0].sort().values, before.sort().values[-10:])
        assert torch.equal(after[after != 0], before[after != 0])


def test_pruned_activations_have_the_mean_of_the_unpruned():
    torch.manual_seed(0)
    values = torch.rand(12).double()
    drawn = inner.ActivationPruning(0.5)(values.expand(200_000, 12))
    assert (drawn == 0).any()
    assert ((drawn - values).mean(dim=0).abs() < 5 * drawn.std(dim=0) / 200_000**0.5).all()


def test_mean_sparse_sets_what_is_near_the_mean_and_nothing_else():
    torch.manual_seed(0)
    layer, values = inner.MeanSparse(3, width=0.25), torch.randn(50, 3, 4, 4)
    layer.measure(values)
    for channel, (before, after) in enumerate(
        zip(values.transpose(0, 1), layer(values).transpose(0, 1), strict=True)
    ):
        mean, near = before.mean(), (before - before.mean()).abs() <= 0.25 * before.std()
        assert 0 < near.double().mean() < 0.5
        torch.testing.assert_close(after[near], mean.expand(int(near.sum())))
        assert torch.equal(after[~near], before[~near]), channel


@pytest.mark.parametrize("kind", ["ensemble", "vote"])
def test_the_answer_of_several_is_the_mean_of_their_probabilities(kind, images):
    torch.manual_seed(0)
    if kind == "ensemble":
        model = inner.Ensemble(3)
        drawn = torch.stack([member(images).softmax(dim=1) for member in model.members])
    else:
        noisy = exhibits.noisy()
        model = inner.Vote(noisy, 5).eval()
        torch.manual_seed(1)
        drawn = noisy(images.repeat(5, 1, 1, 1)).softmax(dim=1).view(5, 4, 10)
        torch.manual_seed(1)
    torch.testing.assert_close(model(images).exp(), drawn.mean(dim=0))


def test_volume_is_one_for_orthogonal_wrong_answers_and_none_for_equal_ones():
    right = torch.tensor([[0.4, 0.6, 0.0, 0.0], [0.4, 0.0, 0.0, 0.6]])[:, None]
    labels = torch.tensor([0])
    assert training.log_volume(right, labels).item() == pytest.approx(0, abs=1e-4)
    assert training.log_volume(right[[0, 0]], labels).item() < -10


def test_a_guard_rejects_where_a_score_is_above_its_threshold(images):
    torch.manual_seed(0)
    for make in (exhibits.squeezed, exhibits.magnet):
        guard = make().eval()
        calm = torch.rand(400, 1, 28, 28)
        guard.calibrate(calm, 0.1)
        answers = guard(calm)
        above = [
            detector(calm) > threshold
            for detector, threshold in zip(guard.detectors, guard.thresholds, strict=True)
        ]
        assert torch.equal(answers.argmax(dim=1) == 10, torch.stack(above).any(dim=0))
        assert 0.04 < (answers.argmax(dim=1) == 10).double().mean() <= 0.11
        assert torch.equal(answers[:, :10], guard.classifier(calm))


def test_divergence_is_the_mean_divergence_from_the_middle(images):
    torch.manual_seed(0)
    guard = exhibits.magnet()
    classifier, autoencoder = guard.classifier[1], guard.classifier[0]
    one, two = ((classifier(x) / 10).softmax(dim=1).double() for x in (images, autoencoder(images)))
    middle = (one + two) / 2
    wanted = ((one * (one / middle).log()).sum(1) + (two * (two / middle).log()).sum(1)) / 2
    torch.testing.assert_close(guard.detectors[1](images).double(), wanted, atol=1e-7, rtol=1e-3)


class Plane(nn.Module):
    """Class 0 while the mean is below a half; rejects above a mean if there is one."""

    def __init__(self, rejected_above=None):
        super().__init__()
        self.rejected_above = rejected_above

    def forward(self, inputs):
        mean = inputs.flatten(1).mean(dim=1)
        logits = [0.5 - mean, mean - 0.5, torch.full_like(mean, -9.0), torch.full_like(mean, -9.0)]
        if self.rejected_above is not None:
            logits.append((mean - 0.5).abs() + 10 * (mean - self.rejected_above))
        return torch.stack(logits, dim=1)


@pytest.mark.parametrize("rejected_above", [None, 0.55, 0.49])
def test_the_best_attack_finds_what_there_is_and_nothing_else(rejected_above):
    X = torch.tensor([0.31, 0.37, 0.43, 0.2]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    model = Plane(rejected_above)
    threat = adaptive.Threat(
        model, X, torch.zeros(4, dtype=torch.long), 0.15, rejects=rejected_above is not None
    )
    left, found = adaptive.best(threat, {"it": model})
    assert left == (1.0 if rejected_above == 0.49 else 0.5)
    assert found[0].attack == "ascent on it"


def test_a_rejected_point_is_right_unless_it_is_clean():
    X = torch.tensor([0.4, 0.52, 0.7]).view(3, 1, 1, 1)
    threat = adaptive.Threat(Plane(0.6), X, torch.zeros(3, dtype=torch.long), 0.1, rejects=True)
    assert adaptive.right(threat, X).tolist() == [1, 0, 1]
    assert adaptive.right(threat, X, clean=True).tolist() == [1, 0, 0]


def test_a_randomised_answer_counts_by_its_share_of_draws():
    class Coin(nn.Module):
        def forward(self, inputs):
            return torch.rand(len(inputs), 4) * torch.tensor([1.0, 1.0, 0.0, 0.0])

    X = torch.zeros(40, 1, 1, 1)
    threat = adaptive.Threat(Coin(), X, torch.zeros(40, dtype=torch.long), 0.1, randomised=True)
    torch.manual_seed(0)
    shares = adaptive.right(threat, X, draws=200)
    assert ((shares - 0.5).abs() < 0.15).all()
    assert shares.unique().numel() > 5


def test_an_unadapted_attack_without_a_gradient_stays_at_its_start():
    model = nn.Sequential(front.Thermometer(4), nn.Flatten(), nn.Linear(16, 3))
    X, y = torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.long)
    assert adaptive.unadapted(adaptive.Threat(model, X, y, 0.1))[1] != "PGD"
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    assert adaptive.unadapted(adaptive.Threat(linear, X, y, 0.1))[1] == "PGD"


def row(**changed):
    """A row of a defence that is broken and that does not fool anybody."""
    found = {
        "name": "a",
        "control": False,
        "causes": ["zero-gradients"],
        "twin": {"network": "undefended", "robust_accuracy": 0.0},
        "evaluate": {"robust_accuracy": 0.05, "quoted_accuracy": 0.05, "findings": []},
        "adaptive": {"robust_accuracy": 0.0},
    }
    return found | changed


def said(robust, *findings):
    return {
        "evaluate": {
            "robust_accuracy": robust,
            "quoted_accuracy": robust,
            "findings": [list(one) for one in findings],
        }
    }


def test_verdicts_are_told_apart():
    assert cards.verdict(row()) == "not fooled"
    assert cards.verdict(row(**said(0.06))) == "fooled by 6 points"
    cause, other = ("zero-gradients", "severe"), ("more-steps-help", "severe")
    assert cards.verdict(row(**said(0.2, cause))).endswith("named: zero-gradients")
    assert cards.verdict(row(**said(0.2, other))).endswith("warned: more-steps-help")
    notice = ("zero-gradients", "notice")
    assert cards.verdict(row(**said(0.2, notice))) == "fooled by 20 points"
    assert cards.verdict(row(adaptive={"robust_accuracy": 0.06})).startswith("open")
    assert cards.verdict(row(control=True)) == "honest"
    assert "control" in cards.verdict(row(control=True, **said(0.5, cause)))


@pytest.fixture
def result():
    return json.loads((ROOT / "benchmarks" / "results" / "museum.json").read_text())


def test_the_page_is_that_of_the_results(result):
    assert (ROOT / "docs" / "museum.md").read_text(encoding="utf-8") == cards.page(result)


def test_every_card_shows_its_rows_figures(result):
    parts = (ROOT / "docs" / "museum.md").read_text(encoding="utf-8").split("{grid-item-card} ")
    assert [part.split("\n")[0] for part in parts[1:]] == [one["title"] for one in result["rows"]]
    for part, one in zip(parts[1:], result["rows"], strict=True):
        figures = [
            float(line.split("|")[2])
            for line in part.splitlines()
            if line.startswith("| ") and line.split("|")[2].strip(" -:")
        ]
        wanted = [
            one["clean_accuracy"],
            one["unadapted"]["robust_accuracy"],
            one["evaluate"]["robust_accuracy"],
            one["evaluate"]["quoted_accuracy"],
            one["adaptive"]["robust_accuracy"],
            one["twin"]["robust_accuracy"],
        ]
        assert figures == pytest.approx([100 * share for share in wanted], abs=0.051)
        assert one["hole"] in re.sub(r"\[([^]]+ \d{4})\]\([^)]+\)", r"\1", part)
        assert one["claim"] in part


def test_every_claim_and_every_hole_that_names_somebody_has_a_link_to_him(result):
    for one in result["rows"]:
        assert one["link"].startswith("https://")
        for name in re.findall(r"[A-Z]\w+(?: et al\.| and [A-Z]\w+) \d{4}", one["hole"]):
            assert f"[{name}](https://" in cards.linked(one["hole"]), name


def test_every_finding_on_a_card_has_its_page(result):
    page = (ROOT / "docs" / "museum.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"\]\((findings/[^)]+)\)", page))
    assert targets
    assert all((ROOT / "docs" / target).is_file() for target in targets)


def test_the_results_are_of_the_defences_as_they_are_described(result):
    described = {one.name: one.published() for one in exhibits.EXHIBITS}
    assert result["rows"]
    for one in result["rows"]:
        assert described[one["name"]].items() <= one.items()


def test_undefended_networks_fall_at_the_radii_of_the_museum(result):
    for one in result["rows"]:
        if one["twin"]["network"] == "undefended":
            assert one["twin"]["robust_accuracy"] <= 0.05


def test_a_row_is_kept_and_ours_measures_evaluate_alone_again(monkeypatch, tmp_path, capsys):
    calls = []
    defence = exhibits.Exhibit(
        name="plane",
        title="A plane",
        paper="nobody",
        link="https://example.org",
        claim="It stands.",
        hole="It does not.",
        make=lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4)),
        train=lambda model, studio: calls.append("train") or model,
    )
    X, y = torch.rand(6, 1, 2, 2), torch.arange(6) % 4
    monkeypatch.setattr(museum, "EXHIBITS", (defence,))
    monkeypatch.setitem(museum.LOADERS, "MNIST-5k", lambda split: (X, y))
    monkeypatch.setattr(exhibits.Studio, "small", lambda studio, kind: defence.make())
    monkeypatch.setattr(museum, "best", lambda *a, **k: calls.append("attack") or (0.0, []))
    monkeypatch.setattr(museum, "ours", lambda *a: calls.append("ours") or said(0.5)["evaluate"] | {
        "quoted_accuracy": 0.5})  # fmt: skip

    def run(*options):
        calls.clear()
        common = ["--examples", "6", "--cache", str(tmp_path), "--results", str(tmp_path)]
        museum.main([*common, *options])
        return list(calls), json.loads((tmp_path / "museum.json").read_text())["rows"]

    done, first = run()
    assert done == ["train", "attack", "attack", "ours"]
    assert run() == ([], first)
    assert run("--ours") == (["ours"], first)
    assert run("--defences", "other", "--again") == ([], first)
    assert run("--again")[0] == ["attack", "attack", "ours"]
    assert "A plane" in capsys.readouterr().out
