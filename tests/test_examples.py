"""The examples run, and the demo shows the defence look excellent and fall."""

import ast
import json
import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(script: str, *arguments: str) -> None:
    before = sys.argv
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    finally:
        sys.argv = before


def test_the_quickstart_writes_its_table_report_and_picture(tmp_path, capsys, monkeypatch):
    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda *a, **k: (drawn.append(a[0]), save(*a, **k)))
    tmp_path /= "not/there/yet"
    settings = {"--epochs": 1, "--images": 20, "--train": 256, "--out": tmp_path}
    run("quickstart.py", *(str(part) for pair in settings.items() for part in pair))
    shown = capsys.readouterr().out
    assert "PGD on the margin" in shown
    assert "Carlini-Wagner L2" in shown
    assert set(json.loads((tmp_path / "report.json").read_text())) == {"undefended", "distilled"}
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    # Each digit stands below its class, and what it was changed to below its distance from it.
    clean, *changed = np.reshape(np.asarray(drawn[-1].axes, dtype=object), (3, 10))
    assert [axis.get_title() for axis in clean] == [str(digit) for digit in range(10)]
    for axis, before in zip(np.ravel(changed), 2 * list(clean), strict=True):
        image, original = (each.images[0].get_array() for each in (axis, before))
        distance = np.linalg.norm(np.asarray(image - original, dtype=float))
        assert re.fullmatch(rf"\d\nL2 {distance:.2f}", axis.get_title())


@pytest.mark.slow
def test_the_demo_shows_the_defence_look_excellent_and_fall(tmp_path):
    run("quickstart.py", "--out", str(tmp_path))
    reports = json.loads((tmp_path / "report.json").read_text())
    undefended, distilled = (reports[name]["within_budget"] for name in reports)
    rows = {row["name"]: row for row in distilled["attacks"]}

    assert abs(undefended["clean_accuracy"] - distilled["clean_accuracy"]) <= 0.015
    assert rows["PGD on cross-entropy"]["robust_accuracy"] > 0.8
    assert distilled["robust_accuracy"] < 0.05
    assert reports["distilled"]["carlini_wagner"]["attacks"][0]["success_rate"] == 1
    assert {finding["code"] for finding in distilled["findings"]} >= {
        "zero-gradients",
        "saturated-softmax",
        "margin-beats-cross-entropy",
    }
    assert undefended["findings"] == []


def test_what_came_after_compares_four_networks(tmp_path, capsys):
    settings = {"--data": "mnist5k", "--epochs": 1, "--train": 128, "--images": 10}
    settings |= {"--attacks": "quick", "--out": tmp_path}
    run("what_came_after.py", *(str(part) for pair in settings.items() for part in pair))
    shown = capsys.readouterr().out
    table = (tmp_path / "comparison.md").read_text()
    for name in ("undefended", "distilled, T = 100", "TRADES", "RSLAD from TRADES"):
        assert name in shown
        assert name in table
    assert len(list(tmp_path.glob("*.html"))) == 4


def test_the_layers_print_the_product_of_their_holes_beside_what_passes(capsys):
    run("layers.py", "--quick", "--epsilon", "0.12")
    shown = capsys.readouterr().out
    fooled = {
        name: float(share) for name, share in re.findall(r"^(\S.*?) +([\d.]+) %", shown, re.M)
    }
    parts = ("BitDepth", "MedianFilter", "ReconstructionError", "FeatureSqueezing")
    product = math.prod(min(fooled[part] / fooled["bare"], 1) for part in parts)
    told = re.findall(r"^ +([\d.]+)% (would pass|passes)", shown, re.M)
    printed = {verb: float(share) / 100 for share, verb in told}
    assert printed["would pass"] == pytest.approx(product, abs=0.005)
    assert printed["passes"] == pytest.approx(fooled["all together"] / fooled["bare"], abs=0.005)
    assert all(re.search(rf"^  {part} +\d+ of \d+$", shown, re.M) for part in parts)


def test_the_study_of_four_networks_three_attacks_and_three_seeds_takes_under_30_lines(
    tmp_path, capsys
):
    pandas = pytest.importorskip("pandas")
    run("study.py", str(tmp_path))
    shown = capsys.readouterr().out
    frame = pandas.read_csv(tmp_path / "study.csv")
    assert frame["model"].nunique() == 4
    assert frame.loc[frame["kind"] == "attack", "name"].nunique() == 3
    assert (frame["n_reports"] == 3).all()
    for row in frame.itertuples():
        assert f"{100 * row.accuracy:.1f} % ± {100 * row.std:.1f} (" in shown
    assert shown.count("McNemar's exact test") == 3
    assert "\\toprule" in (tmp_path / "study.tex").read_text()
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    text = (EXAMPLES / "study.py").read_text()
    _, *body = ast.parse(text).body
    first = next(part for part in body if not isinstance(part, ast.Import | ast.ImportFrom))
    assert sum(map(bool, text.splitlines()[first.lineno - 1 :])) < 30
    accuracy = frame.set_index(["model", "name"])["accuracy"]
    distilled = accuracy["distilled, T = 100"]
    assert distilled["pgd"] > distilled["pgd(loss=margin)"]
