"""What callers rely on changes knowingly, and nothing is touched that nobody named."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.version import Version

import surface

ROOT = Path(__file__).parents[1]


def differing(one, other, path=""):
    """The places at which two surfaces differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [at for k in keys for at in differing(one.get(k), other.get(k), f"{path}/{k}")]
    return [] if one == other else [f"{path}: {other} is now {one}"]


def test_the_public_surface_is_the_committed_one():
    committed = json.loads(surface.FILE.read_text(encoding="utf-8"))
    found = differing(json.loads(surface.text()), committed)
    assert not found, "\n".join([surface.REMEDY, *found])


def function(first, /, second=1.5, *rest, third=("a", None), fourth=len, **more):
    """Every kind of parameter."""


class Pair(NamedTuple):
    one: int
    other: float = 2.0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (function, "(first, /, second=1.5, *rest, third=('a', None), fourth=len, **more)"),
        (1.5, 1.5),
        ({"minimum": [0, (1,)]}, {"minimum": [0, [1]]}),
        (json, "module"),
    ],
)
def test_a_surface_tells_names_kinds_and_defaults(value, told):
    assert surface.described(value) == told


def test_a_difference_is_told_by_its_place():
    one = {"names": {"a": "(x)", "b": {"takes": "(y=1)"}}}
    other = {"names": {"b": {"takes": "(y=2)"}}}
    assert differing(one, other) == [
        "/names/a: None is now (x)",
        "/names/b/takes: (y=2) is now (y=1)",
    ]


def lower_bounds():
    """Packages of pyproject.toml that the suite needs, each with the least version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tested = ["plot", "pandas", "demo", "testing", "tensorboard", "onnx"]
    wanted = [*project["dependencies"], *(line for name in tested for line in extras[name])]
    wanted += [line for line in extras["test"] if line.startswith("pytest")]
    pairs = (line.split(">=") for line in wanted if "[" not in line)
    return {name: Version(least) for name, least in pairs}


def test_the_oldest_versions_are_the_lower_bounds():
    # `make test-oldest` installs them.
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    pins = {name: Version(pin) for name, pin in pairs}
    del pins["protobuf"]  # no requirement of ours
    assert pins == lower_bounds()


WATCHED = """
import json, os, socket, sys
opened = []

def watch(event, arguments):
    if event.startswith("socket."):
        opened.append(event)
    elif event == "open":
        path, mode, flags = arguments
        if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(os.fsdecode(path))
    elif event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}:
        opened.extend(os.fsdecode(part) for part in arguments if isinstance(part, (str, bytes)))

sys.addaudithook(watch)
import numpy as np
import torch
from torch import nn
import distillguard as dg

folder = sys.argv[1]
rng = np.random.default_rng(0)
X, y = rng.random((60, 6), dtype=np.float32), np.arange(60) % 3
distiller = dg.DefensiveDistiller(max_epochs=2, random_state=0, checkpoint_dir=f"{folder}/run")
distiller.fit(X, y)
distiller.save(f"{folder}/guard")
loaded = dg.load(f"{folder}/guard")
assert np.array_equal(loaded.decision_function(X), distiller.decision_function(X))
report = dg.evaluate(
    loaded, X[:12], y[:12], epsilon=0.1, attacks="quick", random_state=0,
    state_file=f"{folder}/state",
)
report.to_json(f"{folder}/report.json")
report.to_html(f"{folder}/report.html")
dg.RobustnessReport.from_json(f"{folder}/report.json")
print(json.dumps(opened))

socket.socket().close()
open("stray", "w").close()
print(json.dumps(opened))
"""


def test_no_socket_is_opened_and_no_file_outside_the_folders_given(tmp_path):
    given, home, temporary = (tmp_path / name for name in ("given", "home", "temporary"))
    for path in (given, home, temporary):
        path.mkdir()
    environment = os.environ | {
        "HOME": str(home), "TMPDIR": str(temporary), "MPLCONFIGDIR": str(temporary),
        "TORCHINDUCTOR_CACHE_DIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", WATCHED, str(given)]
    ended = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

    told, after = map(json.loads, ended.stdout.splitlines())
    written = {path.name for path in given.iterdir()}
    assert {"guard", "run", "state", "report.json", "report.html"} <= written
    inside = [path for path in told if path.startswith((str(given), str(temporary)))]
    assert any(path.startswith(str(given / "state")) for path in inside)
    assert set(told) - set(inside) - {os.devnull} == set()
    # The watch hears what would be wrong.
    assert after[len(told) :] == ["socket.__new__", "stray"]
    assert [path.name for path in home.iterdir()] == ["stray"]
