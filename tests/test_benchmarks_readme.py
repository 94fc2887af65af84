"""Benchmarks measure what they say; README.md and docs/benchmarks say what they measured."""

import importlib
import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from distillguard.networks import papernot_mnist

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
bench = importlib.import_module("benchmarks.attacks")
judge = importlib.import_module("benchmarks._attacks_checks")
page = importlib.import_module("benchmarks._attacks_page")
peers = importlib.import_module("benchmarks._peers")
lists = importlib.import_module("benchmarks._roster")
common = importlib.import_module("benchmarks._common")
robust = importlib.import_module("benchmarks._robust")
front = importlib.import_module("benchmarks.front_page")
libraries = importlib.import_module("benchmarks._libraries_page")
costly = importlib.import_module("benchmarks.near")
l0 = importlib.import_module("benchmarks.l0")
sparse = importlib.import_module("benchmarks.sparse")
targets = importlib.import_module("benchmarks.targets")
by_hand = importlib.import_module("benchmarks._faults_by_hand")


class Brightness(nn.Module):
    """Class 1 where the mean pixel exceeds a half."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        excess = inputs.flatten(1).mean(dim=1) - 0.5
        return torch.stack([-excess, excess], dim=1)


INPUTS = torch.full((4, 1, 2, 2), 0.4)
LABELS = torch.zeros(4, dtype=torch.long)


def contender(run, **changed):
    given = {"group": "pgd", "kind": "margin", "library": "foolbox", "attack": "a", "norm": "linf"}
    return lists.Contender(**(given | {"setting": "defaults", "run": run} | changed))


def shift(by):
    return lambda model, inputs, labels: inputs + by


PAGES = [
    "attackbench",
    "attacks",
    "evaluation",
    "leaderboard",
    "optimum",
    "promises",
    "temperatures",
]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_benchmarks_is_what_its_generator_makes_of_the_committed_results(name):
    generator = importlib.import_module(f"benchmarks._{name}_page")
    written = (ROOT / "docs" / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")
    assert written == generator.page()


def test_the_comparison_of_libraries_has_the_figures_of_the_committed_results():
    text = libraries.PAGE.read_text(encoding="utf-8")
    assert libraries.filled(text) == text
    rows = {task: cells for task, _, *cells in cells_below("| task ", text)}
    least = {"network": "T=100", "group": "l2"}
    ours = row_of("attacks-mnist5k", attack="carlini_wagner_l2", setting="defaults", **least)
    ddn = {"library": "adv-lib", "attack": "ddn", "setting": "1000 steps on logits / T"}
    for cell, row in zip(
        rows["smallest l2"], [ours, row_of("attacks-mnist5k", **least, **ddn)], strict=False
    ):
        assert_figures([cell], [row["median"], row["forwards"], row["backwards"]])


def test_the_page_on_trust_has_todays_figures_and_names_what_there_is():
    generator = importlib.import_module("benchmarks._trust_page")
    written = generator.PAGE.read_text(encoding="utf-8")
    assert written == generator.page()
    for path in re.findall(r"`(tests/\w+\.py)`", written):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m benchmarks\.(\w+)", written):
        assert (ROOT / "benchmarks" / f"{module}.py").exists(), module


def test_every_survivor_that_is_settled_survived_and_names_its_reason_or_a_test_there_is():
    listed = importlib.import_module("benchmarks._survivors")
    faults = [each for name in listed.SAMPLES.values() for each in common.load(name)["faults"]]
    settled = listed.SETTLED
    assert settled.keys() <= {each["fault"] for each in faults if each["verdict"] == "SURVIVED"}
    for how, what in settled.values():
        assert how in ("test", "equivalent", "gone")
        if how == "test":
            path, name = what.split("::")
            assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), what


def test_readme_has_what_its_code_printed_and_the_figures_of_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert front.filled(text) == text
    assert common.load("front-page")["code"] == front.code(text)


def test_readme_is_one_page_and_shows_a_picture_at_once():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _ = text.split("![", 1)
    assert len(text.splitlines()) <= 110
    assert len(text.split()) <= 900
    assert len(before.split()) <= 110


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def cells_below(title, text):
    """The table's rows below a first line that starts so, cell by cell."""
    lines = text[text.index(title) :].splitlines()[2:]
    for line in lines[: next(i for i, each in enumerate(lines) if not each.startswith("|"))]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def row_of(name, **wanted):
    (found,) = (row for row in results(name)["rows"] if wanted.items() <= row.items())
    return found


