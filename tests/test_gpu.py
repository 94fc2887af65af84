"""On a GPU: the same promises, the same results up to rounding. Skipped without one."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    RobustDistiller,
    attacks,
    datasets,
    evaluate,
    networks,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def digits():
    return datasets.load_digits("train")


@pytest.fixture(scope="module")
def held():
    return datasets.load_digits("test")


@pytest.fixture(scope="module")
def distilled(digits):
    return DefensiveDistiller(temperature=50.0, random_state=0).fit(*digits)


def test_training_chooses_the_gpu_and_reaches_the_processors_accuracy(digits, held, distilled):
    assert next(distilled.student_.parameters()).is_cuda
    on_cpu = DefensiveDistiller(temperature=50.0, random_state=0, device="cpu").fit(*digits)
    assert abs(distilled.score(*held) - on_cpu.score(*held)) < 0.02


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("kind", [DefensiveDistiller, AdversarialTrainer, RobustDistiller])
def test_every_precision_trains_every_estimator(digits, held, kind, precision):
    settings = {} if kind is DefensiveDistiller else {"epsilon": 0.05, "steps": 3}
    fitted = kind(precision=precision, random_state=0, **settings).fit(*digits)
    assert fitted.score(*held) > 0.9


def test_compiled_training_reaches_the_same_accuracy(digits, held, distilled):
    compiled = DefensiveDistiller(temperature=50.0, random_state=0, compile=True).fit(*digits)
    assert abs(compiled.score(*held) - distilled.score(*held)) < 0.02


def test_a_seed_gives_the_same_weights_twice_and_leaves_the_generators_alone(digits):
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    ends = [
        DefensiveDistiller(max_epochs=2, random_state=0).fit(*digits).student_.state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(one, two) for one, two in zip(*(e.values() for e in ends), strict=True))
    assert torch.equal(torch.cuda.get_rng_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_broken_run_goes_on_with_the_same_bits(digits, tmp_path):
    settings = {"max_epochs": 3, "random_state": 0}
    unbroken = DefensiveDistiller(networks.mlp, **settings).fit(*digits)

    class Fails:
        def on_epoch(self, record, network):
            if (record["stage"], record["epoch"]) == ("student", 2):
                raise KeyboardInterrupt

    settings["checkpoint_dir"] = tmp_path
    with pytest.raises(KeyboardInterrupt):
        DefensiveDistiller(networks.mlp, callbacks=[Fails()], **settings).fit(*digits)
    resumed = DefensiveDistiller(networks.mlp, **settings).fit(*digits)
    pairs = zip(resumed.student_.parameters(), unbroken.student_.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_attacks_take_inputs_on_either_device_and_agree_with_the_processor(distilled, held):
    X, y = held[0][:64], held[1][:64]
    network = distilled.student_
    on_gpu = attacks.pgd(network, X.cuda(), y.cuda(), epsilon=0.1, loss="margin", random_state=0)
    assert on_gpu.is_cuda
    fooled = (network(on_gpu).argmax(1) != y.cuda()).cpu()
    on_cpu = attacks.pgd(network.cpu(), X, y, epsilon=0.1, loss="margin", random_state=0)
    also = network(on_cpu).argmax(1) != y
    network.cuda()
    assert (fooled != also).double().mean() < 0.05


def test_a_report_of_the_gpu_is_that_of_the_processor(distilled, held):
    X, y = held[0][:100], held[1][:100]
    there = evaluate(distilled, X, y, epsilon=0.1, attacks="quick", random_state=0)
    network = distilled.student_
    network.cpu()
    here = evaluate(distilled, X, y, epsilon=0.1, attacks="quick", random_state=0)
    network.cuda()
    assert {f.code for f in there.findings} == {f.code for f in here.findings}
    assert abs(there.robust_accuracy - here.robust_accuracy) < 0.05


def test_loaders_with_pinned_memory_and_workers_feed_the_gpu(digits, held):
    loader = DataLoader(TensorDataset(*digits), 128, shuffle=True, pin_memory=True, num_workers=2)
    fitted = DefensiveDistiller(random_state=0).fit(loader)
    assert fitted.score(*held) > 0.9
    np.testing.assert_array_equal(fitted.predict(DataLoader(held[0], 50)), fitted.predict(held[0]))
