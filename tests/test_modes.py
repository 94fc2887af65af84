"""A borrowed model comes back as it was, and its own noise is repeatable meanwhile."""

import pytest
import torch
from torch import Tensor, nn

from conftest import Tangled
from distillguard._modes import borrowed, device_of, dtype_of, isolated_random_state


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


def test_a_module_that_resists_eval_is_left_as_it_was():
    class Resisting(Tangled):
        def eval(self) -> nn.Module:
            self.normalise.eval()
            raise RuntimeError("no eval here")

    model = Resisting()
    with pytest.raises(RuntimeError, match="no eval here"), borrowed(model):
        pass
    assert model.normalise.training


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
