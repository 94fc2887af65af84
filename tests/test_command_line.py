"""The command line: what it answers, its exit codes, and the sentence for each usual mistake."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from distillguard import UndefendedClassifier, evaluate, exercises
from distillguard.__main__ import main
from distillguard._cli._data import data_from
from distillguard._cli._model import model_from

N_CLASSES, SHAPE = 3, (3, 4, 4)

NETS = """
import torch
from torch import nn
import distillguard


def build(seed=45):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


network = build()


def function(inputs):
    return network(inputs)


class Box:
    inside = network


def broken(inputs):
    raise KeyError("weights")


three = 3
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a model and the same data in each form that the command line takes."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "nets.py").write_text(NETS)
    (folder / "torn.py").write_text("import no_such_module_anywhere\n")
    torch.manual_seed(45)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, N_CLASSES))
    pixels = np.random.default_rng(0).integers(0, 256, (18, 4, 4, 3)).astype(np.uint8)
    X = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    y = network(X).argmax(1)
    y[-1] = (y[-1] + 1) % N_CLASSES
    np.savez(folder / "data.npz", X=X.numpy(), y=y.numpy())
    for place, (image, label) in enumerate(zip(pixels, y.tolist(), strict=True)):
        home = folder / "images" / "abc"[label]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(home / f"{place}.png")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated
        torch.jit.script(network).save(folder / "scripted.pt")
    batch = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(network.eval(), (X[:2],), dynamic_shapes=batch)
    torch.export.save(program, folder / "exported.pt2")
    torch.save(network.state_dict(), folder / "weights.pt")
    named = np.array(["a", "b", "c"])[y]
    estimator = UndefendedClassifier(network, max_epochs=1, random_state=0, device="cpu")
    estimator.set_params(module=None).fit(X, named).save(folder / "saved")
    return folder


@pytest.fixture
def inside(here, monkeypatch):
    """The tests stand in that folder, and ``nets`` is imported from there."""
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield here
    for name in ("nets", "torn"):
        sys.modules.pop(name, None)


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    code = main([str(each) for each in arguments])
    return code, *capsys.readouterr()


QUICK = ("--epsilon", "1/255", "--preset", "quick")


def expected(here, **settings):
    torch.manual_seed(45)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, N_CLASSES))
    with np.load(here / "data.npz") as data:
        settings = {"epsilon": 1 / 255, "attacks": "quick", "random_state": 0} | settings
        return evaluate(network, data["X"], data["y"], **settings)


@pytest.mark.parametrize(
    "model",
    [
        "nets:build",
        "nets:network",
        "nets:function",
        "nets:Box.inside",
        "scripted.pt",
        "exported.pt2",
    ],
)
@pytest.mark.parametrize("data", ["data.npz", "images"])
def test_every_form_of_one_model_and_its_data_gets_the_report_of_evaluate(
    inside, capsys, model, data
):
    code, shown, _ = run(capsys, "evaluate", model, data, *QUICK, "--json", "out/report.json")
    assert code == 0
    report = expected(inside)
    read = json.loads((inside / "out/report.json").read_text())
    assert read["n_examples"] == 18
    assert read["clean_accuracy"] == pytest.approx(17 / 18)
    assert read["robust_accuracy"] == report.robust_accuracy
    assert 0 < report.robust_accuracy < 17 / 18
    assert report.headline in shown


@pytest.mark.parametrize("file", ["scripted.pt", "exported.pt2"])
def test_a_program_is_put_on_the_device_that_is_named_and_nothing_else_changes(inside, file):
    filters = list(warnings.filters)
    weights = [tensor.device.type for tensor in model_from(file, "meta").parameters()]
    assert weights == ["meta", "meta"]
    assert warnings.filters == filters


def test_a_saved_estimator_looks_its_folders_up_by_name(inside, capsys):
    folder = inside / "renamed"
    for name in "cab":  # c comes first in no order of names
        (folder / name).mkdir(parents=True, exist_ok=True)
        for image in (inside / "images" / name).iterdir():
            (folder / name / image.name).write_bytes(image.read_bytes())
    code, _, _ = run(capsys, "evaluate", "saved", folder, *QUICK, "--json", "saved.json")
    assert code == 0
    read = json.loads((inside / "saved.json").read_text())
    with np.load(inside / "data.npz") as data:
        from distillguard import load

        estimator = load(inside / "saved")
        share = (estimator.predict(data["X"]) == np.array(["a", "b", "c"])[data["y"]]).mean()
    assert read["clean_accuracy"] == pytest.approx(share)


