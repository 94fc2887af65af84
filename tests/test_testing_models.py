"""check_model: names what is wrong with a network, and finds nothing wrong with a right one."""

import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import deaf, each_once_with_an_example
from distillguard import DefensiveDistiller, networks
from distillguard.exceptions import BrokenPromiseError
from distillguard.testing import check_model

SHAPE = (1, 6, 6)


def images(n: int = 4, shape: tuple[int, ...] = SHAPE, dtype=torch.float32) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def mlp(size: int = 36, classes: int = 4, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(size, 24), nn.Tanh(), nn.Linear(24, classes)]
    return nn.Sequential(*layers)


class Faulty(nn.Module):
    """A sound network behind or before a fault."""

    def __init__(self, before=None, after=None) -> None:
        super().__init__()
        self.network = mlp()
        self.before, self.after = before, after

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs if self.before is None else self.before(inputs)
        logits = self.network(inputs)
        return logits if self.after is None else self.after(logits)


def centred(inputs: Tensor) -> Tensor:
    """So that the network tells several classes apart."""
    return 6 * (inputs - 0.5)


def half_black_and_white(inputs: Tensor) -> Tensor:
    """The first row has an effect and no gradient."""
    return torch.cat([(inputs[..., :1, :] > 0.5).to(inputs), inputs[..., 1:, :]], dim=-2)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor) -> Tensor:
        return (16 * inputs).round() / 16

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


class Half(Faulty):
    """Works in float16 inside, where bright images are more than it can hold."""

    def forward(self, inputs: Tensor) -> Tensor:
        bright = (2000 * inputs.half().flatten(1)).sum(dim=1, keepdim=True)
        return super().forward(inputs) + bright.float() / 2000


def learned_norm(network: nn.Module) -> nn.Module:
    return nn.Sequential(network, nn.BatchNorm1d(4, track_running_stats=False))


