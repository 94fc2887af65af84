"""evaluate on large data: interrupted and resumed, in several processes, in bounded memory."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from distillguard.evaluation._records import Sample

TIMES = {"seconds", "date"}


def told(report):
    """Everything that a report says but the seconds and the date."""

    def strip(part):
        if isinstance(part, dict):
            return {name: strip(part[name]) for name in part if name not in TIMES}
        return [strip(value) for value in part] if isinstance(part, list) else part

    return strip(report.to_dict())


def rounded(part):
    """The same with its numbers cut to nine digits."""
    if isinstance(part, dict):
        return {name: rounded(value) for name, value in part.items()}
    if isinstance(part, list):
        return [rounded(value) for value in part]
    return float(f"{part:.9g}") if isinstance(part, float) else part


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
    for report, processes in ((one, 1), (first, 2)):
        # Each process finds out for itself what attacks have to know of the model.
        assert report["costs"].pop("checks") == {
            "forwards": 80 * processes,
            "backwards": 32 * processes,
        }
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