def test_grey_and_palette_images_have_the_channels_that_they_show(inside):
    for mode, channels in {"L": 1, "1": 1, "LA": 1, "P": 3, "RGBA": 3, "CMYK": 3}.items():
        folder = inside / "modes" / mode / "one"
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (4, 3), (255, 255, 255)).convert(mode)
        image.save(folder / ("x.tif" if mode == "CMYK" else "x.png"))
        read, label = data_from(str(folder.parent)).X[0]
        assert read.shape == (channels, 3, 4)
        assert (read == 1).all()
        assert label == 0


def test_the_settings_reach_evaluate(inside, capsys):
    arguments = "--norm l2 --epsilon 0.05 --bounds -1 2 --seed 3 --preset quick --batch-size 5"
    code, _, _ = run(
        capsys,
        "evaluate",
        "nets:build",
        "data.npz",
        *arguments.split(),
        "--json",
        "set.json",
        "--device",
        "cpu",
    )
    assert code == 0
    read = json.loads((inside / "set.json").read_text())
    assert (read["norm"], read["epsilon"], read["bounds"]) == ("l2", 0.05, [-1, 2])
    assert read["random_state"] == 3
    assert read["dataset"] == "data.npz"
    report = expected(inside, norm="l2", epsilon=0.05, bounds=(-1, 2), random_state=3)
    assert read["robust_accuracy"] == report.robust_accuracy


@pytest.mark.parametrize("data", ["data.npz", "images"])
def test_a_limit_draws_by_the_seed_and_keeps_every_class_of_a_sorted_folder(inside, capsys, data):
    seen = []
    for seed in (0, 0, 1):
        arguments = ("--limit", 9, "--seed", seed, "--json", "limited.json")
        assert run(capsys, "evaluate", "nets:build", data, *QUICK, *arguments)[0] == 0
        read = json.loads((inside / "limited.json").read_text())
        assert read["n_examples"] == 9
        seen.append(read["per_example"])
    assert seen[0] == seen[1] != seen[2]
    assert len(set(seen[0]["label"])) > 1


def test_the_page_and_a_comparison_come_of_it(inside, capsys):
    for name in ("one", "two"):
        arguments = ("--json", f"{name}.json", "--html", f"{name}.html")
        assert run(capsys, "evaluate", "nets:build", "data.npz", *QUICK, *arguments)[0] == 0
    assert (inside / "one.html").read_text().startswith("<!DOCTYPE html>")
    code, shown, _ = run(capsys, "compare", "one.json", "two.json")
    assert code == 0
    assert "one" in shown
    assert "two" in shown
    assert shown.count(f"{100 * expected(inside).robust_accuracy:.1f} %") >= 2
    assert run(capsys, "compare", "one.json", "--format", "csv")[1].startswith("model,")
    assert "\\toprule" in run(capsys, "compare", "one.json", "--format", "latex")[1]
    assert "| --- |" in run(capsys, "compare", "one.json", "--format", "markdown")[1]


def test_the_exit_code_says_whether_the_accuracy_to_quote_held(inside, capsys):
    quoted = expected(inside).quoted_accuracy
    command = ("evaluate", "nets:build", "data.npz", *QUICK, "--fail-under")
    code, shown, _ = run(capsys, *command, quoted)
    counted = f"Robust accuracy to quote {quoted:.4f} ({round(18 * quoted)} of 18), at least "
    assert code == 0
    assert shown.splitlines()[-1] == f"{counted}{quoted:g} wanted: held"
    code, shown, _ = run(capsys, *command, "0.95")
    assert code == 1
    assert shown.splitlines()[-1] == f"{counted}0.95 wanted: failed"