def assert_figures(cells, known):
    """The numbers in some cells are these, to the last digit that is shown."""
    shown = [number for cell in cells for number in re.findall(r"[\d.]*\d", cell)]
    for number, value in zip(shown, known, strict=True):
        rounding = 0.501 * 10.0 ** -len(number.partition(".")[2])
        assert abs(float(number) - value) <= rounding, (number, value)


def test_what_far_examples_cost_has_the_figures_of_its_result():
    found = results("near")["linf and l2"]
    rows = found["rows"]
    page = (ROOT / "docs" / "explanation" / "attacks.md").read_text(encoding="utf-8")
    text = " ".join(page.split())
    late = [share for row in rows for _, share in row["late"]]
    missed = {row["network"]: 0 for row in rows}
    for row in rows:
        missed[row["network"]] += row["missed"]
    standing = sum(row["standing"] for row in rows)
    far = sum(row["far"] * row["standing"] for row in rows) / standing
    assert f"on {len(rows)} networks and norms with 300 images each" in text
    assert found["last"] - found["first"] == 300
    assert f"They fooled {len(late)} images after the attacks that always run" in text
    assert f"; {sum(missed.values())} of these had more of their lead left" in text
    trades = missed["MNIST TRADES (published)"]
    assert f"share, {trades} of them on the published TRADES network" in text
    said = f"Of the {standing:,} images that no attack fooled, {100 * far:.0f} % had"
    assert f"{said} {100 * found['near']:.0f} % or more." in text

    found = results("near")["l1"]
    rows, each = found["rows"], found["last"] - found["first"]
    late = [share for row in rows for _, share in row["late"]]
    standing = sum(row["standing"] for row in rows)
    far = sum(row["far"] * row["standing"] for row in rows) / standing
    missed = sum(row["missed"] for row in rows)
    assert f"(`--l1`; {len(rows)} networks with {each} images each" in text
    assert f"they and Square fooled {len(late)} images" in text
    assert f"{missed} of them had more of its lead left" in text
    assert f"Of the {standing} images that no attack fooled, {100 * far:.0f} % had" in text
    assert f"{100 * found['near']:.0f} % or more." in text
    specs = costly.standard("l1", 0.1).values()
    shares = [round(100 * spec.near) for spec in specs if spec.near]
    told = re.findall(r"below (\d+) %", text.partition("the costlier the nearer")[2])[:4]
    assert [int(share) for share in told] == sorted(set(shares), reverse=True)


def test_the_table_in_l1_has_the_figures_of_its_result():
    text = (ROOT / "docs" / "explanation" / "attacks.md").read_text(encoding="utf-8")
    shown = list(cells_below('| network | radius | `evaluate(norm="l1")` |', text))
    for (name, *cells), row in zip(shown, results("l1")["rows"], strict=True):
        assert row["network"].removesuffix(" (published)") in name
        assert row["data"] in name
        parts = [row, row["peers"]["AutoAttack"], row["peers"]["adv-lib APGD-T"]]
        counts = [(100 * part["robust_accuracy"], part["evaluations"]) for part in parts]
        assert_figures(
            [cell.replace(",", "") for cell in cells],
            [row["epsilon"], *(figure for pair in counts for figure in pair)],
        )


def test_the_orders_of_targets_have_the_figures_of_their_result():
    text = (ROOT / "docs" / "explanation" / "attacks.md").read_text(encoding="utf-8")
    known = targets.totals(results("targets")["rows"])
    assert f"fooled {known[0]['of']} of them" in text
    shown = list(cells_below("| attack | fools | passes |", text))
    assert [cells[0] for cells in shown] == [row["attack"] for row in known]
    for cells, row in zip(shown, known, strict=True):
        assert_figures(cells[1:], [row["fools"], row["passes"]])


