"""On a GPU: the same promises, the same results up to rounding. Skipped without one."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    RobustDistiller,
    attacks,
    datasets,
    evaluate,
    load,
    networks,
)
from distillguard.adaptive import distil_surrogate, gradient_from
from distillguard.evaluation import robustness_curve

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


# torch 2.11 warns of its own ways when it imports its compiler, and advises TF32 for products.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
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


def test_a_network_of_the_gpu_is_saved_there_and_read_on_the_processor(distilled, held, tmp_path):
    distilled.save(tmp_path / "saved")
    for device in ("cpu", "cuda"):
        read = load(tmp_path / "saved", device=device)
        assert next(read.student_.parameters()).device.type == device
        agreeing = read.predict(held[0]) == distilled.predict(held[0])
        assert agreeing.mean() > 0.995  # the device rounds convolutions to TF32


@pytest.mark.parametrize(
    "attack", ["carlini_wagner_l2", "carlini_wagner_linf", "ddn", "fab_targeted"]
)
def test_least_distances_hold_when_every_example_is_judged_alone(distilled, held, attack):
    network = distilled.student_
    X, y = held[0][:100].cuda(), held[1][:100].cuda()
    norm = {"norm": "l2"} if attack == "fab_targeted" else {}
    found = getattr(attacks, attack)(network, X, y, **norm)
    moved = (found != X).flatten(1).any(dim=1)
    assert moved.double().mean() > 0.9
    with torch.no_grad():
        alone = torch.cat([network(one[None]) for one in found])
    still = (alone.argmax(dim=1) != y)[moved]
    assert still.all(), f"{(~still).sum()} of {len(still)} hold in their batch alone"


def test_a_search_in_bfloat16_is_judged_in_the_networks_own_precision(distilled, held):
    X, y = held[0][:100], held[1][:100]
    common = {"epsilon": 0.1, "random_state": 0}
    full = evaluate(distilled, X, y, **common)
    half = evaluate(distilled, X, y, precision="bf16-mixed", **common)
    assert abs(half.robust_accuracy - full.robust_accuracy) < 0.05
    assert half.clean_accuracy == full.clean_accuracy


def test_recurrent_networks_in_evaluation_mode_are_attacked(held):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.last = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 10)

        def forward(self, inputs):
            return self.last(self.rows(inputs.flatten(1, 2))[0][:, -1])

    torch.manual_seed(0)
    network = Rows().cuda().eval()
    X = held[0][:32].cuda()
    y = network(X).argmax(dim=1)
    found = attacks.pgd(network, X, y, epsilon=0.5, loss="margin", random_state=0)
    assert (network(found).argmax(dim=1) != y).any()
    assert not network.training


def test_a_curve_of_the_gpu_is_that_of_the_processor(distilled, held):
    X, y = held[0][:50], held[1][:50]
    network = distilled.student_
    told = {"minimum_distance": attacks.carlini_wagner_l2, "norm": "l2"}
    there = robustness_curve(network, X, y, **told)
    here = robustness_curve(network.cpu(), X, y, **told)
    network.cuda()
    medians = [float(np.nanmedian(curve.per_example.distance)) for curve in (there, here)]
    assert abs(medians[0] - medians[1]) < 0.02 * medians[1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_students_gradient_lies_where_the_defended_model_answers(distilled, held, device):
    X = held[0].repeat(2, 1, 1, 1).to(device)
    network = copy.deepcopy(distilled.student_).to(device)
    student = distil_surrogate(network, X, rounds=1, max_epochs=3, random_state=0)
    assert next(student.parameters()).device.type == device
    found = attacks.pgd(
        gradient_from(network, student),
        X[:50],
        held[1][:50].to(device),
        epsilon=0.3,
        random_state=0,
    )
    assert found.device.type == device