MODEL = (
    "MODEL must be module:function, a TorchScript or torch.export file, or a folder that the save "
    "of an estimator wrote, got "
)
DATA = (
    "DATA must be a folder of images, an .npz file, or one of cifar10, digits, fashion_mnist, "
    "mnist, mnist5k, got "
)
LAYOUT = "DATA must have one folder for each class, with its images"
SEE = "; see distillguard evaluate --help"
MISTAKES = {
    "nothing": ("", "the following arguments are required: command; see distillguard --help"),
    "no epsilon": (
        "evaluate nets:build data.npz",
        "the following arguments are required: --epsilon" + SEE,
    ),
    "epsilon": (
        "evaluate nets:build data.npz --epsilon big",
        "argument --epsilon: must be a number or a fraction such as 8/255, got 'big'" + SEE,
    ),
    "division": (
        "evaluate nets:build data.npz --epsilon 8/0",
        "argument --epsilon: must be a number or a fraction such as 8/255, got '8/0'" + SEE,
    ),
    "negative": (
        "evaluate nets:build data.npz --epsilon -0.1",
        "epsilon must be a finite number above 0, got -0.1",
    ),
    "units": (
        "evaluate nets:build data.npz --epsilon 8",
        "epsilon must be at most 1, how far apart inputs within bounds can be in linf, got 8.0; it "
        "is in the units of the inputs, 8 / 255 for 8 grey levels of images in [0, 1]",
    ),
    "bounds": (
        "evaluate nets:build data.npz --epsilon 0.1 --bounds 0 0.5",
        "X must be within bounds (0.0, 0.5), got values in [0, 1]",
    ),
    "norm": (
        "evaluate nets:build data.npz --epsilon 0.1 --norm l3",
        "argument --norm: must be one of 'linf', 'l2', 'l1', 'l0', 'l0_pixels', got 'l3'" + SEE,
    ),
    "limit": (
        "evaluate nets:build data.npz --epsilon 0.1 --limit 0",
        "argument --limit: must be a whole number above 0, got '0'" + SEE,
    ),
    "seed": (
        "evaluate nets:build data.npz --epsilon 0.1 --seed x",
        "argument --seed: must be a whole number of at least 0, got 'x'" + SEE,
    ),
    "per cent": (
        "evaluate nets:build data.npz --epsilon 0.1 --fail-under 45",
        "argument --fail-under: must be in [0, 1], such as 0.45 for 45 %, got '45'" + SEE,
    ),
    "device": (
        "evaluate nets:build data.npz --epsilon 0.1 --device gpu",
        "--device must be 'auto', 'cpu' or another device that PyTorch has here, got 'gpu'",
    ),
    "device of a function": (
        "evaluate nets:function data.npz --epsilon 0.1 --device cpu",
        "--device must be left out where MODEL is a function from inputs to logits, got 'cpu'; "
        "the function decides where it computes",
    ),
    "model": (
        "evaluate net.pt data.npz --epsilon 0.1",
        MODEL + "'net.pt', and no such file is here",
    ),
    "weights": (
        "evaluate weights.pt data.npz --epsilon 0.1",
        MODEL + "the file 'weights.pt'; weights are no model: write a function that builds the "
        "network and loads them, and pass module:function",
    ),
    "script": (
        "evaluate nets.py data.npz --epsilon 0.1",
        MODEL + "the file 'nets.py'; write nets:NAME, the function in it that builds or is the "
        "model",
    ),
    "module": (
        "evaluate nest:build data.npz --epsilon 0.1",
        "MODEL must name a module that is installed or in this folder, got 'nest'",
    ),
    "name": (
        "evaluate nets:biuld data.npz --epsilon 0.1",
        "MODEL must name something in nets, got 'biuld', which is not there; write nets:build",
    ),
    "a module that imports what is not there": (
        "evaluate torn:build data.npz --epsilon 0.1",
        "No module named 'no_such_module_anywhere'",
    ),
    "a number": (
        "evaluate nets:three data.npz --epsilon 0.1",
        "model must be a module or a callable from inputs to logits, got 3",
    ),
    "a model that breaks": (
        "evaluate nets:broken data.npz --epsilon 0.1",
        "KeyError: 'weights'; --traceback shows where",
    ),
    "no save": (
        "evaluate images data.npz --epsilon 0.1",
        "images/manifest.json must be a file that can be read, got: [Errno 2] No such file or "
        "directory: 'images/manifest.json'",
    ),
    "data": (
        "evaluate nets:build mnist4k --epsilon 0.1",
        DATA + "'mnist4k', which is not here",
    ),
    "a file": (
        "evaluate nets:build nets.py --epsilon 0.1",
        DATA + "the file 'nets.py'; write numpy.savez(path, X=X, y=y)",
    ),
    "names": (
        "evaluate nets:build xs.npz --epsilon 0.1",
        "DATA must hold arrays X and y, got images, y in xs.npz; write numpy.savez(path, X=X, y=y)",
    ),
    "lengths": (
        "evaluate nets:build odd.npz --epsilon 0.1",
        "DATA must hold X of shape (n, ...) and y of shape (n,), got (4, 3, 4, 4) and (3,) in "
        "odd.npz",
    ),
    "a pickle": (
        "evaluate nets:build pickled.npz --epsilon 0.1",
        "Object arrays cannot be loaded when allow_pickle=False",
    ),
    "bytes": (
        "evaluate nets:build bytes.npz --epsilon 0.1",
        "X must be floating point, got uint8 images; divide by 255, for instance X / 255.0",
    ),
    "no folders": (
        "evaluate nets:build images/a --epsilon 0.1",
        LAYOUT + ", got 'images/a' without any",
    ),
    "an empty folder": (
        "evaluate nets:build hollow --epsilon 0.1",
        LAYOUT + " (.bmp, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp), got none in 'b'",
    ),
    "sizes": (
        "evaluate nets:build sizes --epsilon 0.1",
        "DATA must have images of one size and number of channels, got 3x5x4 after 3x4x4 in "
        "'sizes/b/1.png'",
    ),
    "16 bits": (
        "evaluate nets:build deep --epsilon 0.1",
        "DATA must have images of 8 bits per channel, got mode I;16 in 'deep/a/0.tif'",
    ),
    "too few classes": (
        "evaluate nets:build two --epsilon 0.1",
        "class_names must name all 3 classes, got 2 names",
    ),
    "other classes": (
        "evaluate saved other --epsilon 0.1",
        "DATA must have folders called as the classes that MODEL knows, a, b, c, got 'kat'",
    ),
    "a page that is a folder": (
        "evaluate nets:build data.npz --epsilon 0.1 --html images",
        "--html must be a file, got the folder 'images'",
    ),
    "form": (
        "compare one.json --format html",
        "argument --format: must be one of 'text', 'markdown', 'csv', 'latex', got 'html'; see "
        "distillguard compare --help",
    ),
    "no report": (
        "compare nets.py",
        "REPORT must be a file that evaluate --json wrote, got 'nets.py': source must be a report "
        "written by to_json, got Expecting value: line 2 column 1 (char 1)",
    ),
    "no such report": (
        "compare nothing.json",
        "[Errno 2] No such file or directory: 'nothing.json'",
    ),
    "a report twice": (
        "compare given.json given.json",
        "REPORT must name each file once, got 'given.json' twice",
    ),
}