def test_each_of_the_readmes_five_rows_has_the_figures_of_a_committed_result():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [(ours, beside) for _, ours, beside, _ in cells_below("| task ", text)]
    hot, plain = (row_of("temperatures-mnist5k", network=n) for n in ("T=100", "undefended"))
    trained = row_of("evaluation", network="MNIST-5k adversarially trained", norm="linf")
    photographs = row_of("photographs", network="ResNet-18, CIFAR-10", radius="8/255")
    least = {"network": "T=100", "group": "l2"}
    mine = row_of("attacks-mnist5k", attack="carlini_wagner_l2", setting="defaults", **least)
    ddn = {"library": "adv-lib", "attack": "ddn", "setting": "1000 steps on logits / T"}
    pgd = {"library": "distillguard", "attack": "pgd", "kind": "margin", "setting": "defaults"}
    trades = row_of("robust-training-mnist5k", network="TRADES")
    sides = [trained["distillguard"], trained["AutoAttack"]]
    nearest = [mine, row_of("attacks-mnist5k", **least, **ddn)]
    quick = [photographs["standard"], photographs["AutoAttack"]]
    expected = [
        [100 * hot["accuracy"], 100 * plain["accuracy"]],
        [f for side in sides for f in (100 * side["robust_accuracy"], side["passes"])],
        [f for side in nearest for f in (side["median"], side["forwards"], side["backwards"])],
        [f for side in quick for f in (100 * side["robust_accuracy"], side["seconds"])],
        [100 * trades["robust"], 100 * trades["clean"], 100.0],
    ]
    broken = row_of("attacks-mnist5k", network="T=100", **pgd)
    expected[-1] += [100 * (1 - broken["success"])]
    assert len(rows) == 5
    for shown, known in zip(rows, expected, strict=True):
        assert_figures(shown, known)


def test_the_students_of_robust_training_have_the_figures_of_their_results():
    text = (ROOT / "docs" / "explanation" / "robust-training.md").read_text(encoding="utf-8")
    names = {
        "TRADES": "TRADES, half width",
        "RSLAD": "RSLAD, half width",
        "RSLAD, small radius first": "RSLAD, half width, small radius first",
        "RSLAD and IGDM": "IGDM on RSLAD, half width",
    }
    lines = re.findall(
        r"^\| ([\w-]*) *\| ([\w ,]+) \| [^|]+ \| ([\d.]+) ± ([\d.]+) % \|$", text, re.M
    )
    data, compared = "", 0
    for named, student, robust, deviation in lines:
        data = named or data
        means = results(
            {"MNIST-5k": "robust-training-mnist5k"}.get(data, "robust-training-fashion")
        )
        (known,) = [row for row in means["means"] if row["network"] == names[student]]
        assert_figures([robust, deviation], [100 * known["robust"], 100 * known["deviation"]])
        compared += 1
    assert compared == 5


def test_each_row_beside_autoattack_has_the_figures_of_its_result():
    text = (ROOT / "docs" / "benchmarks" / "evaluation.md").read_text(encoding="utf-8")
    shown = list(cells_below("| network | radius", text))
    assert len(shown) == len(results("evaluation")["rows"])
    for network, radius, *figures in shown:
        norm, epsilon = radius.split()
        row = row_of("evaluation", network=network, norm=norm, epsilon=float(epsilon))
        mine, theirs = row["distillguard"], row["AutoAttack"]
        known = [100 * side["robust_accuracy"] for side in (mine, theirs)]
        known += [mine["passes"], mine["diagnosis_passes"], theirs["passes"]]
        known += [mine[part] / theirs[part] for part in ("passes", "seconds")]
        assert_figures(figures, known)


def test_the_page_beside_autoattack_says_rightly_which_networks_raise_findings():
    for row in results("evaluation")["rows"]:
        if "published" not in row["network"]:
            masked = ["margin-beats-cross-entropy", "saturated-softmax", "zero-gradients"]
            expected = masked if " T=" in row["network"] else []
            assert sorted(row["distillguard"]["findings"]) == expected


def test_each_temperature_has_the_figures_of_its_results():
    text = (ROOT / "docs" / "benchmarks" / "temperatures.md").read_text(encoding="utf-8")
    shown = list(cells_below("| network | MNIST-5k", text))
    assert len(shown) == len(results("temperatures-mnist5k")["rows"])
    for network, *figures in shown:
        name = network.replace(" ", "")
        digits = row_of("temperatures-mnist5k", network=name)
        known = [100 * digits["accuracy"], digits["mean_abs_logit"], 100 * digits["zero_gradients"]]
        known += [100 * row_of("temperatures-fashion", network=name)["accuracy"]]
        assert_figures(figures, known)


