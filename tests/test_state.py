"""What is resumed is what was asked for: state files of evaluate, whatever is in them."""

import errno
import json
import os
import random
import re
import stat
import subprocess
import sys
import warnings
from collections import Counter
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.utils.data import DataLoader, Dataset

from distillguard import attacks, evaluate
from distillguard._identity import Describer, without_bytecode
from distillguard.evaluation import (
    RobustnessReport,
    _entries,
    _evaluate,
    _presets,
    _state,
    _state_format,
)
from distillguard.evaluation._presets import AttackSpec
from distillguard.evaluation._run import Run
from distillguard.evaluation.diagnosis._columns import observed
from distillguard.exceptions import SaveError

TIMES = {"seconds", "date"}


def told(report):
    """Everything that a report says but the seconds and the date."""

    def strip(part):
        if isinstance(part, dict):
            return {name: strip(part[name]) for name in part if name not in TIMES}
        return [strip(value) for value in part] if isinstance(part, list) else part

    return strip(report.to_dict())


def shown(report):
    return [(e.label, e.predicted, e.attack, e.distance) for e in report.examples]


class Plug(nn.Module):
    """A network that pulls the plug after so many questions."""

    def __init__(self, network, left=10**9):
        super().__init__()
        self.network, self.left, self.asked = network, left, 0

    def forward(self, inputs):
        self.left -= 1
        self.asked += len(inputs)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.network(inputs)


torch.manual_seed(0)
NET = nn.Linear(6, 3)
X = torch.rand(48, 6)
Y = NET(X).argmax(1)
Y[40:44] = (Y[40:44] + 1) % 3
WEAK = partial(attacks.pgd, epsilon=0.05, steps=2, random_start=False, loss="margin")
STRONG = partial(attacks.pgd, epsilon=0.1, loss="margin", steps=3)
SETTINGS = {"epsilon": 0.1, "random_state": 0, "chunk_size": 8}
SETTINGS["attacks"] = {"fgsm": partial(attacks.fgsm, epsilon=0.1), "pgd": STRONG}


def test_an_evaluation_without_a_state_file_marks_no_data_and_asks_no_more_of_the_model(
    monkeypatch, tmp_path
):
    hashed, told_of = [], _state.hash_of

    def noted(content):
        hashed.append(content)
        return told_of(content)

    monkeypatch.setattr(_state, "hash_of", noted)
    passes = []
    for path in (None, tmp_path / "state"):
        model = Plug(NET)
        evaluate(model, X, Y, **SETTINGS, **({"state_file": path} if path else {}))
        passes.append((model.asked, len(hashed)))
    assert passes[0][1] == 0 < passes[1][1]
    assert passes[0][0] < passes[1][0]


@pytest.fixture(autouse=True)
def _without_diagnosis(monkeypatch):
    """It is made from the records, which are what matters here, and takes most of the time."""

    monkeypatch.setattr(_evaluate, "diagnose", lambda run, *_: observed(run))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def attacked(monkeypatch):
    """The names of attacks, once for every chunk that they are run on."""
    calls = []
    attack = Run.attack

    def counted(run, name, *arguments):
        calls.append(name)
        return attack(run, name, *arguments)

    monkeypatch.setattr(Run, "attack", counted)
    return calls


def interrupt(path, *, questions, **settings):
    with pytest.raises(KeyboardInterrupt):
        evaluate(Plug(NET, questions), X, Y, state_file=path, **SETTINGS | settings)


def n_chunks(path):
    return len(_state_format.read(path)[0]["chunks"]) if path.exists() else 0


# --- going on --------------------------------------------------------------------------------


@pytest.mark.parametrize(("questions", "known"), [(0, 0), (2, 0), (25, 2), (45, 4)])
def test_an_interrupted_evaluation_goes_on_to_the_same_report(path, attacked, questions, known):
    whole = evaluate(Plug(NET), X, Y, **SETTINGS)
    interrupt(path, questions=questions)
    assert n_chunks(path) == known
    attacked.clear()
    resumed = evaluate(Plug(NET), X, Y, state_file=path, **SETTINGS)
    assert attacked == ["fgsm", "pgd"] * (6 - known)
    assert told(resumed) == told(whole)
    assert shown(resumed) == shown(whole)


@pytest.mark.parametrize("seed", [None, 2**63 - 1])
def test_a_finished_state_gives_the_report_without_attacking_again(path, attacked, seed):
    settings = SETTINGS | {"random_state": seed}
    first = evaluate(NET, X, Y, state_file=path, **settings)
    before = path.read_bytes()
    attacked.clear()
    # Without a random_state the fresh seed of the first run is kept, and batches may be others.
    again = evaluate(NET, X, Y, state_file=path, batch_size=5, **settings)
    assert attacked == []
    assert told(again)["attacks"] == told(first)["attacks"]
    assert again.random_state == first.random_state
    assert path.read_bytes() == before


