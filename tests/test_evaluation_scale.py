"""evaluate on large data: interrupted and resumed, in several processes, in bounded memory."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import pytest
import torch

from distillguard import attacks, evaluate
from distillguard.evaluation._records import Sample
from distillguard.exceptions import SaveError


def told(report):
    """Everything that a report says but the seconds."""

    def strip(part):
        if isinstance(part, dict):
            return {name: strip(value) for name, value in part.items() if name != "seconds"}
        return [strip(value) for value in part] if isinstance(part, list) else part

    return strip(report.to_dict())


def rounded(part):
    """The same with its numbers cut to nine digits."""
    if isinstance(part, dict):
        return {name: rounded(value) for name, value in part.items()}
    if isinstance(part, list):
        return [rounded(value) for value in part]
    return float(f"{part:.9g}") if isinstance(part, float) else part


def shown(report):
    return [(e.label, e.predicted, e.attack, e.distance) for e in report.examples]


def interrupted_after(n, attack):
    """Lets an attack work n times, then pulls the plug."""
    calls = []

    def call(model, inputs, labels):
        calls.append(1)
        if len(calls) > n:
            raise KeyboardInterrupt
        return attack(model, inputs, labels)

    return call


@pytest.mark.parametrize("n", [0, 1, 4])
def test_an_interrupted_evaluation_goes_on_to_the_same_report(halfspace, examples, tmp_path, n):
    inputs, labels = examples(50)
    labels[3] = 1 - labels[3]
    epsilon = halfspace.least_epsilon(inputs, "linf").median().item()
    attack = partial(attacks.pgd, epsilon=epsilon, steps=3, random_state=5)
    # A full diagnosis asks the attack about images of its own.
    settings = {"epsilon": epsilon, "chunk_size": 8, "random_state": 1, "diagnosis": "brief"}
    whole = evaluate(halfspace, inputs, labels, attacks={"pgd": attack}, **settings)

    settings["state_file"] = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            halfspace, inputs, labels, attacks={"pgd": interrupted_after(n, attack)}, **settings
        )
    seen = []

    def counted(model, inputs, labels):
        seen.append(len(inputs))
        return attack(model, inputs, labels)

    report = evaluate(halfspace, inputs, labels, attacks={"pgd": counted}, **settings)
    assert len(seen) == 7 - n
    assert told(report) == told(whole)
    assert shown(report) == shown(whole)


def test_a_finished_state_gives_the_report_without_attacking_again(halfspace, examples, tmp_path):
    inputs, labels = examples(20)
    settings = {"epsilon": 0.05, "state_file": tmp_path / "state", "diagnosis": "brief"}
    attack = {"fgsm": partial(attacks.fgsm, epsilon=0.05)}
    first = evaluate(halfspace, inputs, labels, attacks=attack, **settings)
    never = {"fgsm": interrupted_after(0, None)}
    # Without a random_state the fresh seed of the first run is kept.
    assert told(evaluate(halfspace, inputs, labels, attacks=never, **settings)) == told(first)


def test_the_state_of_another_evaluation_is_refused(halfspace, examples, tmp_path):
    inputs, labels = examples(20)
    path = tmp_path / "state"
    settings = {"epsilon": 0.05, "attacks": {"none": lambda m, x, y: x}, "random_state": 0}
    evaluate(halfspace, inputs, labels, state_file=path, **settings)
    with pytest.raises(ValueError, match="got one with threat model"):
        evaluate(halfspace, inputs, labels, state_file=path, **settings | {"epsilon": 0.06})
    with pytest.raises(ValueError, match="got one with seed 0 instead of 1"):
        evaluate(halfspace, inputs, labels, state_file=path, **settings | {"random_state": 1})
    with pytest.raises(ValueError, match="X must yield the examples that state_file was written"):
        evaluate(halfspace, inputs.flip(0), labels.flip(0)[:20], state_file=path, **settings)
    with torch.no_grad():
        halfspace.w.mul_(2)
    with pytest.raises(ValueError, match="got one with weights"):
        evaluate(halfspace, inputs, labels, state_file=path, **settings)


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x08" + 7 * b"\0" + b"{}      "])
def test_a_damaged_state_is_named(halfspace, examples, tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(SaveError, match="state_file must be a state written by evaluate"):
        evaluate(halfspace, *examples(4), epsilon=0.1, attacks="quick", state_file=path)


SCRIPT = """
    import sys, torch
    from torch import nn
    from distillguard import evaluate
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).double()
    inputs = torch.rand(300, 16, dtype=torch.float64)
    labels = model(inputs).argmax(dim=1)
    report = evaluate(
        model, inputs, labels, epsilon=0.03, chunk_size=50, random_state=0,
        state_file=sys.argv[2] or None,
    )
    report.to_json(sys.argv[1])
"""


def command(tmp_path, report, state=""):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    return [sys.executable, str(script), str(tmp_path / report), str(state)]


def read(path):
    return told(type("Report", (), {"to_dict": lambda self: json.loads(path.read_text())})())


@pytest.mark.slow
def test_killed_at_any_point_and_resumed_the_report_is_identical(tmp_path):
    subprocess.run(command(tmp_path, "whole.json"), check=True)
    state = tmp_path / "state"
    kills = 0
    while True:
        process = subprocess.Popen(command(tmp_path, "resumed.json", state))
        size, began = state.stat().st_size if state.exists() else 0, time.time()
        while process.poll() is None:
            time.sleep(0.01)
            grown = state.exists() and state.stat().st_size > size
            if kills < 3 and grown and time.time() - began > 0.5:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if process.returncode == 0:
            break
        kills += 1
    assert kills == 3
    assert read(tmp_path / "resumed.json") == read(tmp_path / "whole.json")


@pytest.mark.slow
def test_two_processes_give_the_report_of_one(tmp_path):
    subprocess.run(command(tmp_path, "one.json"), check=True)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29541"}
    processes = [
        subprocess.Popen(
            command(tmp_path, f"two{rank}.json"),
            env={**environment, "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    one, first, second = (read(tmp_path / f"{name}.json") for name in ("one", "two0", "two1"))
    assert first == second
    # Matrix products of other batches round otherwise. What is sent back depends on the company
    # too: a batch whose examples all only await judgement asks for no gradients.
    for report in (one, first):
        for row in report["attacks"]:
            assert row.pop("backwards") <= row["forwards"]
    assert rounded(first) == rounded(one)


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_a_sample_holds_the_examples_of_smallest_key_however_they_come(chunk):
    keys = torch.randperm(50, generator=torch.Generator().manual_seed(0)) - 25
    sample = Sample(10)
    for part in keys.split(chunk):
        sample.add(part, square=part**2)
    assert sample["key"].tolist() == list(range(-25, -15))
    assert sample["square"].tolist() == [key**2 for key in range(-25, -15)]


def test_the_place_of_the_state_is_made_or_refused_before_any_attack(halfspace, examples, tmp_path):
    settings = {"epsilon": 0.05, "attacks": {"none": interrupted_after(0, None)}}
    with pytest.raises(KeyboardInterrupt):
        evaluate(halfspace, *examples(4), state_file=tmp_path / "new" / "state", **settings)
    assert (tmp_path / "new").is_dir()
    with pytest.raises(ValueError, match="state_file must be the path of a file, got the folder"):
        evaluate(halfspace, *examples(4), state_file=tmp_path, **settings)