def table_lines():
    text = (ROOT / "docs" / "benchmarks" / "attacks.md").read_text(encoding="utf-8")
    for part in re.split(r"^(?=MNIST-5k|Fashion-MNIST)", text.strip(), flags=re.MULTILINE):
        data = {words: data for data, words in page.DATA.items()}.get(part.split(",")[0])
        for line in part.splitlines():
            if line.startswith("|") and "`" in line:
                yield data, [cell.strip() for cell in line.strip("|").split("|")]


def agrees(row, result, passes, seconds):
    """Whether three cells are a row's figures, up to how they are rounded."""
    number = float(re.match(r"[\d.]+", result)[0])
    if "% robust" in result:
        value, rounding = 100 * (1 - row["success"]), 0.0501
    elif "% reached" in result or row["median"] is None:
        value, rounding = 100 * row["success"], 0.501
    else:
        value, rounding = row["median"], 0.000501
    spent = row["processor_seconds"]
    return (
        abs(value - number) <= rounding
        and passes == f"{round(row['forwards'])} + {round(row['backwards'])}"
        and abs(float(seconds) - spent) <= (0.0501 if spent < 10 else 0.501)
    )


def test_the_table_of_counts_is_that_of_the_committed_results():
    text = (ROOT / "docs/explanation/attacks.md").read_text(encoding="utf-8")
    assert l0.table(common.load("l0")["rows"]) in text


@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_the_tables_at_equal_passes_are_those_of_the_committed_results(norm):
    text = (ROOT / "docs/explanation/attacks.md").read_text(encoding="utf-8")
    assert sparse.table(common.load("sparse")["rows"], norm) in text


def test_each_figure_of_the_attacks_stands_in_the_results():
    for data, cells in table_lines():
        rows = json.loads((ROOT / f"benchmarks/results/attacks-{data}.json").read_text())["rows"]
        network, aim, images, *sides = cells
        for name, *figures in (sides[:4], sides[4:]):
            library, attack, setting = re.match(r"(.*?) ?`(\w+)`(?:, (.*))?", name).groups()
            wanted = (network, int(images), library or "distillguard", attack)
            wanted += (setting or "defaults",)
            identity = ("network", "examples", "library", "attack", "setting")
            same = [row for row in rows if tuple(row[p] for p in identity) == wanted]
            assert any(agrees(row, *figures) for row in same if row["kind"] in aim), name


def row(library, result, seconds, **changed):
    given = {"network": "undefended", "group": "l2", "kind": "least", "attack": "a", "norm": "l2"}
    given |= {"library": library, "setting": "defaults", "epsilon": None, "targeted": False}
    given |= {"examples": 64, "weights": "a", "processor": "p"}
    given |= {
        "success": 1.0,
        "median": result,
        "processor_seconds": seconds,
        "forwards": 1.0,
        "mean": 1.0,
    }
    return given | {"backwards": 1.0} | changed


def test_the_strongest_peer_is_the_nearest_then_the_fastest_and_failures_are_far():
    ours = row("distillguard", 1.2, 1.0, attack="carlini_wagner_l2")
    rows = [ours, row("foolbox", 1.3, 1.0), row("ART", None, 0.1, success=0.2)]
    rows += [row("adv-lib", 1.1, 9.0), row("torchattacks", 1.1, 5.0)]
    rows += [row("adv-lib", 0.5, 1.0, network="T=20"), row("adv-lib", 0.5, 1.0, kind="other")]
    rows += [ours | {"network": "T=20"}, row("adv-lib", 0.5, 1.0, examples=500)]
    rows += [row("adv-lib", 0.5, 1.0, weights="b"), row("adv-lib", 0.5, 1.0, processor="q")]
    assert [(one["library"], two["library"]) for one, two in page.comparisons(rows)] == [
        ("distillguard", "torchattacks")
    ]


@pytest.mark.parametrize("network", page.HEADLINES["pgd"])
def test_a_budget_is_judged_by_robust_accuracy_and_where_it_is_hard_beside_the_bare_loop(network):
    budget = {"group": "pgd", "epsilon": 0.3, "network": network}
    ours = row("distillguard", 0.1, 1.0, attack="pgd", **budget)
    weak = row("foolbox", 0.01, 1.0, success=0.5, **budget)
    strong = row("ART", 0.3, 9.0, success=0.9, **budget)
    bare = row("bare loop", 0.3, 9.0, success=1.0, **budget)
    pairs = list(page.comparisons([ours, weak, strong, bare]))
    libraries = [theirs["library"] for _, theirs in pairs]
    assert libraries == ["ART", *["bare loop"] * (network == page.ROBUST)]