@pytest.fixture(scope="module")
def mistaken(here):
    """What the mistakes need beside the right files."""
    images = np.zeros((4, *SHAPE), dtype=np.float32)
    np.savez(here / "xs.npz", images=images, y=np.zeros(4, dtype=int))
    np.savez(here / "odd.npz", X=images, y=np.zeros(3, dtype=int))
    np.savez(here / "pickled.npz", X=images, y=np.array([None] * 4, dtype=object))
    np.savez(here / "bytes.npz", X=np.full(images.shape, 200, np.uint8), y=np.zeros(4, dtype=int))
    for folder in (
        "hollow/a",
        "hollow/b",
        "sizes/a",
        "sizes/b",
        "deep/a",
        "two/a",
        "two/b",
        "other/a",
        "other/kat",
    ):
        (here / folder).mkdir(parents=True)
        if folder not in ("hollow/b", "deep/a"):
            Image.new("RGB", (4, 4)).save(here / folder / "0.png")
    Image.new("RGB", (4, 5)).save(here / "sizes/b/1.png")
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(here / "deep/a/0.tif")
    expected(here).to_json(here / "given.json")
    return here


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usual_mistake_gets_one_sentence_and_exit_code_2(mistaken, inside, capsys, name):
    command, sentence = MISTAKES[name]
    code, shown, said = run(capsys, *command.split())
    assert code == 2
    assert shown == ""
    assert said == f"distillguard: error: {sentence}\n"


