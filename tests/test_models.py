"""Whatever answers can be attacked, evaluated and where it makes sense trained."""

import copy

import pytest
import torch
from torch import Tensor, nn

from distillguard import AdversarialTrainer, UndefendedClassifier, attacks, evaluate
from distillguard.evaluation import gradient_histogram
from distillguard.exceptions import NoGradientError

PRECISIONS = ["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]
BATCH = ({0: torch.export.Dim("batch", min=1)},)


@pytest.fixture
def network():
    """Linear, with a layer that is told by its output from itself in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.9))


@pytest.fixture
def examples(network):
    inputs = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = copy.deepcopy(network).eval()(inputs).argmax(dim=1)
    return inputs, labels


def frozen(network: nn.Module) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(network.eval()))


def exported(network: nn.Module) -> nn.Module:
    inputs = torch.rand(2, 1, 8, 8)
    return torch.export.export(network.eval(), (inputs,), dynamic_shapes=BATCH).module()


MAKERS = {
    "TorchScript": torch.jit.script,
    "TorchScript, frozen": frozen,
    "TorchScript, frozen, inside": lambda network: nn.Sequential(nn.Dropout(0.9), frozen(network)),
    "export": exported,
    "export, inside": lambda network: nn.Sequential(nn.Dropout(0.9), exported(network)),
    "compile": lambda network: torch.compile(network, backend="eager"),
    "quantised": lambda network: torch.ao.quantization.quantize_dynamic(
        network.eval(), {nn.Linear}
    ),
}

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of its older ways


def modes(model: nn.Module) -> list[bool | None]:
    return [getattr(part, "training", None) for part in model.modules()]


@pytest.mark.parametrize("name", MAKERS)
def test_every_form_of_a_network_is_attacked_as_the_network_is(name, network, examples):
    model = MAKERS[name](copy.deepcopy(network))
    before = modes(model)
    settings = {"epsilon": 0.1, "random_state": 0}
    asked = model if name == "quantised" else network
    expected = attacks.square(copy.deepcopy(asked).eval(), *examples, queries=20, **settings)
    assert torch.equal(attacks.square(model, *examples, queries=20, **settings), expected)

    if name == "quantised":
        with pytest.raises(NoGradientError):
            attacks.pgd(model, *examples, **settings)
    else:
        found = attacks.pgd(model, *examples, **settings)
        assert torch.equal(found, attacks.pgd(network, *examples, **settings))
    if name != "compile":  # torch.compile's wrapper is in eval mode from its first call on
        assert modes(model) == before


@pytest.mark.parametrize("name", MAKERS)
def test_every_form_of_a_network_is_evaluated_as_the_network_is(name, network, examples):
    model = MAKERS[name](copy.deepcopy(network))
    settings = {"epsilon": 0.02, "attacks": "quick", "random_state": 0}
    expected = evaluate(network, *examples, **settings)
    report = evaluate(model, *examples, **settings)
    assert report.clean_accuracy == 1
    if name != "quantised":
        assert report.robust_accuracy == expected.robust_accuracy < 1


@pytest.fixture(params=PRECISIONS)
def wrapped(request, network, examples):
    fabric = pytest.importorskip("lightning_fabric")
    fabric = fabric.Fabric(accelerator="cpu", devices=1, precision=request.param)
    fabric.launch()
    return fabric.setup(copy.deepcopy(network).train())


def test_what_fabric_sets_up_is_attacked_in_its_precision(wrapped, examples):
    before = modes(wrapped)
    found = attacks.pgd(wrapped, *examples, epsilon=0.1, random_state=0)
    inside = attacks.pgd(nn.Sequential(wrapped), *examples, epsilon=0.1, random_state=0)
    assert torch.equal(found, inside)
    assert modes(wrapped) == before
    report = evaluate(wrapped, *examples, epsilon=0.1, attacks="quick", random_state=0)
    assert report.robust_accuracy < 1
    # Afterwards Fabric's own rule is in force again.
    if wrapped._strategy.precision.precision == "16-mixed":
        with pytest.raises(RuntimeError, match="fabric"):
            wrapped(examples[0]).sum().backward()


@pytest.mark.parametrize("estimator", [UndefendedClassifier, AdversarialTrainer])
def test_what_fabric_has_set_up_is_trained_as_what_is_inside(wrapped, examples, estimator):
    inside = copy.deepcopy(wrapped.module)
    settings = {"max_epochs": 1, "random_state": 0}
    expected = estimator(inside, **settings).fit(*examples).model_.state_dict()
    for module in (wrapped, lambda *_: wrapped):
        weights = estimator(module, **settings).fit(*examples).model_.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_model_that_switches_gradients_off_is_said_to_have_none(off, network, examples):
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        @off()
        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs)

    with pytest.raises(NoGradientError):
        attacks.pgd(Off(), *examples, epsilon=0.1)
    with pytest.raises(NoGradientError):
        gradient_histogram(Off(), examples[0])
    report = evaluate(Off(), *examples, epsilon=0.1, attacks="quick", random_state=0)
    assert "NoGradientError" not in str(report)