def test_headlines_stand_attack_by_attack_and_network_by_network():
    shown = [(attack, net) for attack, nets in page.HEADLINES.items() for net in nets]
    given = [row("distillguard", 1.0, 1.0, attack=a, network=n) for a, n in reversed(shown)]
    given += [given[0] | {"network": "T=20"}, given[0] | {"attack": "ddn"}]
    found = [(each["attack"], each["network"]) for each in page.headlines(given)]
    assert found == shown
    assert not list(page.headlines([given[-3] | {"setting": "1000 steps"}]))


def test_the_wrapper_counts_examples_and_every_gradient_drawn():
    counted = common.Counted(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), divisor=2.0)
    points = INPUTS.clone().requires_grad_()
    logits = counted(points)
    torch.autograd.grad(logits[:, 0].sum(), points, retain_graph=True)
    torch.autograd.grad(logits[:, 1].sum(), points)
    with torch.no_grad():
        counted(points[:3])
    assert (counted.forwards, counted.backwards) == (7, 8)
    assert torch.equal(logits, counted.model(points) / 2)


def test_what_leaves_the_budget_or_the_bounds_is_no_success():
    def success(by, **changed):
        return bench.measured(contender(shift(by), **changed), Brightness(), INPUTS, LABELS)

    assert success(0.2)["success"] == 1
    assert success(0.2)["median"] == pytest.approx(0.2)
    assert success(0.2, epsilon=0.2)["success"] == 1
    assert success(0.2, epsilon=0.19)["success"] == 0
    assert success(0.2, epsilon=0.19)["median"] is None
    assert success(0.7)["success"] == 0
    assert success(0.05)["success"] == 0


def test_a_targeted_success_is_the_class_after_the_true_one():
    labels = torch.full((4,), 9)
    found = bench.measured(contender(shift(-0.1), targeted=True), Brightness(), INPUTS, labels)
    assert found["success"] == 1
    found = bench.measured(contender(shift(0.3), targeted=True), Brightness(), INPUTS, labels)
    assert found["success"] == 0


def test_a_targeted_attack_meets_every_image_with_every_other_class():
    inputs, labels = torch.arange(3.0)[:, None], torch.tensor([9, 0, 4])
    images, stand_ins = bench.each_class(inputs, labels)
    aims = peers.next_class(stand_ins)
    met = {(int(i), int(aim)) for i, aim in zip(images[:, 0], aims, strict=True)}
    wanted = {(i, aim) for i, own in enumerate(labels.tolist()) for aim in range(10) if aim != own}
    assert len(images) == 27
    assert met == wanted