def test_traceback_shows_where_an_error_came_from(inside):
    with pytest.raises(KeyError, match="weights"):
        main(["evaluate", "nets:broken", "data.npz", *QUICK, "--traceback"])


def test_an_error_of_several_lines_is_one_line(inside, capsys, monkeypatch):
    import distillguard.evaluation

    def stop(*args, **settings):
        raise RuntimeError("a\nb")

    monkeypatch.setattr(distillguard.evaluation, "evaluate", stop)
    code, _, said = run(capsys, "evaluate", "nets:build", "data.npz", *QUICK)
    assert code == 2
    assert said == "distillguard: error: RuntimeError: a b; --traceback shows where\n"


def test_an_interruption_and_a_reader_that_left_end_without_a_word(inside, capsys, monkeypatch):
    import distillguard.evaluation

    for error, code in ((KeyboardInterrupt, 130), (BrokenPipeError, 0)):

        def stop(*args, error=error, **settings):
            raise error

        monkeypatch.setattr(distillguard.evaluation, "evaluate", stop)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", sys.stdout)
            assert main(["evaluate", "nets:build", "data.npz", *QUICK]) == code
        assert capsys.readouterr().err == ""


def test_help_lists_commands_and_exit_codes_and_waits_for_no_torch():
    code = (
        "import sys; from distillguard.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'PIL', 'sklearn'} & set(sys.modules)"
    )
    for command in ([], ["evaluate"], ["compare"], ["demo"], ["exercises"]):
        shown = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for line in ("exit codes:", "\n  0 ", "\n  1 ", "\n  2 ", "\n  130 "):
            assert line in shown
    assert "evaluate" in shown or "exercises" in shown


def test_a_command_that_does_not_exist_is_told_those_that_do(capsys):
    code, _, said = run(capsys, "evalute")
    assert code == 2
    assert said.replace("'", "") == (
        "distillguard: error: argument command: invalid choice: evalute (choose from demo, "
        "evaluate, compare, exercises); see distillguard --help\n"
    )


def test_exercises_are_listed_shown_and_checked(tmp_path, capsys):
    tasks = exercises.tasks()
    task = tasks["margin"]
    code, shown, _ = run(capsys, "exercises")
    assert code == 0
    assert [line.split()[2] for line in shown.splitlines()] == list(tasks)
    code, shown, _ = run(capsys, "exercises", task.name)
    assert code == 0
    assert task.stub.strip() in shown
    (tmp_path / "stub.py").write_text(task.stub)
    assert run(capsys, "exercises", "--check", tmp_path / "stub.py")[0] == 1
    (tmp_path / "right.py").write_text(task.solution)
    assert run(capsys, "exercises", "--check", tmp_path / "right.py")[0] == 0


def test_the_exit_code_is_about_the_accuracy_to_quote_and_not_that_of_the_attacks_passed(
    inside, capsys, monkeypatch
):
    class Report:
        n_examples, robust_accuracy, quoted_accuracy = 10, 0.6, 0.4

    monkeypatch.setattr("distillguard.evaluation.evaluate", lambda *given, **settings: Report())
    command = ("evaluate", "nets:build", "data.npz", *QUICK, "--fail-under")
    for wanted, expected_code in ((0.3, 0), (0.4, 0), (0.5, 1)):
        code, shown, _ = run(capsys, *command, wanted)
        assert code == expected_code
        assert "Robust accuracy to quote 0.4000 (4 of 10)" in shown


def test_hidden_files_beside_images_are_none(inside):
    before = len(data_from("images").X)
    (inside / "images" / "a" / "._0.png").write_bytes(b"what some file systems leave")
    try:
        assert len(data_from("images").X) == before == 18
    finally:
        (inside / "images" / "a" / "._0.png").unlink()