class Counting(Faulty):
    """Keeps statistics of what it sees up to date, and does not use them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen += len(inputs)
        return super().forward(inputs)


FAULTS = {
    # Not Tensor.clamp, whose gradient on a bound is 1 in PyTorch 2.6 and 0 in 2.15.
    "clamp": (Faulty(lambda x: F.hardtanh(x, 0.0, 1.0)), "gradient-at-bounds", "clamp"),
    "tight clamp": (Faulty(lambda x: x.clamp(0.05, 0.95)), "gradient-at-bounds", "clamp"),
    "deaf": (Faulty(deaf), "gradient-at-bounds", "clamp"),
    "ReLU on the input": (nn.Sequential(nn.ReLU(), mlp()), "gradient-at-bounds", "ReLU"),
    "square root": (Faulty(torch.sqrt), "gradient-at-bounds", "square root"),
    "argmax": (Faulty(centred, lambda z: F.one_hot(z.argmax(1), 4).float()), "no-stairs", "argmax"),
    "argmax with a graph": (
        Faulty(centred, lambda z: F.one_hot(z.argmax(1), 4) + 0 * z),
        "no-stairs",
        "argmax",
    ),
    "batch statistics": (learned_norm(mlp()), "batch-independence", "BatchNorm"),
    "mean of the batch": (Faulty(lambda x: x - x.mean(dim=0)), "batch-independence", "axis 0"),
    "squeezed": (Faulty(after=torch.squeeze), "batch-independence", "a batch of one"),
    "in place": (Faulty(lambda x: x.sub_(0.5)), "inputs-kept", "written"),
    "ReLU in place": (
        nn.Sequential(nn.ReLU(inplace=True), mlp()),
        {"inputs-kept", "gradient-at-bounds"},
        "inplace=True",
    ),
    "softmax": (nn.Sequential(mlp(), nn.Softmax(dim=1)), "logits", "final softmax"),
    "float16 overflow": (Half(), {"finite-logits", "true-gradient"}, "overflow"),
    "exp overflow": (Faulty(after=lambda z: (400 * z).exp()), "finite-logits", "infinity"),
    "sorted rows": (
        Faulty(after=lambda z: z[z[:, 0].argsort()]),
        "order-independence",
        "another order",
    ),
    "reversed rows": (Faulty(after=lambda z: z.flip(0)), "order-independence", "a flip"),
    "by place": (
        Faulty(after=lambda z: z + torch.arange(len(z))[:, None] * torch.eye(4)[0]),
        "order-independence",
        "another order",
    ),
    "dropout": (Faulty(F.dropout), "repeatable", "dropout"),
    "noise": (Faulty(lambda x: x + 0.1 * torch.randn_like(x)), "repeatable", "noise"),
    "dropout beside a class that is ruled out": (
        Faulty(F.dropout, lambda z: F.pad(z, (0, 1), value=-1e9)),
        "repeatable",
        "dropout",
    ),
    "detached": (Faulty(torch.detach), "differentiable", "detach()"),
    "without a graph": (Faulty(after=torch.detach), "differentiable", "detach()"),
    "large logits without a graph": (
        lambda x: 50 + 0.05 * x.detach().flatten(1).sum(dim=1)[:, None] * torch.tensor([1.0, -1.0]),
        "differentiable",
        "detach()",
    ),
    "half detached": (Faulty(lambda x: 2 * x.detach() - x), "true-gradient", "detach()"),
    "rounding": (Faulty(lambda x: (255 * x).round() / 255), "no-stairs", "round"),
    "rounding, straight through": (Faulty(StraightThrough.apply), "no-stairs", "round"),
    "half precision": (Faulty(lambda x: x.half().float()), "no-stairs", "narrower"),
    "NaN at zero": (
        Faulty(lambda x: x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)),
        "finite-logits",
        "NaN",
    ),
    "double": (Faulty(after=torch.Tensor.double), "dtype-and-device", "float64"),
    "dead rows": (Faulty(lambda x: F.pad(x[..., :-1, :], (0, 0, 0, 1))), "live-coordinates", "6"),
    "constant": (Faulty(after=lambda z: 0 * z), "live-coordinates", "36 of 36"),
    "labels": (lambda x: mlp()(x).argmax(dim=1), "answers", "int64"),
    "one example's shape": (Faulty(after=lambda z: z[0]), "answers", "logits of shape"),
    "statistics kept": (Counting(), "state-kept", "'seen'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_no_other(name):
    model, promises, words = FAULTS[name]
    with pytest.raises(BrokenPromiseError) as caught:
        check_model(model, images())
    expected = {promises} if isinstance(promises, str) else promises
    assert each_once_with_an_example(caught.value.broken) == expected
    assert words in str(caught.value)


def test_a_model_has_its_values_back_whatever_it_does_to_them():
    model = Counting()
    with pytest.raises(BrokenPromiseError):
        check_model(model, images())
    assert model.seen == 0


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.last = nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        hidden = hidden + self.second(torch.relu(self.norm(hidden)))
        return self.last(hidden.mean(dim=(2, 3)))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.leave = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.leave(self.body(self.enter(inputs.squeeze(1))).mean(dim=1))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(54, 10),
    )


def trained(network: nn.Module) -> nn.Module:
    for _ in range(3):
        network(torch.rand(32, *SHAPE))
    return network


HONEST = {
    "CNN with BatchNorm": lambda: trained(convolutional()),
    "transformer": Transformer,
    "MLP": mlp,
    "ReLU": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 3)),
    "residual": Residual,
    "normalised": lambda: networks.Normalized(mlp(), 0.4, 0.2),
    "two classes": lambda: mlp(classes=2),
    "a function": lambda: mlp().forward,
    "a row of black and white": lambda: Faulty(half_black_and_white),
    "papers'": lambda: networks.mlp(SHAPE, 10),
}


def test_a_network_is_asked_within_the_bounds_alone():
    asked = []

    def noting(x):
        asked.extend(x.detach().aminmax())
        return network(x - 2)

    network = mlp()
    check_model(noting, 2 + images(), bounds=(2.0, 3.0))
    assert 2 <= min(asked) < max(asked) <= 3


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_sound_network_passes_in_training_mode_too(name, dtype, seed):
    torch.manual_seed(seed)
    model = HONEST[name]()
    if isinstance(model, nn.Module):
        model.to(dtype)
    elif dtype == torch.float64:
        return
    check_model(model, images(dtype=dtype))
    check_model(model, images(1, dtype=dtype).round())


@pytest.mark.parametrize("constant", [1e4, -1e4])
def test_a_constant_on_all_logits_makes_no_stairs_of_a_sound_network(constant):
    # In float32 the logits of neighbouring inputs round to the same few numbers.
    check_model(Faulty(after=lambda z: z + constant), images())


def test_a_network_distilled_at_temperature_100_passes():
    torch.manual_seed(0)
    X = torch.rand(200, 16)
    y = (X[:, :8].sum(1) > X[:, 8:].sum(1)).long()
    distiller = DefensiveDistiller(temperature=100.0, max_epochs=40, random_state=0).fit(X, y)
    check_model(distiller.model_, X[:5])


def test_a_bfloat16_network_passes():
    check_model(mlp().bfloat16(), images())


def test_the_smallest_example_is_one_row_or_two():
    sizes = {}
    for name in ("in place", "NaN at zero", "mean of the batch", "reversed rows", "dropout"):
        with pytest.raises(BrokenPromiseError) as caught:
            check_model(FAULTS[name][0], images(6))
        example = caught.value.broken[0].example
        assert example.shape[1:] == SHAPE
        sizes[name] = len(example)
    assert sizes == {
        "in place": 1,
        "NaN at zero": 1,
        "mean of the batch": 2,
        "reversed rows": 2,
        "dropout": 1,
    }


def test_the_example_of_nan_at_zero_is_zero():
    with pytest.raises(BrokenPromiseError) as caught:
        check_model(FAULTS["NaN at zero"][0], images())
    (one,) = caught.value.broken
    assert torch.equal(one.example, torch.zeros(1, *SHAPE))


def test_two_faults_are_both_named_and_what_they_hide_is_listed():
    model = Faulty(lambda x: F.dropout(x.sub_(0.5)))
    with pytest.raises(BrokenPromiseError, match="not judged, because of these: order") as caught:
        check_model(model, images())
    assert [one.promise for one in caught.value.broken] == ["inputs-kept", "repeatable"]


def test_a_part_that_stays_in_training_mode_is_named():
    class Stubborn(nn.Dropout):
        def train(self, mode: bool = True):
            return super().train(True)

    with pytest.raises(BrokenPromiseError, match=r"still in training mode: '1'"):
        check_model(nn.Sequential(nn.Flatten(), Stubborn(0.5), mlp()), images())


def test_promises_that_a_model_does_not_make_are_skipped():
    model = FAULTS["softmax"][0]
    check_model(model, images(), skip="logits")
    check_model(Faulty(F.dropout), images(), skip={"repeatable", *SKIPPED_WITH_NOISE})
    with pytest.raises(ValueError, match=r"^skip must be one of 'answers', "):
        check_model(model, images(), skip="softmax")


SKIPPED_WITH_NOISE = (
    "gradient-at-bounds",
    "batch-independence",
    "order-independence",
    "true-gradient",
)


def test_the_model_comes_back_as_it_was():
    model = trained(convolutional()).train()
    model[4].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        check_model(model, images())
    assert [part.training for part in model] == [True] * 4 + [False] + [True] * 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_inputs_that_carry_a_graph_are_examples_like_any():
    told = []
    for inputs in (images(), images().requires_grad_() * 1):
        with pytest.raises(BrokenPromiseError) as caught:
            check_model(FAULTS["mean of the batch"][0], inputs)
        assert not any(one.example.requires_grad for one in caught.value.broken)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_bounds_of_one_value_each_and_a_coordinate_of_no_width():
    high = torch.ones(SHAPE)
    high[0, 0, 0] = 0
    inputs = images() * high
    check_model(mlp(), inputs, bounds=(torch.zeros(SHAPE), high))
    check_model(Faulty(lambda x: x / 255), 255 * images(), bounds=(0.0, 255.0))


def test_the_error_travels_between_processes():
    with pytest.raises(BrokenPromiseError) as caught:
        check_model(FAULTS["in place"][0], images())
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.broken[0].promise == "inputs-kept"


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.zeros(2, 36).long(), TypeError, "inputs must be floating point"),
        (torch.zeros(0, 36), ValueError, "example_inputs must hold at least one example, got 0"),
        (torch.full((1, 36), 2.0), ValueError, "example_inputs must be within bounds"),
    ],
)
def test_examples_that_are_none_are_refused(inputs, error, message):
    with pytest.raises(error, match=f"^{message}"):
        check_model(mlp(), inputs)
