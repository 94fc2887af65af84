"""What the demo does and shows, with stand-ins for all that takes time."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from distillguard import attacks, datasets, estimators, evaluation, networks
from distillguard.__main__ import main
from distillguard._cli import _demo
from distillguard.exceptions import MissingPackageError


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    code = main([str(each) for each in arguments])
    return code, *capsys.readouterr()


class Fake:
    """An estimator or a report that remembers what it was given."""

    def __init__(self, kind, *given, **settings):
        self.kind, self.given, self.settings = kind, given, settings
        self.model_, self.fits = nn.Identity(), []

    def fit(self, X, y):
        self.fits.append((X, y))
        return self

    def predict(self, X):
        return np.arange(len(X)) % 7


def report(accuracy, attacked, success=None, distance=None, findings=()):
    rows = [
        SimpleNamespace(name=name, robust_accuracy=share, success_rate=success,
                        median_distance=distance)
        for name, share in attacked.items()
    ]  # fmt: skip
    return SimpleNamespace(
        clean_accuracy=accuracy, robust_accuracy=min(attacked.values()), attacks=rows,
        findings=findings, to_dict=lambda: {"accuracy": accuracy},
        to_html=lambda path: path.write_text(f"page of {accuracy}"),
    )  # fmt: skip


@pytest.fixture
def demo(monkeypatch):
    """The demo, of which nothing is trained, attacked or drawn."""
    told = SimpleNamespace(made=[], asked=[], drawn=[])
    digits = {"train": 5000, "test": 1000}

    def made(kind):
        def make(*given, **settings):
            told.made.append(Fake(kind, *given, **settings))
            return told.made[-1]

        return make

    def evaluate(model, X, y, **settings):
        told.asked.append((model, X, y, settings))
        place = len(told.asked)
        doubt = SimpleNamespace(code="masked", evidence="evidence", meaning="meaning")
        return report(place / 8, {"one": place / 10}, 0.25, 1.5, [doubt] * (place > 2))

    def load(part):
        return torch.arange(digits[part])[:, None].float(), torch.arange(digits[part])

    monkeypatch.setattr(datasets, "load_mnist5k", load)
    for name in ("UndefendedClassifier", "DefensiveDistiller"):
        monkeypatch.setattr(estimators, name, made(name))
    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(_demo, "draw", lambda *given: told.drawn.append(given))
    return told


def test_the_demo_differs_in_the_defence_alone_and_attacks_both_networks_alike(
    demo, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "demo")
    assert code == 0
    undefended, distilled = demo.made
    assert [each.kind for each in demo.made] == ["UndefendedClassifier", "DefensiveDistiller"]
    assert distilled.settings == undefended.settings | {"temperature": 100.0}
    assert undefended.settings == {"max_epochs": 10, "random_state": 0, "verbose": True}
    for each in demo.made:
        assert each.given == (networks.papernot_mnist,)
        ((X, y),) = each.fits
        assert X[:, 0].tolist() == y.tolist() == list(range(4000))
    first, few = demo.asked[::2], demo.asked[1::2]
    for model, (one, X, y, settings), (other, near, labels, nearest) in zip(
        demo.made, first, few, strict=True
    ):
        assert one is other is model
        assert X[:, 0].tolist() == y.tolist() == list(range(500))
        assert near[:, 0].tolist() == labels.tolist() == list(range(50))
        assert (settings["epsilon"], settings.get("norm")) == (0.3, None)
        assert (nearest["epsilon"], nearest["norm"]) == (3.0, "l2")
        for each in (settings, nearest):
            assert (each["survivors_only"], each["random_state"]) == (False, 0)
            for attack in each["attacks"].values():
                assert attack.keywords["random_state"] == 0
        ran = {name: (a.func, a.keywords) for name, a in settings["attacks"].items()}
        budget = {"epsilon": 0.3, "random_state": 0}
        assert ran == {
            "FGSM on cross-entropy": (attacks.fgsm, budget),
            "PGD on cross-entropy": (attacks.pgd, budget),
            "PGD on the margin": (attacks.pgd, {**budget, "loss": "margin"}),
        }
        ((name, attack),) = nearest["attacks"].items()
        assert (name, attack.func) == ("Carlini-Wagner L2", attacks.carlini_wagner_l2)
    folder = tmp_path / "distillguard-demo"
    assert (folder / "report.html").read_text() == "page of 0.375"
    text = (folder / "report.json").read_text()
    accuracies = [float(each) for each in re.findall(r'"accuracy": ([\d.]+)', text)]
    assert accuracies == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert len(text.splitlines()) == 18
    ((path, models, X, y),) = demo.drawn
    assert path == Path("distillguard-demo/figure.png")
    assert list(models.values()) == demo.made
    assert len(X) == len(y) == 500
    assert "Findings about the undefended network: none\n" in out
    found = "Findings about the distilled network: 1\n  masked: evidence\n    meaning\n"
    assert found in out
    assert _demo.table(
        {"undefended": report(1 / 8, {"one": 0.1}), "distilled": report(3 / 8, {"one": 0.3})},
        {name: report(0, {"one": 0}, 0.25, 1.5) for name in models},
    ) in out  # fmt: skip
    assert re.search(r"\n\d+ s; look at distillguard-demo/report.html and figure.png\n$", out)


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ("--epochs 3 --images 40 --train 70", (3, 40, 70)),
        ("--quick --epochs 3", (3, None, None)),
        ("--quick --images 7 --train 9", (None, 7, 9)),
    ],
)
def test_a_size_that_is_named_holds_and_a_quick_demo_does_less_of_the_others(
    demo, capsys, tmp_path, arguments, sizes
):
    quick = "--quick" in arguments
    assert run(capsys, "demo", "--out", tmp_path / "a" / "b", *arguments.split())[0] == 0
    done = (
        demo.made[0].settings["max_epochs"],
        len(demo.asked[0][1]),
        len(demo.made[0].fits[0][0]),
    )
    for size, told, whole in zip(done, sizes, (10, 500, 4000), strict=True):
        assert size == (told or size)
        assert told or 1 < size < whole
    assert 1 < len(demo.asked[1][1]) <= (49 if quick else 50)
    assert (tmp_path / "a" / "b" / "report.json").exists()
    assert run(capsys, "demo", "--out", tmp_path / "a" / "b", *arguments.split())[0] == 0


def test_the_demo_says_that_it_cannot_draw_before_it_trains(demo, capsys, monkeypatch, tmp_path):
    def missing():
        raise MissingPackageError("plots need matplotlib")

    monkeypatch.setattr("distillguard._plot.pyplot", missing)
    code, out, said = run(capsys, "demo", "--out", tmp_path / "x")
    assert (code, out, demo.made) == (2, "", [])
    assert said == "distillguard: error: plots need matplotlib\n"


def test_the_demos_table_has_a_line_for_each_attack_and_a_column_for_each_network():
    first = {"a": report(0.5, {"x": 0.25, "y": 0.125}), "b": report(1.0, {"x": 0.75, "y": 0.5})}
    few = {"a": report(0, {"z": 0}, 0.25, 1.5), "b": report(0, {"z": 0})}
    lines = [re.split(r" {2,}", line.strip()) for line in _demo.table(first, few).splitlines()]
    assert lines == [
        ["accuracy left, %", "a", "b"],
        ["no attack", "50.0", "100.0"],
        ["x, linf 0.3", "25.0", "75.0"],
        ["y, linf 0.3", "12.5", "50.0"],
        ["worst case of these", "12.5", "50.0"],
        ["z, any distance", "75.0", "100.0"],
        ["its median L2 distance", "1.50", "nan"],
    ]
    assert {len(line) for line in _demo.table(first, few).splitlines()} == {34 + 2 * 14}


def test_the_demos_picture_has_the_first_digit_of_each_class_and_what_it_became(
    tmp_path, monkeypatch
):
    saved, asked = [], []
    monkeypatch.setattr(Figure, "savefig", lambda *given, **more: saved.append((*given, more)))

    def attack(model, inputs, labels, **settings):
        asked.append((model, labels.tolist(), settings))
        changed = inputs.clone()
        changed[:, 0, 0, 0] += 0.25 * len(asked)
        return changed

    monkeypatch.setattr(attacks, "carlini_wagner_l2", attack)
    X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) / 2
    y = (torch.arange(40) + 3) % 10
    models = {"plain": Fake("a"), "guarded": Fake("b")}
    _demo.draw(tmp_path / "figure.png", models, X, y)
    ((figure, path, more),) = saved
    assert (path, more["dpi"] >= 100) == (tmp_path / "figure.png", True)
    assert asked == [(m.model_, list(range(10)), {"random_state": 0}) for m in models.values()]
    rows = np.reshape(np.asarray(figure.axes, dtype=object), (3, 10))
    assert [row[0].get_ylabel() for row in rows] == ["clean, true class", "plain", "guarded"]
    assert not any(axis.get_ylabel() for axis in rows[:, 1:].flat)
    for place, row in enumerate(rows):
        for digit, axis in enumerate(row):
            pixels = X[(digit - 3) % 10, 0].clone()
            pixels[0, 0] += 0.25 * place
            (image,) = axis.images
            np.testing.assert_allclose(image.get_array(), pixels)
            assert image.get_clim() == (0, 1)
            assert image.get_cmap().name == "gray"
            below = f"{digit % 7}\nL2 {0.25 * place:.2f}"
            assert axis.get_title() == (below if place else str(digit))
            assert list(axis.get_xticks()) == list(axis.get_yticks()) == []
    assert "what the network sees is written above" in figure.get_suptitle()
