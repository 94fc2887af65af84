"""What the command line hands on and prints, with stand-ins for all that takes time."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from distillguard import __version__, evaluation, exercises
from distillguard.__main__ import main
from distillguard._cli._data import Data, data_from
from distillguard._cli._model import _builds, model_from


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    code = main([str(each) for each in arguments])
    return code, *capsys.readouterr()


def shown(capsys, *arguments):
    """What a command prints before it leaves by itself."""
    with pytest.raises(SystemExit) as left:
        main([*arguments])
    assert left.value.code == 0
    return capsys.readouterr().out


# What is handed on, and what is printed.


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    """What evaluate was given, of a model and data of nobody's."""
    given = []

    class Report:
        n_examples, quoted_accuracy = 10, 0.5

        def __str__(self):
            return "the report"

    def evaluate(model, X, y, **settings):
        given.append({"model": model, "X": X, "y": y, **settings})
        return Report()

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr("distillguard._cli._evaluate.model_from", lambda *told: told)
    np.savez(tmp_path / "data.npz", X=np.zeros((3, 2)), y=np.arange(3))
    monkeypatch.chdir(tmp_path)
    return given


COMMAND = ("evaluate", "nets:model", "data.npz", "--epsilon", "8/255")


def test_what_is_left_out_is_as_the_help_says(evaluated, capsys):
    text = " ".join(shown(capsys, "evaluate", "--help").split())
    assert run(capsys, *COMMAND)[0] == 0
    (given,) = evaluated
    assert given["model"] == ("nets:model", None)
    assert given["epsilon"] == 8 / 255
    assert given["X"].shape == (3, 2)
    for told, found in {
        f"{given['norm']} (default)": "linf (default)",
        f"{given['attacks']} (default)": "standard (default)",
        f"(default: {given['random_state']})": "(default: 0)",
        f"default: {given['batch_size']}": "default: 256",
        "highest value of an input (default: {:g} {:g})".format(*given["bounds"]): "(default: 0 1)",
    }.items():
        assert told in text
        assert found in told
    assert given["class_names"] is None


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_where_somebody_looks_on(evaluated, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert run(capsys, *COMMAND, "--device", "cpu")[1].strip() == "the report"
    assert evaluated[0]["progress"] is terminal
    assert evaluated[0]["model"] == ("nets:model", "cpu")


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_report_that_could_not_be_written_is_not_made(evaluated, capsys, option):
    code, _, said = run(capsys, *COMMAND, option, "data.npz/report")
    assert code == 2
    assert "data.npz" in said
    assert evaluated == []


def test_a_limit_of_as_many_as_there_are_or_none_takes_them_as_they_are():
    data = Data(np.arange(6), np.arange(6), "six")
    for n in (None, 6, 7):
        assert data.limited(n, 0) is data or data.limited(n, 0).X.tolist() == list(range(6))
    assert len(data.limited(5, 0).X) == 5


def test_the_first_page_of_help_names_each_command_by_what_it_does(capsys):
    text = shown(capsys, "--help")
    assert "usage: distillguard" in text
    assert "Attack a classifier and report what its robustness is worth." in text
    for name in ("demo", "evaluate", "compare", "exercises"):
        own = shown(capsys, name, "--help")
        assert "--traceback" in own
        summary = " ".join(own.split("\n\n")[1].split())
        assert summary.endswith(".")
        assert f"{name} {summary}" in " ".join(text.split())
    assert shown(capsys, "--version") == f"distillguard {__version__}\n"


def test_an_error_without_a_word_is_told_by_its_kind(evaluated, capsys, monkeypatch):
    for error, sentence in {
        ValueError(): "ValueError: ; --traceback shows where",
        OSError("full"): "full",
        TypeError("no"): "no",
        ImportError("gone"): "gone",
    }.items():

        def stop(*given, error=error, **settings):
            raise error

        monkeypatch.setattr(evaluation, "evaluate", stop)
        code, out, said = run(capsys, *COMMAND)
        assert (code, out, said) == (2, "", f"distillguard: error: {sentence}\n")


def test_a_reader_that_left_before_the_last_words_ends_the_command_well(evaluated, monkeypatch):
    class Gone:
        def write(self, text):
            return len(text)

        def flush(self):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    assert main([*COMMAND]) == 0
    assert sys.stdout is None


# Models and data.


def test_files_of_one_name_in_two_folders_are_compared_by_their_paths(
    capsys, monkeypatch, tmp_path
):
    asked = []
    monkeypatch.setattr(evaluation.RobustnessReport, "from_json", lambda path: path.name)
    monkeypatch.setattr(evaluation, "compare", lambda told: asked.append(told) or "table\n\n")
    assert run(capsys, "compare", "a/one.json", "b/one.json", "b/two.json")[:2] == (0, "table\n")
    assert asked == [{"a/one.json": "one.json", "b/one.json": "one.json", "two": "two.json"}]


def test_a_folder_of_this_place_comes_first_where_modules_are_looked_for(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError")
    (tmp_path / "mine.py").write_text("def model(x, y=2):\n    return x\n")
    monkeypatch.chdir(tmp_path)
    path = [each for each in sys.path if each != str(tmp_path)]
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for _ in range(2):
        assert model_from("mine:model")(3) == 3
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    monkeypatch.delitem(sys.modules, "mine")


def test_a_model_is_put_on_the_device_that_is_named(tmp_path, monkeypatch):
    made = {"network": nn.Linear(2, 2), "fitted": SimpleNamespace(model_=nn.Linear(2, 2))}
    monkeypatch.setitem(sys.modules, "lent_models", SimpleNamespace(**made))
    monkeypatch.setattr("distillguard._cli._model.importlib.import_module", sys.modules.get)
    for name, model in made.items():
        network = getattr(model, "model_", model)
        assert model_from(f"lent_models:{name}") is model
        assert network.weight.device.type == "cpu"
        assert model_from(f"lent_models:{name}", "meta") is model
        assert network.weight.device.type == "meta"
    loads = []
    monkeypatch.setattr("distillguard.persistence.load", lambda *given, **more: loads.append(more))
    for device, available in ((None, True), ("meta", True), ("auto", False), ("auto", True)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=available: there)
        model_from(str(tmp_path), device)
    assert loads == [{"device": each} for each in ("cpu", "meta", "cpu", "cuda")]


@pytest.mark.parametrize(
    ("found", "builds"),
    [
        (lambda: 1, True),
        (lambda seed=0, *rest, **more: 1, True),
        (lambda x: 1, False),
        (lambda x, y=0: 1, False),
        (lambda *, x: 1, False),
        (nn.Identity, True),
        (nn.Identity(), False),
        (3, False),
        (dict.fromkeys, False),
        (max, False),
    ],
)
def test_what_can_be_called_with_nothing_makes_a_model_and_is_none(found, builds):
    assert _builds(found) is builds


def test_images_of_numbers_are_refused_and_letters_of_any_case_end_their_names(tmp_path):
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (2, 2), 51).save(tmp_path / folder / "x.PNG")
    (tmp_path / "b" / "notes.txt").write_text("of somebody")
    data = data_from(f"{tmp_path}/")
    assert [(image.unique().tolist(), label) for image, label in (data.X[0], data.X[1])] == [
        ([pytest.approx(0.2)], 0),
        ([pytest.approx(0.2)], 1),
    ]
    assert data.class_names == ("a", "b")
    assert data.name == tmp_path.name
    Image.new("F", (2, 2)).save(tmp_path / "a" / "x.tif")
    with pytest.raises(ValueError, match="8 bits per channel, got mode F"):
        data_from(str(tmp_path)).X[1]


# Exercises.


def test_an_exercise_is_listed_and_shown_with_its_chapter_and_minutes(capsys):
    tasks = exercises.tasks()
    lines = run(capsys, "exercises")[1].splitlines()
    assert len({line.index("minutes") for line in lines}) == 1
    for line, task in zip(lines, tasks.values(), strict=True):
        assert line.split() == [
            "chapter", str(task.chapter), task.name, task.difficulty, str(task.minutes), "minutes",
        ]  # fmt: skip
    task = next(iter(tasks.values()))
    out = run(capsys, "exercises", task.name)[1]
    head = f"{task.name} (chapter {task.chapter}, {task.difficulty}, {task.minutes} minutes)"
    assert out == f"{head}\n\n{task.statement.strip()}\n\n{task.stub.strip()}\n"


def test_answers_are_counted_and_what_holds_none_is_refused(capsys, monkeypatch, tmp_path):
    first, second, *_ = exercises.tasks()
    monkeypatch.setattr(exercises, "check", lambda name, answer: answer())
    file = tmp_path / "answers.py"
    for text, code, last in (
        (f"def {first}():\n    return 0\ndef {second}():\n    return 7\n", 1, "1 of 2 right"),
        (f"def {first}():\n    return 7\n{second} = 7\n", 0, "1 of 1 right"),
    ):
        file.write_text(text)
        found, out, _ = run(capsys, "exercises", "--check", file)
        assert found == code
        assert out.splitlines()[-1] == f"{last}, of {len(exercises.tasks())} exercises"
        assert "7" in out.splitlines()
    file.write_text("def other():\n    return 7\n")
    for path, said in ((file, "got none in"), (tmp_path / "no.py", "which is not here")):
        code, _, text = run(capsys, "exercises", "--check", path)
        assert code == 2
        assert said in text
    code, _, text = run(capsys, "exercises", "nothing")
    assert (code, f"NAME must be one of {first}, {second}" in text) == (2, True)