@pytest.mark.parametrize("survivors_only", [True, False])
@pytest.mark.parametrize("questions", [None, 0, 20])
def test_a_further_attack_runs_alone_on_what_stands(path, attacked, survivors_only, questions):
    settings = SETTINGS | {"survivors_only": survivors_only}
    both = {"weak": WEAK, "strong": (STRONG, "linf"), "last": attacks.fgsm}
    both["last"] = partial(attacks.fgsm, epsilon=0.1)
    fresh = evaluate(Plug(NET), X, Y, **settings | {"attacks": both})
    evaluate(Plug(NET), X, Y, state_file=path, **settings | {"attacks": {"weak": WEAK}})
    if questions is not None:
        interrupt(path, questions=questions, survivors_only=survivors_only, attacks=both)
    done = list(_state_format.read(path)[0]["known"].values())
    attacked.clear()
    extended = evaluate(Plug(NET), X, Y, state_file=path, **settings | {"attacks": both})
    assert attacked == ["strong", "last"] * (6 - [*done, 0][1])
    assert 0 < fresh.attacks[1].fooled < 44
    assert told(extended) == told(fresh)
    assert shown(extended) == shown(fresh)
    # The other way round it is another evaluation.
    for other in ({"weak": WEAK}, dict(reversed(both.items()))):
        with pytest.raises(SaveError, match="got one with the attacks 'weak', 'strong', 'last'"):
            evaluate(Plug(NET), X, Y, state_file=path, **settings | {"attacks": other})


@pytest.mark.parametrize("seed", range(8))
def test_a_state_of_two_examples_is_read_back_whatever_their_keys(path, seed):
    # Keys are 64 bits: a quarter of all pairs lie further apart than int64 can say.
    settings = SETTINGS | {"epsilon": 1.0, "attacks": {"fgsm": attacks.fgsm}, "random_state": seed}
    first = evaluate(NET, X[:2], Y[:2], state_file=path, **settings)
    assert told(evaluate(NET, X[:2], Y[:2], state_file=path, **settings)) == told(first)


def test_what_a_killed_write_left_is_swept_up(path):
    stray = path.with_name("state.distillguard-0123abcd")
    stray.write_bytes(b"half")
    evaluate(NET, X, Y, state_file=path, **SETTINGS)
    assert list(path.parent.iterdir()) == [path]


# --- the same attacks ------------------------------------------------------------------------

LIMIT = 0.1


def by_global(model, inputs, labels):
    return inputs + LIMIT


def closing_over(value):
    return lambda model, inputs, labels: inputs + value


class Stepping:
    size = 1

    def __init__(self, step):
        self.step = step

    def __call__(self, model, inputs, labels):
        return self.moved(inputs)

    def moved(self, inputs):
        return inputs + self.step

    def other(self, model, inputs, labels):
        return inputs


class Slotted:
    __slots__ = ("step",)

    def __init__(self, step):
        self.step = step

    def __call__(self, model, inputs, labels):
        return inputs + self.step


class Inheriting(Slotted):
    """Has what its parent has in slots, and a slot without a value."""

    __slots__ = ("unset",)


def network(slope):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(slope))


def with_default(value):
    def attack(model, inputs, labels, step=value):
        return inputs + step

    return attack


