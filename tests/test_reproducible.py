"""The same seed gives the same bits in another process, whatever that hashes names to."""

import hashlib
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from distillguard import DefensiveDistiller, ExtendedDistiller, attacks, datasets, evaluate


def digests():
    """What fits, attacks and an evaluation come to, each as a hash of all its bits."""
    X, y = (part[:150] for part in datasets.load_digits("train"))
    brief = {"max_epochs": 2, "device": "cpu", "random_state": 0}
    distilled = DefensiveDistiller(temperature=20.0, early_stopping=True, **brief).fit(X, y)
    extended = ExtendedDistiller(**brief).fit(X, y)
    X, y = X[:12], y[:12]
    told = {"clean": distilled.decision_function(X), "rejecting": extended.decision_function(X)}
    net = distilled.model_
    budget = {"epsilon": 0.1, "random_state": 0}
    for name in ("pgd", "apgd", "square"):
        few = {"queries": 30} if name == "square" else {"steps": 5}
        told[name] = getattr(attacks, name)(net, X, y, **budget, **few).numpy()
    told["fab"] = attacks.fab_targeted(net, X, y, steps=3, n_targets=3, random_state=0).numpy()
    told["carlini_wagner_l2"] = attacks.carlini_wagner_l2(net, X, y, steps=20).numpy()
    report = evaluate(distilled, X, y, attacks="quick", keep_examples="all", **budget)
    told["report"] = torch.stack([each.adversarial for each in report.examples]).numpy()
    hashes = {name: hashlib.sha256(bits.tobytes()).hexdigest() for name, bits in told.items()}
    return hashes | {"figures": repr((report.quoted_accuracy, report.observations))}


def test_another_process_comes_to_the_same_bits(tmp_path):
    code = "import torch, test_reproducible as t; torch.set_num_threads(1); print(t.digests())"
    here = Path(__file__).parent
    path = os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    other = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    expected = digests()
    assert other.stdout.splitlines()[-1] == str(expected)
    assert len(set(expected.values())) == len(expected)


@pytest.fixture
def drawn():
    return torch.rand(()).item(), random.random()


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_test_draws_the_same_whatever_ran_before_it(name, drawn, request):
    own = torch.rand(()).item(), random.random()
    file = "tests/test_reproducible.py"
    for told, place in ((drawn, f"{file}::drawn[0]"), (own, request.node.nodeid)):
        seed = zlib.crc32(place.encode())
        first = torch.rand((), generator=torch.Generator().manual_seed(seed)).item()
        assert told == (first, random.Random(seed).random())
