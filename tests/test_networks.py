"""The papers' networks have the papers' shapes; counts come from the tables, not the code."""

import copy
import pickle
import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from distillguard import attacks, networks
from distillguard.networks import (
    mlp,
    papernot_cifar10,
    papernot_mnist,
    preact_resnet18,
    wide_resnet,
)

IMAGE_NETWORKS = [papernot_mnist, papernot_cifar10, preact_resnet18, wide_resnet]


def count(make, *args, **settings) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(*args, **settings).parameters())


def small(make):
    """The same network, thin enough for a test."""
    return (lambda *args: wide_resnet(*args, depth=10, width=1)) if make is wide_resnet else make


def test_papernot_networks_have_the_parameters_counted_by_hand_from_table_1():
    convolutions = (9 * 1 + 1) * 32, (9 * 32 + 1) * 32, (9 * 32 + 1) * 64, (9 * 64 + 1) * 64
    # 28 -> 26 -> 24 -> 12 -> 10 -> 8 -> 4 without padding: 64 maps of 4x4.
    assert count(papernot_mnist) == sum(convolutions) + (1024 + 1) * 200 + 201 * 200 + 201 * 10

    convolutions = (9 * 3 + 1) * 64, (9 * 64 + 1) * 64, (9 * 64 + 1) * 128, (9 * 128 + 1) * 128
    # 32 -> 30 -> 28 -> 14 -> 12 -> 10 -> 5: 128 maps of 5x5.
    assert count(papernot_cifar10) == sum(convolutions) + 3201 * 256 + 257 * 256 + 257 * 10


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [
        (28, 4, 5.85),
        (28, 8, 23.35),
        (28, 10, 36.48),
        (28, 12, 52.52),
        (58, 12, 122.22),
        (70, 16, 266.80),
        (82, 4, 19.80),
        (82, 8, 79.13),
        (82, 12, 177.98),
        (82, 16, 316.36),
        (94, 16, 365.92),
    ],
)
def test_wide_resnets_have_the_millions_of_parameters_that_the_scaling_study_reports(
    depth, width, millions
):
    assert round(count(wide_resnet, depth=depth, width=width) / 1e6, 2) == millions


def test_preact_resnet18_has_the_parameters_counted_by_hand():
    stem, head, last_norm = 27 * 64, 513 * 10, 2 * 512
    blocks = 0
    for before, after in [(64, 64), (64, 128), (128, 256), (256, 512)]:
        blocks += 9 * after * (before + 3 * after) + 2 * before + 3 * 2 * after
        blocks += before * after * (before != after)
    assert count(preact_resnet18) == stem + blocks + last_norm + head


@pytest.mark.parametrize("make", IMAGE_NETWORKS)
def test_a_network_is_a_factory_for_other_shapes_and_numbers_of_classes(make):
    network = small(make)((2, 24, 20), 7)
    assert network(torch.rand(3, 2, 24, 20)).shape == (3, 7)


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8), (2, 3, 4, 5)])
def test_mlp_takes_inputs_of_any_rank(shape):
    assert mlp(shape, 4)(torch.rand(3, *shape)).shape == (3, 4)


