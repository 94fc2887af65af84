"""A borrowed model comes back as it was, and its own noise is repeatable meanwhile."""

import pytest
import torch
from torch import Tensor, nn

from conftest import Tangled
from distillguard._modes import borrowed, device_of, dtype_of, isolated_random_state
from distillguard.training import attack_mode


def test_inside_every_submodule_is_in_eval_mode_and_every_parameter_frozen(tangled):
    with borrowed(tangled):
        assert not any(part.training for part in tangled.modules())
        assert not any(parameter.requires_grad for parameter in tangled.parameters())
        assert torch.is_grad_enabled()


def test_modes_and_flags_come_back_one_by_one(tangled):
    modes = [part.training for part in tangled.modules()]
    wanted = [parameter.requires_grad for parameter in tangled.parameters()]
    assert len(set(modes)) == len(set(wanted)) == 2
    with borrowed(tangled):
        pass
    assert [part.training for part in tangled.modules()] == modes
    assert [parameter.requires_grad for parameter in tangled.parameters()] == wanted


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_does_not_keep_the_model(tangled, error):
    modes = [part.training for part in tangled.modules()]
    with pytest.raises(error, match="inside"), borrowed(tangled):
        raise error("inside")
    assert [part.training for part in tangled.modules()] == modes
    assert tangled.hidden.weight.requires_grad


def test_a_module_that_resists_eval_is_set_part_by_part_and_left_as_it_was():
    class Resisting(Tangled):
        def eval(self) -> nn.Module:
            self.normalise.eval()
            raise RuntimeError("no eval here")

    model = Resisting()
    modes = [part.training for part in model.modules()]
    with borrowed(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == modes


def test_one_part_that_cannot_switch_keeps_no_other_from_it():
    class Fixed(nn.Identity):
        def train(self, mode: bool = True) -> nn.Module:
            raise NotImplementedError

    model = nn.Sequential(Fixed(), nn.Dropout(), nn.BatchNorm1d(3))
    with borrowed(model):
        assert not any(part.training for part in model.modules())
    assert all(part.training for part in model.modules())


def test_a_module_whose_own_train_does_more_is_brought_back_by_it():
    class Doubling(nn.Linear):
        def train(self, mode: bool = True) -> nn.Module:
            self.factor = 2 if mode else 1
            self.bias.requires_grad_(not mode)
            return super().train(mode)

    model = nn.Sequential(Doubling(2, 2)).train()
    with borrowed(model):
        assert model[0].factor == 1
    assert model[0].factor == 2
    assert not model[0].bias.requires_grad


def test_what_eval_changes_comes_back_where_train_does_not_bring_it():
    class Counting(nn.Identity):
        switches = 0

        def train(self, mode: bool = True) -> nn.Module:
            self.switches += 1
            return super().train(mode)

    model = nn.Sequential(Counting().train())
    with borrowed(model):
        assert model[0].switches == 2
    assert model[0].switches == 1


def test_a_module_in_eval_mode_is_not_asked_for_it():
    class Asked(nn.Identity):
        times = 0

        def train(self, mode: bool = True) -> nn.Module:
            self.times += 1
            return super().train(mode)

    model = Asked().eval()
    with borrowed(nn.Sequential(model).eval()):
        pass
    assert model.times == 2  # once here, once by the container


def test_a_part_without_a_mode_gets_none():
    model = nn.Sequential(nn.Dropout(), nn.Identity())
    del model[1].training
    with borrowed(model):
        assert not model[0].training
    assert not hasattr(model[1], "training")


def test_a_module_that_stays_in_training_mode_keeps_its_statistics():
    class Restless(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(True)

    model = Restless(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with borrowed(model):
        model(torch.rand(8, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_empty_container_is_a_module_too():
    model = nn.Sequential()
    with borrowed(model):
        assert not model.training
    assert model.training


def test_a_module_made_under_inference_mode_is_asked_and_left_as_it_was():
    with torch.inference_mode():
        module = nn.Linear(2, 3)
    for gradients in (False, True):
        with borrowed(module, gradients=gradients):
            module(torch.zeros(1, 2))
        assert all(weight.requires_grad for weight in module.parameters())


def test_without_gradients_there_are_none_inside(tangled):
    with torch.inference_mode(), borrowed(tangled, gradients=False):
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


class OnCuda(nn.GRU):
    """A recurrent network that says that it is on a GPU."""

    def parameters(self, recurse: bool = True):
        class Far(nn.Parameter):
            is_cuda = True

        return iter([Far(torch.zeros(1))])


def test_cudnn_leaves_gradients_of_recurrent_networks_to_others():
    # Its RNNs refuse a backward pass in eval mode.
    assert torch.backends.cudnn.enabled
    with borrowed(OnCuda(2, 2)):
        assert not torch.backends.cudnn.enabled
    with borrowed(OnCuda(2, 2), gradients=False):
        assert torch.backends.cudnn.enabled
    with borrowed(nn.GRU(2, 2)):
        assert torch.backends.cudnn.enabled
    network = nn.Sequential(OnCuda(2, 2))
    with attack_mode(network, batch_statistics=False):
        assert not torch.backends.cudnn.enabled
    with attack_mode(network, batch_statistics=True):
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_flow_inside_where_they_are_off_outside(tangled, mode):
    with mode():
        with borrowed(tangled):
            inputs = torch.rand(2, 12).double().requires_grad_()
            (gradient,) = torch.autograd.grad(tangled(inputs).sum(), inputs)
        assert not torch.is_grad_enabled()
    assert gradient.count_nonzero() > 0


def test_the_global_generator_is_seeded_inside_and_restored_outside():
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with borrowed(nn.Identity(), seed=3):
            drawn.append(torch.rand(4))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)
    with isolated_random_state([], seed=4):
        assert not torch.equal(torch.rand(4), drawn[0])


def test_without_a_seed_noise_goes_on_from_where_it_was():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with isolated_random_state([], None):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(3), expected)


def test_a_callable_needs_no_borrowing():
    with borrowed(torch.sin):
        assert torch.is_grad_enabled()


class Counts(nn.Module):
    """Its first tensor is neither a parameter nor floating."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def test_the_dtype_is_that_of_the_first_floating_tensor():
    assert dtype_of(Counts(), torch.float32) == torch.bfloat16
    assert dtype_of(nn.Linear(2, 2).double(), torch.float32) == torch.float64
    assert dtype_of(torch.sin, torch.float16) == torch.float16


def test_the_device_is_that_of_the_first_tensor():
    cpu, meta = torch.device("cpu"), torch.device("meta")
    assert device_of(nn.Linear(2, 2, device="meta"), cpu) == meta
    assert device_of(Counts(), meta) == cpu
    assert device_of(nn.ReLU(), meta) == meta