PAIRS = {
    "a setting": lambda k: partial(attacks.pgd, steps=10 + k),
    "a setting in a setting": lambda k: partial(partial(attacks.pgd, loss="margin"), steps=10 + k),
    "the kind of number": lambda k: partial(by_global, step=[1, 1.0][k]),
    "the attack": lambda k: [attacks.pgd, attacks.apgd][k],
    "code": lambda k: [lambda m, x, y: x, lambda m, x, y: -x][k],
    "a constant": lambda k: [lambda m, x, y: x + 1, lambda m, x, y: x + 1.0][k],
    "a method called": lambda k: [lambda m, x, y: x.sin(), lambda m, x, y: x.cos()][k],
    "nested code": lambda k: [
        lambda m, x, y: [z + 1 for z in x],
        lambda m, x, y: [z + 2 for z in x],
    ][k],
    "a closure": lambda k: closing_over(0.1 * k),
    "a closure's tensor": lambda k: closing_over(torch.tensor([0.0, k])),
    "a closure's array": lambda k: closing_over(np.array([0.0, k])),
    "a closure's network": lambda k: closing_over(network(0.1 * k)),
    "a closure's function": lambda k: closing_over(closing_over(k)),
    "a closure's mapping": lambda k: closing_over({"a": [1, {"b": {k, 7}}]}),
    "many numbers": lambda k: closing_over([0] * 5000 + [k]),
    "a default": lambda k: with_default(0.1 * k),
    "an attribute": lambda k: Stepping(0.1 * k),
    "a slot": lambda k: Slotted(0.1 * k),
    "a slot of its parent": lambda k: Inheriting(0.1 * k),
    "a method": lambda k: [Stepping(1).moved, Stepping(1).other][k],
    "whose method": lambda k: Stepping(k).moved,
    "the dtype": lambda k: closing_over(torch.zeros(2, dtype=[torch.float32, torch.int32][k])),
    "an object that tells itself": lambda k: closing_over(range(3 + k)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_attacks_are_told_apart_by_what_they_do(kind):
    make = PAIRS[kind]
    first, again, other = (Describer()(make(k)) for k in (0, 0, 1))
    assert json.loads(json.dumps(first)) == again != other


def test_what_an_attack_finds_in_its_module_belongs_to_it(monkeypatch):
    before = Describer()(by_global), Describer()(lambda m, x, y: by_global(m, x, y))
    monkeypatch.setitem(globals(), "LIMIT", 0.2)
    after = Describer()(by_global), Describer()(lambda m, x, y: by_global(m, x, y))
    assert before[0]["globals"] == {"LIMIT": "0.1"}
    assert after[0]["globals"] == {"LIMIT": "0.2"}
    assert after[1]["globals"] != before[1]["globals"]


def test_settings_of_our_own_attacks_that_change_no_result_are_no_difference():
    plain = Describer()(attacks.pgd)
    same = partial(attacks.pgd, batch_size=3, progress=True, steps=40, callback=print)
    assert Describer()(same) == plain


def test_whatever_leads_back_to_itself_is_described():
    loop = [1]
    loop.append(loop)
    deep = []
    for _ in range(3000):
        deep = [deep]

    def recursive(model, inputs, labels):
        return recursive(model, loop, deep)

    describer = Describer()
    assert describer(recursive)["closure"]["loop"] == ["1", "the same list"]
    assert len(describer.notes) == 1


@pytest.mark.parametrize("value", [object(), random.Random(0), torch.Generator()])
def test_what_is_told_by_its_type_alone_is_noted_in_the_report(path, value):
    def attack(model, inputs, labels, held=value):
        return inputs

    report = evaluate(NET, X, Y, state_file=path, **SETTINGS | {"attacks": {"mine": attack}})
    assert "is told by its type alone" in report.observations.failed["resumed attack mine"]
    assert "resumed attack mine" in str(report)


def test_a_description_is_the_same_in_another_process():
    """Where sets of strings have another order, and functions other addresses."""
    code = """
import json
from distillguard._identity import Describer
class Attack:
    kinds = frozenset("abcdefgh")
    def __call__(self, model, inputs, labels):
        return inputs if self.kinds & {"x", "y", "z"} or model in {"u", "v", "w"} else {*inputs}
told = json.dumps(Describer()({"attack": Attack(), "set": set("stuvwxyz"), "print": print}))
"""
    here = {"__name__": "__main__"}
    exec(code, here)
    command = [sys.executable, "-c", f"{code}\nprint(told)"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here["told"]


def test_bytecode_is_not_compared_between_versions_of_python():
    one, other = (Describer()(PAIRS["code"](k)) for k in (0, 1))
    assert without_bytecode(one) == without_bytecode(other)
    held = {"attacks": [one, {"run": one}]}
    assert "bytecode" not in json.dumps(without_bytecode(held))


# --- the same evaluation ---------------------------------------------------------------------

OTHERS = {
    "epsilon": ({"epsilon": 0.2}, "threat model.epsilon 0.1 instead of 0.2"),
    "norm": ({"norm": "l2"}, "threat model.norm 'linf' instead of 'l2'"),
    "bounds": ({"bounds": (0.0, 2.0)}, "threat model.bounds.1 1.0 instead of 2.0"),
    "mask": ({"mask": torch.ones(6, dtype=torch.bool)}, "threat model.mask None instead of tensor"),
    "seed": ({"random_state": 1}, "seed 0 instead of 1"),
    "chunk_size": ({"chunk_size": 9}, "chunk_size 8 instead of 9"),
    "survivors_only": ({"survivors_only": False}, "survivors_only True instead of False"),
    "preset": ({"attacks": "quick"}, "the attacks 'fgsm', 'pgd' instead of 'FGSM margin', 'PGD"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_evaluation_is_refused_with_the_difference(path, name):
    interrupt(path, questions=25)
    change, difference = OTHERS[name]
    with pytest.raises(SaveError, match="state_file must belong to the same eval") as caught:
        evaluate(Plug(NET), X, Y, state_file=path, **SETTINGS | change)
    assert difference in str(caught.value)
    assert f"remove {path} to start afresh" in str(caught.value)


def test_the_norm_of_an_entry_belongs_to_it(path):
    evaluate(NET, X, Y, state_file=path, **SETTINGS | {"attacks": {"a": (STRONG, "l1")}})
    with pytest.raises(SaveError, match=r"attacks\.a\.norm l1 instead of l2"):
        evaluate(NET, X, Y, state_file=path, **SETTINGS | {"attacks": {"a": (STRONG, "l2")}})


def test_a_preset_of_other_settings_is_another_evaluation(path, monkeypatch):
    settings = SETTINGS | {"attacks": "quick"}
    evaluate(NET, X, Y, state_file=path, **settings)
    pgd = partial(attacks.pgd, loss="margin", steps=11)
    preset = _entries.preset

    def newer(name, threat, **common):
        return preset(name, threat, **common) | {
            "PGD margin": _presets.AttackSpec(pgd, threat.norm)
        }

    monkeypatch.setattr(_entries, "preset", newer)
    with pytest.raises(SaveError, match=r"PGD margin\.run\.settings\.steps 10 instead of 11"):
        evaluate(NET, X, Y, state_file=path, **settings)


def test_another_version_of_the_package_is_another_evaluation(path, monkeypatch):
    evaluate(NET, X, Y, state_file=path, **SETTINGS)
    monkeypatch.setattr("distillguard.evaluation._state.__version__", "9.9")
    with pytest.raises(SaveError, match=r"distillguard '.*' instead of '9\.9'"):
        evaluate(NET, X, Y, state_file=path, **SETTINGS)


def test_what_is_nested_too_deep_is_refused_under_another_version_of_python(path):
    content, tensors = parts_of(finished())
    deep = content["evaluation"]["model"]
    for _ in range(700):
        deep = [deep]
    content["evaluation"]["model"], content["environment"]["Python"] = deep, "3.1.4"
    path.write_bytes(forged(content, tensors))
    with pytest.raises(SaveError, match="state_file must"):
        evaluate(NET, X, Y, state_file=path, **SETTINGS)


@pytest.mark.parametrize("name", ["device", "PyTorch", "Python"])
def test_another_device_or_version_is_a_warning_that_names_both(path, monkeypatch, name):
    first = evaluate(NET, X, Y, state_file=path, **SETTINGS)
    environment = _state.environment
    monkeypatch.setattr(_state, "environment", lambda model: environment(model) | {name: "3.1.4"})
    with pytest.warns(
        UserWarning, match=f"begun with {name} .* and is continued with 3.1.4"
    ) as seen:
        again = evaluate(NET, X, Y, state_file=path, **SETTINGS)
    assert [each.filename for each in seen] == [__file__]
    assert told(again) == told(first)


# --- the same model --------------------------------------------------------------------------


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.inner, self.factor = NET, factor

    def forward(self, inputs):
        return self.factor * self.inner(inputs)


def shifted(by):
    network = nn.Linear(6, 3)
    network.load_state_dict(NET.state_dict())
    with torch.no_grad():
        # Beyond what eight answers can tell.
        network.bias += by
    return network


MODELS = {
    "a function's code": (lambda x: NET(x), lambda x: -NET(x), "model.bytecode"),
    "an attribute": (Times(1.0), Times(-1.0), "answers the first examples otherwise"),
    "an attribute, a little": (Times(1.0), Times(1.0001), "answers the first examples otherwise"),
    "weights": (NET, shifted(1e-7), "model.weights"),
    "a class": (Times(1.0), Plug(NET), "model.class"),
    "weights in a closure": (
        (lambda net: lambda x: net(x))(NET),
        (lambda net: lambda x: net(x))(shifted(1e-7)),
        "model.closure.net.weights",
    ),
    "a number in a closure": (
        (lambda by: lambda x: by * NET(x))(1),
        (lambda by: lambda x: by * NET(x))(2),
        "answers the first examples otherwise",
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_another_model_is_refused(path, kind):
    one, other, difference = MODELS[kind]
    first = evaluate(one, X, Y, state_file=path, **SETTINGS)
    assert told(evaluate(one, X, Y, state_file=path, **SETTINGS)) == told(first)
    with pytest.raises(SaveError, match="state_file must belong to the same eval") as caught:
        evaluate(other, X, Y, state_file=path, **SETTINGS)
    assert difference in str(caught.value)


def test_answers_may_differ_by_rounding(path):
    first = evaluate(Times(1.0), X, Y, state_file=path, **SETTINGS)
    again = evaluate(Times(1.0 + 1e-6), X, Y, state_file=path, **SETTINGS)
    assert told(again)["attacks"] == told(first)["attacks"]


def test_a_model_that_contradicts_itself_is_told_by_weights_and_code_and_noted(path):
    chance = random.Random(0)

    class Noisy(nn.Module):
        def __init__(self, network, share=0.01):
            super().__init__()
            self.network, self.share = network, share

        def forward(self, inputs):
            return self.network(inputs) + self.share * chance.random()

    evaluate(Noisy(NET), X, Y, state_file=path, **SETTINGS)
    report = evaluate(Noisy(NET), X, Y, state_file=path, **SETTINGS)
    assert "weights and code alone" in report.observations.failed["resumed model"]
    for other in (Noisy(NET, 0.0), Noisy(shifted(1e-7))):
        with pytest.raises(SaveError, match="state_file must belong to the same evaluation"):
            evaluate(other, X, Y, state_file=path, **SETTINGS)


def test_a_model_that_draws_from_pytorch_is_told_by_its_answers_under_the_seed(path):
    class Noisy(nn.Module):
        def __init__(self, share):
            super().__init__()
            self.share = share

        def forward(self, inputs):
            return NET(inputs) + self.share * torch.rand(len(inputs), 3)

    first = evaluate(Noisy(0.01), X, Y, state_file=path, **SETTINGS)
    assert "resumed model" not in first.observations.failed
    torch.manual_seed(5)
    assert told(evaluate(Noisy(0.01), X, Y, state_file=path, **SETTINGS)) == told(first)
    with pytest.raises(SaveError, match="answers the first examples otherwise"):
        evaluate(Noisy(0.02), X, Y, state_file=path, **SETTINGS)


# --- the same data ---------------------------------------------------------------------------


@pytest.mark.parametrize("questions", [40, None])
def test_other_data_are_refused_with_the_difference(path, questions):
    if questions is None:
        evaluate(NET, X, Y, state_file=path, **SETTINGS)
    else:
        interrupt(path, questions=questions)
    chunks = n_chunks(path)
    model = NET if questions is None else Plug(NET)
    swapped = Y.clone()
    # A checksum that adds labels by weights of place would not see these two.
    swapped[0], swapped[1] = Y[0] + 3, Y[1] - 1
    moved = X.clone()
    moved[0, 0] += 1e-7
    data = {
        "others in chunk 0": [(X.flip(0), Y), (X, swapped), (moved, Y), (X.double(), Y)],
        "got 3 in chunk 0 rather than 8": [(X[:3], Y[:3])],
        "got 8 rather than": [(X[:8], Y[:8])],
    }
    if questions is None:
        data["got 16 rather than 48"] = [(X[:16], Y[:16])]
        data["got more than 48"] = [(torch.cat([X, X[:5]]), torch.cat([Y, Y[:5]]))]
    assert chunks > 1
    for difference, others in data.items():
        for inputs, labels in others:
            with pytest.raises(SaveError, match="X must yield the examples that") as caught:
                evaluate(model, inputs, labels, state_file=path, **SETTINGS)
            assert difference in str(caught.value)


def test_an_unfinished_state_goes_on_with_whatever_comes_after_what_it_knows(path):
    interrupt(path, questions=40)
    known = 8 * n_chunks(path)
    assert 0 < known < 40
    few = X[: known + 5], Y[: known + 5]
    report = evaluate(Plug(NET), *few, state_file=path, **SETTINGS)
    assert told(report) == told(evaluate(Plug(NET), *few, **SETTINGS))


def test_a_loader_and_a_tensor_of_the_same_examples_are_the_same_data(path):
    class Pairs(Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i], Y[i]

    first = evaluate(NET, X, Y, state_file=path, **SETTINGS)
    loader = DataLoader(Pairs(), batch_size=7)
    assert told(evaluate(NET, loader, state_file=path, **SETTINGS)) == told(first)


# --- processes -------------------------------------------------------------------------------


class Alone:
    """One of several processes, whose fellows send nothing."""

    def __init__(self, rank, count):
        self.rank, self.count = rank, count

    def broadcast(self, value):
        return value

    def all_gather(self, value):
        return [value]


def test_the_files_of_two_processes_cannot_be_exchanged(path, monkeypatch):
    files = [path.with_name(f"state.{rank}") for rank in range(2)]
    monkeypatch.setattr(_evaluate, "summary", lambda *arguments: None)
    for rank in range(2):
        monkeypatch.setattr(_evaluate, "joined", lambda rank=rank: Alone(rank, 2))
        evaluate(NET, X, Y, state_file=path, **SETTINGS)
    files[1].replace(path)
    files[0].replace(files[1])
    path.replace(files[0])
    for rank in range(2):
        monkeypatch.setattr(_evaluate, "joined", lambda rank=rank: Alone(rank, 2))
        with pytest.raises(SaveError, match=rf"process\.rank {1 - rank} instead of {rank}"):
            evaluate(NET, X, Y, state_file=path, **SETTINGS)
    monkeypatch.setattr(_evaluate, "joined", lambda: Alone(0, 1))
    files[1].replace(path)
    with pytest.raises(SaveError, match=r"process\.count 2 instead of 1"):
        evaluate(NET, X, Y, state_file=path, **SETTINGS)


# --- places ----------------------------------------------------------------------------------


def test_the_place_of_the_state_is_made_or_refused_before_any_attack(path, attacked):
    with pytest.raises(SaveError, match="state_file must be the path of a file, got the folder"):
        evaluate(NET, X, Y, state_file=path.parent, **SETTINGS)
    blocked = path.parent / "file"
    blocked.touch()
    with pytest.raises(OSError, match="file"):
        evaluate(NET, X, Y, state_file=blocked / "state", **SETTINGS)
    pipe = path.parent / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SaveError, match="got the device"):
        evaluate(NET, X, Y, state_file=pipe, **SETTINGS)
    assert attacked == []
    evaluate(NET, X, Y, state_file=path.parent / "new" / "state", **SETTINGS)
    assert n_chunks(path.parent / "new" / "state") == 6


def test_a_finished_state_may_lie_where_nothing_can_be_written(path, monkeypatch):
    first = evaluate(NET, X, Y, state_file=path, **SETTINGS)
    path.chmod(stat.S_IRUSR)

    def forbidden(*arguments):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(_state, "check_writable", forbidden)
    monkeypatch.setattr(_state_format, "write_atomically", forbidden)
    assert told(evaluate(NET, X, Y, state_file=path, **SETTINGS)) == told(first)
    # A further attack has to be written down.
    more = {"a": STRONG}
    path.unlink()
    monkeypatch.undo()
    evaluate(NET, X, Y, state_file=path, **SETTINGS | {"attacks": more})
    monkeypatch.setattr(_state, "check_writable", forbidden)
    with pytest.raises(OSError, match="Read-only"):
        evaluate(NET, X, Y, state_file=path, **SETTINGS | {"attacks": more | {"b": WEAK}})


def test_a_full_disk_is_told_by_the_file(path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        evaluate(NET, X, Y, state_file=path, **SETTINGS)
    assert caught.value.filename == str(path)


def test_a_place_that_cannot_be_written_is_told_by_the_file_that_was_asked_for(path):
    # Too long a name with what an unfinished file has at its end, which nobody has heard of.
    named = path.with_name("s" * 250)
    with pytest.raises(OSError, match="name too long") as caught:
        evaluate(NET, X, Y, state_file=named, **SETTINGS)
    assert caught.value.filename == str(named)


def test_a_link_to_a_state_stays_one(path):
    target = path.parent / "elsewhere"
    path.symlink_to(target)
    first = evaluate(NET, X, Y, state_file=path, **SETTINGS)
    assert path.is_symlink()
    assert told(evaluate(NET, X, Y, state_file=target, **SETTINGS)) == told(first)


# --- whatever its bytes ----------------------------------------------------------------------


def test_a_state_of_an_earlier_format_is_refused_with_a_sentence(path):
    content = {"format": "distillguard evaluation state 1", "settings": {}}
    path.write_bytes(save({"columns:label": Y}, metadata={"state": json.dumps(content)}))
    with pytest.raises(SaveError, match="which another version of distillguard wrote; remove"):
        evaluate(NET, X, Y, state_file=path, **SETTINGS)


ODD = (
    None, True, -1, 0, 1, 3.5, 2**53, 2**70, 1e308, "", "x", "a" * 5000, "\ud800", [], [[]], {},
    {"a": 1}, [0, "x"], list(range(300)), "NaN", "distillguard evaluation state 1",
)  # fmt: skip
HOSTILE = (
    "", "null", "[]", "{}", "NaN", '{"format": NaN}', '{"a": 1, "a": 2}', "[" * 50_000,
    '{"a":' * 900 + "1" + "}" * 900, '"\\ud800"', "1" * 5000, "1e999", "\x00", "{",
)  # fmt: skip


def parts_of(content):
    """The JSON and the tensors of a state file."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["state"]), load(content)


def forged(content, tensors):
    """A file of anything, under a checksum that fits."""
    text = content if content in HOSTILE else json.dumps(content)
    checksum = _state_format._checksum(text, tensors)
    return save(tensors, metadata={"state": text, "checksum": checksum})


def replaced_somewhere(chance, value):
    """The same JSON with one entry changed, taken away, doubled or added."""
    if isinstance(value, dict | list) and value and chance.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = chance.choice(keys)
        changed = dict(value) if isinstance(value, dict) else list(value)
        kind = chance.randrange(6)
        if kind == 0:
            del changed[key]
        elif kind == 1 and isinstance(changed, dict):
            changed[f"{key}x"] = changed[key]
        elif kind == 1:
            changed.insert(key, changed[key])
        elif kind == 2 and isinstance(changed, dict):
            changed = dict(reversed(changed.items()))
        else:
            changed[key] = replaced_somewhere(chance, changed[key])
        return changed
    return chance.choice(ODD)


def with_other_tensors(chance, tensors):
    """One tensor exchanged, lost, doubled, of another kind or with other values."""
    tensors = dict(tensors)
    key, other = chance.sample(sorted(tensors), 2)
    held = tensors[key]
    kind = chance.randrange(8)
    if kind == 0:
        tensors[key], tensors[other] = tensors[other].clone(), held.clone()
    elif kind == 1:
        del tensors[key]
    elif kind == 2:
        tensors[chance.choice(["x", "columns:x", "sample:", "shown:x", "columns:a/fooled"])] = (
            held + 0
        )
    elif kind == 3:
        tensors[key] = held.to(chance.choice([torch.float16, torch.int8, torch.bool, torch.int64]))
    elif kind == 4:
        tensors[key] = held[: len(held) // 2].clone()
    elif kind == 5:
        tensors[key] = held[None].clone()
    elif kind == 6:
        tensors[key] = held.flip(0).clone()
    else:
        flat = held.clone().flatten()
        flat[chance.randrange(len(flat))] = chance.choice([0, 1, 100, -1])
        tensors[key] = flat.view(held.shape)
    return tensors


def damaged(chance, content):
    """What disks, downloads and editors do to the bytes."""
    content = bytearray(content)
    at, other = sorted(chance.randrange(len(content)) for _ in range(2))
    kind = chance.randrange(7)
    if kind <= 1:
        for _ in range(chance.choice([1, 1, 2, 10])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        content += content[:at]
    elif kind == 4:
        content[at:other] = bytes(other - at)
    elif kind == 5:
        content[at:other] = content[at:other][::-1]
    else:
        length = chance.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(content), at])
        content[:8] = length.to_bytes(8, "little")
    return bytes(content)


def altered(chance, files):
    """Another file in the place of ``files[0]``, and whether its checksum fits what it says."""
    content, tensors = parts_of(files[0])
    kind = chance.randrange(9)
    if kind <= 2:
        return damaged(chance, files[0]), False
    if kind == 3:
        return chance.choice([*files, b"", b"x", save({"a": X}), chance.randbytes(500)]), False
    if kind == 4:
        checksum = json.loads(files[0][8 : 8 + int.from_bytes(files[0][:8], "little")])
        checksum = checksum["__metadata__"]["checksum"]
        text = json.dumps(replaced_somewhere(chance, content))
        return save(tensors, metadata={"state": text, "checksum": checksum}), False
    if kind == 5:
        return forged(chance.choice(HOSTILE), tensors), True
    if kind == 6:
        return forged(content, with_other_tensors(chance, tensors)), True
    if kind == 7:
        others, _ = parts_of(chance.choice(files[1:]))
        key = chance.choice(sorted(content))
        return forged(content | {key: others[key]}, tensors), True
    return forged(replaced_somewhere(chance, content), tensors), True


@cache
def finished():
    """The file of this evaluation."""
    with TemporaryDirectory() as folder:
        evaluate(NET, X, Y, state_file=Path(folder) / "state", **SETTINGS)
        return (Path(folder) / "state").read_bytes()


def outcome(path, content, right):
    """What evaluate makes of a state file of these bytes: any other error is let through."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = evaluate(NET, X, Y, state_file=path, **SETTINGS)
        except SaveError:
            return "refused"
    return "right" if told(report) == right else "other"


def states(folder):
    """The files of this evaluation and of some others."""
    others = [
        {}, {"attacks": {"fgsm": SETTINGS["attacks"]["fgsm"]}}, {"random_state": 1},
        {"survivors_only": False}, {"chunk_size": 48}, {"epsilon": 0.01},
    ]  # fmt: skip
    for number, change in enumerate(others):
        evaluate(NET, X, Y, state_file=folder / str(number), **SETTINGS | change)
    interrupt(folder / "interrupted", questions=25)
    names = [*map(str, range(len(others))), "interrupted"]
    return [(folder / name).read_bytes() for name in names]


COST = {"forwards": 1, "backwards": 1, "seconds": 1.0}
UNFIT = {
    "known: too many": {"known": {"fgsm": 7, "pgd": 7}},
    "known: a later attack ahead": {"known": {"fgsm": 5, "pgd": 6}},
    "known: other names": {"known": {"fgsm": 6, "a": 6}},
    "attacks: none": {"attacks": {}, "known": {}},
    "chunks: a small one between": {"chunks": [[8, "0" * 64], [7, "0" * 64], [8, "0" * 64]]},
    "chunks: a large one at the end": {"chunks": [[8, "0" * 64]] * 5 + [[9, "0" * 64]]},
    "errors of another attack": {"errors": {"a": "no gradient"}},
    "costs of another part": {"costs": {"lunch": COST}},
    "a rank too high": {"process": {"rank": 1, "count": 1}},
    "nothing known of the model": {"facts": None},
    "a dtype that is none": {"facts": {"rounding": 0.1, "hair": "device"}},
    "a key more": {"more": 1},
    "figures that are none": {"costs": {"fgsm": COST | {"forwards": 1.5}}},
    "a seed beyond 63 bits": {"seed": 2**63},
}


@pytest.mark.parametrize("what", UNFIT)
def test_forged_progress_that_no_evaluation_makes_is_refused_when_read(path, what):
    content, tensors = parts_of(finished())
    path.write_bytes(forged(content | UNFIT[what], tensors))
    with pytest.raises(SaveError, match="state_file must be a state written by evaluate"):
        _state_format.read(path)


@pytest.mark.parametrize(
    ("seed", "n"), [(0, 150), pytest.param(1, 2000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_whatever_its_bytes_a_state_is_refused_or_gives_the_right_figures(tmp_path, seed, n):
    files = states(tmp_path)
    right = told(evaluate(NET, X, Y, **SETTINGS))
    chance = random.Random(seed)
    counts = Counter()
    for _ in range(n):
        content, fits = altered(chance, files)
        result = outcome(tmp_path / "state", content, right)
        # Whoever forges a checksum may forge figures, but nothing else.
        assert result != "other" or fits
        counts[fits, result] += 1
    assert counts[False, "refused"] > n / 5
    assert counts[True, "refused"] > n / 5
    print(dict(counts))


IMPOSSIBLE = {
    "columns:fgsm/fooled": lambda held: torch.ones_like(held),
    "columns:fgsm/success": lambda held: torch.zeros_like(held),
    "columns:fgsm/attacked": lambda held: torch.ones_like(held),
    "columns:predicted": lambda held: held + 3,
    "columns:label": lambda held: held - 1,
    "columns:index": lambda held: held.flip(0),
    "columns:margin": lambda held: held.float(),
    "columns:saturated": lambda held: held[1:].clone(),
    "sample:key": lambda held: held.flip(0),
    "sample:index": lambda held: held + 1000,
    "sample:labels": lambda held: held + 3,
    "sample:inputs": lambda held: held[:, :3].clone(),
    "shown:attack": lambda held: held + 2,
    "shown:predicted": lambda held: held - 9,
    "shown:adversarial": lambda held: held[1:].clone(),
    "answers:logits": lambda held: held[0],
}


@pytest.mark.parametrize("key", IMPOSSIBLE)
def test_forged_tensors_that_no_evaluation_leaves_are_refused(path, key):
    content, tensors = parts_of(finished())
    path.write_bytes(forged(content, tensors | {key: IMPOSSIBLE[key](tensors[key])}))
    with pytest.raises(SaveError, match="state_file must"):
        evaluate(NET, X, Y, state_file=path, **SETTINGS)


def test_an_intact_state_is_not_refused(tmp_path):
    right = told(evaluate(NET, X, Y, **SETTINGS))
    assert outcome(tmp_path / "state", finished(), right) == "right"
    assert outcome(tmp_path / "state", forged(*parts_of(finished())), right) == "right"


# --- reports ---------------------------------------------------------------------------------


def figures(report):
    """What is quoted of a report; each of them follows from others, too."""
    clean = report.n_examples, report.clean_accuracy, report.clean_interval, report.norm
    return clean, report.robust_accuracy, report.robust_interval, report.quoted_accuracy


def rows(report):
    return {
        (row.attacked, row.fooled, row.robust_accuracy, row.robust_interval)
        for row in report.attacks
    }


def altered_report(chance, text):
    """Another text in the place of a report."""
    kind = chance.randrange(4)
    if kind == 0:
        return damaged(chance, text)
    if kind == 1:
        return chance.choice([b"", b"{}", chance.randbytes(300), *(h.encode() for h in HOSTILE)])
    if kind == 2:  # one figure
        numbers = list(re.finditer(rb"\d[\d.]*", text))
        found = chance.choice(numbers)
        other = chance.choice(
            [b"0", b"1", b"-1", b"61", b"1e400", b"NaN", b"0.5", b"true", b"9" * 40]
        )
        return text[: found.start()] + other + text[found.end() :]
    return json.dumps(replaced_somewhere(chance, json.loads(text))).encode()


@pytest.mark.parametrize(
    ("seed", "n"), [(0, 150), pytest.param(1, 1000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_whatever_its_bytes_a_report_is_refused_or_has_the_right_figures(
    tmp_path, monkeypatch, seed, n
):
    monkeypatch.undo()  # with its diagnosis
    report = evaluate(NET, X, Y, **SETTINGS | {"attacks": "quick"})
    text = report.to_json().encode()
    path = tmp_path / "report.json"
    chance = random.Random(seed)
    counts = Counter()
    for _ in range(n):
        path.write_bytes(altered_report(chance, text))
        try:
            read = RobustnessReport.from_json(path)
        except ValueError as error:
            counts["refused"] += str(error).startswith("source must be a report")
            continue
        assert figures(read) == figures(report)
        # A row less is a report of fewer attacks.
        assert rows(read) <= rows(report)
        assert all((str(read), read.to_html(), read.to_json()))
        counts["right"] += 1
    assert counts.total() == n
    assert counts["refused"] > 0.6 * n
    print(dict(counts))


def test_only_what_cannot_be_told_leaves_a_note():
    deep = []
    for _ in range(3000):
        deep = [deep]
    told, untold = {}, {}
    _state.described(NET, {"PGD": AttackSpec(attacks.pgd, "linf")}, {}, told)
    assert told == {}
    mine = AttackSpec(lambda model, inputs, labels: inputs + len(deep), "linf")
    _state.described(NET, {"mine": mine}, {}, untold)
    assert list(untold) == ["resumed attack mine"]