def test_mlp_without_hidden_layers_is_linear():
    network = mlp((6,), 3, hidden=()).double()
    x, y = torch.rand(2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(network(x + y), network(x) + network(y))


@pytest.mark.parametrize("make", [*IMAGE_NETWORKS, mlp])
def test_logits_are_squashed_into_neither_probabilities_nor_their_logarithms(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = small(make)((1, 16, 16), 5).eval()
        logits = network(torch.rand(8, 1, 16, 16)).detach()
    assert not ((logits >= 0) & (logits <= 1)).all()
    assert logits.sum(dim=1).sub(1).abs().min() > 1e-3
    assert logits.logsumexp(dim=1).abs().min() > 1e-3


@pytest.mark.parametrize("make", [*IMAGE_NETWORKS, mlp])
def test_weights_belong_to_the_seed(make):
    def draw(seed):
        torch.manual_seed(seed)
        return [p.detach() for p in small(make)((1, 16, 16), 3).parameters()]

    with torch.random.fork_rng():
        assert all(torch.equal(a, b) for a, b in zip(draw(3), draw(3), strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(draw(3), draw(4), strict=True))


@pytest.mark.parametrize("make", [papernot_mnist, papernot_cifar10])
def test_dropout_acts_in_training_only(make):
    inputs = torch.rand(4, 1, 16, 16)
    network, without = make((1, 16, 16), 3), make((1, 16, 16), 3, dropout=0.0)
    assert not torch.equal(network(inputs), network(inputs))
    assert torch.equal(without(inputs), without(inputs))
    network.eval()
    assert torch.equal(network(inputs), network(inputs))


@pytest.mark.parametrize("make", [papernot_mnist, papernot_cifar10])
def test_a_pair_drops_units_of_each_hidden_layer_by_its_own_share(make):
    """Nineteen of twenty units, counted where each layer's dropout lets its units out."""
    network = make((1, 16, 16), 3, dropout=[0.0, 0.95])
    kept = []
    for part in network:
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(lambda _, a, out: kept.append((out != 0)[a[0] != 0]))
    network(torch.rand(64, 1, 16, 16))
    first, second = (mask.double().mean() for mask in kept)
    assert first == 1
    assert 0.03 < second < 0.08


def test_hes_rule_keeps_the_size_of_the_signal_through_the_papernot_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = papernot_mnist((1, 28, 28)).eval()
        signal = torch.randn(16, 1, 28, 28)
    squares = []
    for layer in network:
        signal = layer(signal)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            squares.append(signal.square().mean().item())
    # Pooling keeps the larger half, so the square may grow; without He's factor it would
    # fall by half at each of the seven layers.
    assert min(squares) > 1


@pytest.mark.parametrize("make", [papernot_mnist, papernot_cifar10])
def test_pytorchs_own_initial_weights_are_left_as_layers_draw_them(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make((1, 16, 16), 3, initial_weights="torch")
        torch.manual_seed(0)
        drawn = [
            type(part)(part.in_channels, part.out_channels, 3)
            if isinstance(part, nn.Conv2d)
            else nn.Linear(part.in_features, part.out_features)
            for part in network
            if isinstance(part, nn.Conv2d | nn.Linear)
        ]
    found = [part for part in network if isinstance(part, nn.Conv2d | nn.Linear)]
    for ours, theirs in zip(found, drawn, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
    with pytest.raises(ValueError, match=r"initial_weights must be .* got 'glorot'"):
        make((1, 16, 16), 3, initial_weights="glorot")


@pytest.mark.parametrize("make", IMAGE_NETWORKS)
def test_networks_survive_pickling(make):
    network = small(make)((1, 16, 16), 3).eval()
    inputs = torch.rand(2, 1, 16, 16)
    again = pickle.loads(pickle.dumps(network))
    assert torch.equal(again(inputs), network(inputs))


def test_the_activation_of_a_wide_resnet_can_be_replaced():
    kinds = {type(part) for part in wide_resnet(depth=10, width=1, activation=nn.ReLU).modules()}
    assert nn.ReLU in kinds
    assert nn.SiLU not in kinds


@pytest.mark.parametrize(
    ("make", "shape", "least"),
    [
        (papernot_mnist, (1, 8, 8), 16),
        (papernot_cifar10, (3, 32, 15), 16),
        (preact_resnet18, (3, 7, 8), 8),
        (wide_resnet, (30,), 4),
    ],
)
def test_an_image_too_small_for_the_layers_is_refused(make, shape, least):
    with pytest.raises(ValueError, match=f"input_shape must be .* at least {least}, got") as caught:
        make(shape, 10)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("make", [*IMAGE_NETWORKS, mlp])
def test_nonsense_is_refused_in_one_grammar(make):
    with pytest.raises(ValueError, match="n_classes must be at least 2, got 1"):
        make((1, 32, 32), 1)
    with pytest.raises(TypeError, match="input_shape must be a sequence of integers, got 784"):
        make(784, 10)
    with pytest.raises(ValueError, match="every number of input_shape must be at least 1, got 0"):
        make((0, 32, 32), 10)
    with pytest.raises(ValueError, match=r"input_shape must have at least one axis, got \(\)"):
        make((), 10)


@pytest.mark.parametrize("depth", [4, 13, 27])
def test_a_depth_that_no_wide_resnet_has_is_refused(depth):
    with pytest.raises(ValueError, match=rf"depth must be 6 k \+ 4 .*, got {depth}"):
        wide_resnet(depth=depth, width=1)


def test_nonsense_settings_are_refused():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        wide_resnet(width=0)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1.0"):
        papernot_mnist(dropout=1.0)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got \(0.5, -0.1\)"):
        papernot_mnist(dropout=(0.5, -0.1))
    for three in (0.5, 0.5, 0.5), "half":
        with pytest.raises(TypeError, match="dropout must be a number or a pair of numbers"):
            papernot_mnist(dropout=three)
    with pytest.raises(TypeError, match="hidden must be a sequence of integers, got 64"):
        mlp((4,), hidden=64)


# --- around a network -------------------------------------------------------------------------


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))


@pytest.mark.parametrize("shape", [(3, 8, 8), (3,), (3, 5), (3, 2, 2, 2)])
def test_normalised_inputs_are_those_of_torchvision_in_every_rank(shape):
    from torchvision.transforms import Normalize

    inputs = torch.rand(5, *shape)
    images = inputs.reshape(5, 3, 1, -1)
    expected = torch.stack([Normalize(MEAN, STD)(image) for image in images]).reshape(inputs.shape)
    torch.testing.assert_close(networks.Normalized(nn.Identity(), MEAN, STD)(inputs), expected)
    one = networks.Normalized(nn.Identity(), 0.5, torch.tensor(0.25))
    torch.testing.assert_close(one(inputs), 4 * inputs - 2)


def test_statistics_that_want_a_gradient_are_numbers_like_any():
    std = torch.tensor([0.5, 0.25, 2.0], requires_grad=True)
    model = networks.Normalized(nn.Identity(), torch.zeros(3, requires_grad=True), std)
    inputs = torch.rand(5, 3)
    found = copy.deepcopy(model)(inputs)
    torch.testing.assert_close(found, inputs / std.detach())
    assert not found.requires_grad


def test_an_attack_on_raw_inputs_is_the_attack_on_normalised_ones_in_their_units():
    network, std = small_network(), 0.25
    raw = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = networks.Normalized(network, 0.5, std)
    labels = model(raw).argmax(dim=1)
    inside = attacks.pgd(model, raw, labels, epsilon=0.03, random_start=False)
    outside = attacks.pgd(
        network,
        (raw - 0.5) / std,
        labels,
        epsilon=0.03 / std,
        bounds=((0 - 0.5) / std, (1 - 0.5) / std),
        random_start=False,
    )
    assert (model(inside).argmax(dim=1) != labels).any()
    assert torch.equal(model(inside).argmax(dim=1), network(outside).argmax(dim=1))
    torch.testing.assert_close((inside - 0.5) / std, outside, atol=2e-5, rtol=0)


def test_mean_and_deviation_are_saved_and_move_with_the_network():
    model = networks.Normalized(small_network().double(), MEAN, STD)
    assert model.mean.dtype == model.std.dtype == torch.float64
    assert {"mean", "std"} < model.state_dict().keys()
    other = networks.Normalized(small_network(), (0.0,) * 3, (1.0,) * 3).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.std, torch.tensor(STD, dtype=torch.float64))
    assert model.to(torch.bfloat16)(torch.rand(2, 3, 8, 8).bfloat16()).dtype == torch.bfloat16
    assert model.to("meta").mean.device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((len, 0, 1), TypeError, "network must be a module, got the function len"),
        ((nn.Identity(), "a", 1), TypeError, "mean must be a number or one per channel, got 'a'"),
        ((nn.Identity(), 0, 0), ValueError, "std must be above 0, got 0.0"),
        ((nn.Identity(), 0, [1.0, -2.0]), ValueError, "std must be above 0, got -2.0"),
        ((nn.Identity(), float("nan"), 1), ValueError, "mean must be finite, got nan"),
        ((nn.Identity(), [], 1), ValueError, "mean must be a number or one per channel, got shape"),
        (
            (nn.Identity(), MEAN, STD[:2]),
            ValueError,
            "std must have one number for each of 3 in mean, got 2",
        ),
    ],
)
def test_a_normalisation_that_is_none_is_refused(arguments, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        networks.Normalized(*arguments)


def test_images_with_other_channels_are_refused_rather_than_broadcast():
    message = r"^inputs must have 3 channels in axis 1, one for each mean and std, got shape \(2, 1"
    with pytest.raises(ValueError, match=message):
        networks.Normalized(nn.Identity(), MEAN, STD)(torch.rand(2, 1, 8, 8))


@dataclass
class Output:
    scores: torch.Tensor
    loss: None = None


@pytest.mark.parametrize(
    ("pack", "pick"),
    [
        (lambda z: {"logits": z, "loss": None}, "logits"),
        (lambda z: {"out": z}, "out"),
        (lambda z: (z, None), 0),
        (lambda z: [None, z], -1),
        (lambda z: Output(z), "scores"),
        (lambda z: {"layers": [None, z]}, lambda output: output["layers"][1]),
        (lambda z: z, "logits"),
        (lambda z: z, 3),
        (lambda z: z[:, :, None, None].expand(-1, -1, 3, 2), lambda z: z.mean((2, 3))),
    ],
)
def test_logits_are_taken_out_of_whatever_holds_them(pack, pick):
    network, inputs = small_network(), torch.rand(4, 3, 8, 8)
    model = networks.Logits(lambda x: pack(network(x)), pick)
    torch.testing.assert_close(model(inputs), network(inputs))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_logit_becomes_two_of_the_same_probabilities_and_gradient(shape):
    linear, inputs = nn.Linear(5, 1), torch.randn(6, 5, requires_grad=True)
    logits = networks.Logits(lambda x: linear(x).reshape(shape))(inputs)
    z = linear(inputs)[:, 0]
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], z.sigmoid())
    assert torch.equal(logits.argmax(dim=1) == 1, z > 0)
    loss = nn.functional.cross_entropy(logits, torch.ones(6, dtype=torch.int64))
    expected = nn.functional.binary_cross_entropy_with_logits(z, torch.ones(6))
    for one, other in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_module_around_logits_shares_weights_modes_and_state():
    network = small_network()
    model = networks.Logits(network)
    assert dict(model.named_parameters()).keys() == {f"module.{n}" for n in network.state_dict()}
    model.eval()
    assert not network.training


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: networks.Logits(3), TypeError, "module must be a module or a callable, got 3"),
        (
            lambda: networks.Logits(nn.Linear),
            TypeError,
            "module must be a module or a callable, got the class Linear",
        ),
        (
            lambda: networks.Logits(nn.Identity(), 0.5),
            TypeError,
            "pick must be a string, an integer or a callable, got 0.5",
        ),
        (
            lambda: networks.Logits(lambda x: {"out": x})(torch.rand(2, 3)),
            ValueError,
            "pick must be in what the module returns, got 'logits' and dict with keys 'out'",
        ),
        (
            lambda: networks.Logits(lambda x: (x,), 2)(torch.rand(2, 3)),
            ValueError,
            "pick must be in what the module returns, got 2 and tuple of 1 item: Tensor (2, 3)",
        ),
        (
            lambda: networks.Logits(lambda x: Output(x))(torch.rand(2, 3)),
            ValueError,
            "pick must be in what the module returns, got 'logits' and Output",
        ),
    ],
)
def test_logits_that_cannot_be_found_are_refused(build, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        build()