def test_a_peer_that_breaks_is_a_row_and_ours_that_breaks_is_an_error():
    def breaks(model, inputs, labels):
        raise ValueError("no gradient")

    found = bench.measured(contender(breaks), Brightness(), INPUTS, LABELS)
    assert found == {"error": "ValueError: no gradient"}
    with pytest.raises(ValueError, match="no gradient"):
        bench.measured(contender(breaks, library="distillguard"), Brightness(), INPUTS, LABELS)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The benchmark with one contender, no training, and its own results; returns a runner."""
    calls = []

    def attack(model, inputs, labels):
        calls.append(len(inputs))
        return inputs + 0.2

    images = INPUTS.repeat(8, 1, 1, 1), LABELS.repeat(8)
    data = bench.DATA["mnist5k"]._replace(load=lambda split: images)
    monkeypatch.setattr(bench, "roster", lambda *radii: [contender(attack, epsilon=radii[0])])
    monkeypatch.setattr(bench, "network", lambda *settings: Brightness())
    monkeypatch.setitem(bench.DATA, "mnist5k", data)
    monkeypatch.setattr(bench, "imported", lambda library: None)

    def run(*arguments):
        calls.clear()
        bench.main(["--networks", "undefended", "--results", str(tmp_path), *arguments])
        return calls, json.loads((tmp_path / "attacks-mnist5k.json").read_text())["rows"]

    return run


def test_a_row_of_the_same_settings_is_not_computed_again(small):
    assert small("--examples", "3")[0] == [3, 3, 3]
    assert small("--examples", "3")[0] == []
    calls, rows = small("--examples", "5")
    assert calls == [5, 5, 5]
    assert [each["examples"] for each in rows] == [5]
    assert small("--examples", "5", "--again", "foolbox")[0] == [5, 5, 5]
    assert small("--examples", "5", "--only", "l0")[0] == []
    assert small("--examples", "6", "--libraries", "ART")[0] == []


def test_turns_alternate_with_random_numbers_of_their_own(monkeypatch, tmp_path):
    drawn = []

    def named(name, by):
        def attack(model, inputs, labels):
            drawn.append((name, torch.rand(()).item()))
            return inputs + (by if len(drawn) < 3 else 0.2)

        return contender(attack, attack=name, epsilon=0.2)

    pair = [named("a", 0.05), named("b", 0.2)]
    images = INPUTS, LABELS
    data = bench.DATA["mnist5k"]._replace(load=lambda split: images)
    monkeypatch.setattr(bench, "roster", lambda *radii: pair)
    monkeypatch.setattr(bench, "network", lambda *settings: Brightness())
    monkeypatch.setitem(bench.DATA, "mnist5k", data)
    monkeypatch.setattr(bench, "imported", lambda library: None)
    bench.main(["--networks", "undefended", "--results", str(tmp_path)])
    assert [name for name, _ in drawn] == ["a", "b"] * 3
    values = [value for _, value in drawn]
    assert values[0::2] == values[1::2]
    assert len(set(values)) == 3

    rows = json.loads((tmp_path / "attacks-mnist5k.json").read_text())["rows"]
    assert [each["success"] for each in rows] == [pytest.approx(2 / 3), 1.0]
    assert [each["turns"] for each in rows] == [3, 3]
    bench.main(["--networks", "undefended", "--results", str(tmp_path)])
    assert len(drawn) == 6


def test_turns_are_summed_up_by_the_middle_of_their_seconds():
    turns = [{"success": s, "median": m, "seconds": t} for s, m, t in
             ((1.0, 2.0, 9.0), (0.5, 4.0, 1.0), (0.75, 3.0, 2.0))]  # fmt: skip
    assert bench.together(turns) == {"success": 0.75, "median": 3.0, "seconds": 2.0}
    turns[1]["median"] = None
    assert bench.together(turns)["median"] is None
    assert bench.together([*turns, {"error": "E: no"}]) == {"error": "E: no"}


def test_ours_draws_by_the_global_seed():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.rand(8, 1, 2, 2, generator=generator), torch.zeros(8, dtype=torch.long)
    attack = peers.ours("pgd", epsilon=0.1, steps=1, early_stop=False)

    def found(seed):
        torch.manual_seed(seed)
        return attack(Brightness(), inputs, labels)

    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))


def test_a_row_of_a_network_that_was_trained_otherwise_is_computed_again(small, monkeypatch):
    assert small()[0]
    about = bench.DATA["mnist5k"]
    slower = about._replace(recipe=about.recipe._replace(learning_rate=0.01))
    monkeypatch.setitem(bench.DATA, "mnist5k", slower)
    assert small()[0]
    wider = slower._replace(network=partial(papernot_mnist, dropout=0.0))
    monkeypatch.setitem(bench.DATA, "mnist5k", wider)
    assert small()[0]
    assert not small()[0]


def test_a_row_of_other_weights_is_computed_again(small, monkeypatch):
    assert small()[0]
    other = Brightness()
    other.unused.data += 1e-7
    monkeypatch.setattr(bench, "network", lambda *settings: other)
    calls, rows = small()
    assert calls
    assert len(rows) == 1
    assert not small()[0]


def test_a_library_that_is_not_installed_is_left_out_and_said(small, monkeypatch, capsys, tmp_path):
    def absent(library):
        raise ImportError(f"No module named {library!r}")

    monkeypatch.setattr(bench, "imported", absent)
    bench.main(["--networks", "undefended", "--results", str(tmp_path)])
    assert "foolbox is left out: No module named 'foolbox'" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", bench.TEMPERATURES)
def test_a_network_is_trained_once_and_read_from_the_cache_afterwards(
    kind, monkeypatch, tmp_path, capsys
):
    generator = torch.Generator().manual_seed(0)
    X, y = torch.rand(40, 1, 28, 28, generator=generator), torch.arange(40) % 10
    data = bench.DATA["mnist5k"]._replace(load=lambda split: (X, y))
    monkeypatch.setitem(bench.DATA, "mnist5k", data)
    monkeypatch.setattr(robust, "examples", lambda data: ((X, y), (X, y)))
    trained = bench.network(kind, "mnist5k", 1, tmp_path)
    assert "training" in capsys.readouterr().out
    read = bench.network(kind, "mnist5k", 1, tmp_path)
    assert "training" not in capsys.readouterr().out
    assert torch.equal(trained(X), read(X))


def test_every_aim_of_a_headline_has_a_peer_and_names_are_unique():
    listed = lists.roster(0.3, 0.13, 100.0)
    identities = [tuple(getattr(one, p) for p in bench.IDENTITY[1:]) for one in listed]
    assert len(set(identities)) == len(identities)
    assert {one.group for one in listed} == set(bench.GROUPS)
    aims = {(one.group, one.kind) for one in listed if one.library in peers.MODULES}
    ours = [one for one in listed if one.library == "distillguard"]
    assert {one.attack for one in ours} >= set(page.HEADLINES)
    assert {(one.group, one.kind) for one in ours} - aims == {("fgsm", "margin")}


def verdicts(*rows):
    return {one["name"]: (one["value"], one["holds"]) for one in judge.checks(list(rows))}


def test_an_attack_of_least_distance_is_judged_by_distance_passes_and_seconds():
    least = {"group": "l2", "kind": "least distance", "attack": "carlini_wagner_l2"}
    ours = row("distillguard", 1.1, 3.0, forwards=200.0, backwards=200.0, **least)
    slow = {"setting": "9 x 200, rate 0.05", "forwards": 1000.0, "backwards": 600.0}
    theirs = row("adv-lib", 1.2, 10.0, **(least | slow))
    nearer = row("foolbox", 1.0, 1.0, **least)
    part = row("ART", 0.5, 1.0, success=0.9, **least)
    found = verdicts(ours, theirs, nearer, part)
    assert found == {
        "undefended, C&W L2: success": (1.0, True),
        "undefended, C&W L2 to adv-lib's 9 x 200: median": (pytest.approx(1.1 / 1.2), True),
        "undefended, C&W L2 to adv-lib's 9 x 200: passes": (0.25, False),
        "undefended, C&W L2 to adv-lib's 9 x 200: seconds": (pytest.approx(0.3), False),
        "undefended, C&W L2 to the nearest of all peers: median": (pytest.approx(1.1), False),
    }


def test_a_median_that_does_not_exist_is_infinitely_far_and_ours_is_a_failed_success():
    ours = row("distillguard", None, 1.0, success=0.4, attack="carlini_wagner_linf")
    theirs = row("adv-lib", 0.2, 1.0, attack="carlini_wagner_linf")
    found = verdicts(ours, theirs)
    assert found == {"undefended, C&W linf: success": (0.4, False)}
    found = verdicts(ours | {"median": 0.2}, theirs | {"median": None})
    assert found["undefended, C&W linf to adv-lib's: median"] == (0.0, True)


def test_pgd_is_judged_by_the_strongest_and_by_the_fastest_of_as_many_steps():
    pgd = {"group": "pgd", "kind": "margin", "attack": "pgd", "epsilon": 0.3}
    ours = row("distillguard", 0.3, 1.0, success=0.75, **pgd)
    equal = {"setting": "40 steps of 0.01"}
    rows = [
        ours,
        row("foolbox", 0.3, 0.1, success=0.5, **pgd),
        row("adv-lib", 0.3, 1.6, success=0.5, **(pgd | equal)),
        row("ART", 0.3, 9.0, success=1.0, **(pgd | equal)),
        row("bare loop", 0.3, 2.0, success=1.0, **(pgd | equal)),
    ]
    assert verdicts(*rows) == {
        "undefended, PGD on the margin, robust above the strongest peer": (0.25, False),
        "undefended, PGD on the margin to the fastest peer: seconds": (pytest.approx(0.625), False),
    }
    rows = [each | {"network": "adversarially trained"} for each in rows]
    found = verdicts(*rows)["adversarially trained, PGD on the margin to a bare loop: seconds"]
    assert found == (0.5, True)


def test_budgets_are_compared_at_the_same_budget_and_jsma_by_temperature():
    fab = {"group": "fab", "kind": "targeted", "attack": "fab_targeted", "epsilon": 0.1}
    rows = [
        row("distillguard", 0.1, 1.0, success=0.5, **fab),
        row("torchattacks", 0.1, 1.0, success=0.9, **fab),
        row("torchattacks", 0.1, 1.0, success=0.504, **(fab | {"setting": "9 targets x 100"})),
        row("ART", 0.1, 1.0, success=1.0, **(fab | {"setting": "9 targets x 100"})),
    ]
    (found,) = verdicts(*rows).values()
    assert found == (pytest.approx(0.004), True)

    # One of 200 images is half a point, which binary fractions do not hold exactly.
    rows = [rows[0] | {"success": 0.13}, rows[2] | {"success": 0.135}]
    (found,) = verdicts(*rows).values()
    assert found == (0.005, True)

    jsma = {"group": "jsma", "attack": "jsma", "targeted": True}
    settings = ("defaults", "softmax of logits / T", "saliency of logits")
    for network, wanted in (("T=100", [True, False]), ("undefended", [False]), ("T=20", [])):
        rows = [
            row("distillguard", 1, 1, success=0.05, **(jsma | {"setting": s})) for s in settings
        ]
        found = verdicts(*(each | {"network": network} for each in rows))
        assert [holds for _, holds in found.values()] == wanted


def test_a_peer_that_broke_or_met_other_images_or_weights_is_not_compared_with():
    least = {"network": "undefended", "group": "l2", "kind": "least distance"}
    ours = row("distillguard", 1.1, 3.0, attack="carlini_wagner_l2", **least)
    fewer = row("adv-lib", 0.5, 1.0, examples=32, **least)
    assert verdicts(ours, fewer) == {"undefended, C&W L2: success": (1.0, True)}
    other = row("adv-lib", 0.5, 1.0, weights="b", **least)
    assert verdicts(ours, other) == {"undefended, C&W L2: success": (1.0, True)}
    broken = {"library": "ART", "attack": "a", "setting": "defaults", "error": "ValueError"}
    assert verdicts(ours, least | broken) == {"undefended, C&W L2: success": (1.0, True)}


@pytest.mark.parametrize("fault", by_hand.FAULTS, ids=lambda fault: fault.name)
def test_every_deliberate_fault_has_its_place_in_the_sources(fault):
    source = (ROOT / "src" / "distillguard" / fault.file).read_text()
    assert source.count(fault.old) == 1
    assert all((ROOT / "tests" / name).exists() for name in fault.tests)


def test_the_page_on_swiss_cheese_says_what_the_slices_gave():
    page = (ROOT / "docs/explanation/swiss-cheese.md").read_text()
    results = json.loads((ROOT / "benchmarks/results/layers.json").read_text())
    distilled, robust = results["rows"]
    assert f"--attacks {results['attacks']}`" in page
    assert f"linf {results['epsilon']}, {results['examples']} test images" in page

    lines = re.findall(r"^\| (.+?) \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.M)
    printed = [[float(cell) for cell in cells] for _, *cells in lines]
    for network, column in zip(results["rows"], zip(*printed, strict=True), strict=True):
        kept = [*network["fooled"].values(), network["product"], network["truth"]]
        assert list(column) == [round(100 * share, 1) for share in kept]

    prose = " ".join(page.split())
    for network in results["rows"]:
        low, high = (100 * end for end in network["false_positive_interval"])
        assert f"{network['false_positive_rate'] * 100:.1f} %" in prose
        assert f"[{low:.1f}, {high:.1f}] %" in prose
    low, high = robust["ratio_interval"]
    assert f"ratio, {robust['ratio']:.2f} with a 95 % interval of [{low:.2f}, {high:.2f}]" in prose
    rejected = [f"{100 * network['clean_rejected']:.1f} %" for network in results["rows"]]
    assert f"{rejected[0]} and {rejected[1]} were rejected" in prose
    dear = [f"{network['staged_and_joint_over_standard']:.1f}" for network in results["rows"]]
    assert f"{dear[0]} and {dear[1]} times the passes" in prose
    for layer in robust["added"].values():
        shown = [100 * share for share in (layer["robust"], *layer["interval"])]
        assert "{:.1f} [{:.1f}, {:.1f}]".format(*shown).replace("-", "−") in prose
    only = distilled["stopped"]["ReconstructionError"]
    assert f"stopped all {only} points" in prose
    assert only == distilled["counted"]
