"""check_defense: names what is wrong with a layer or a detector, and passes what is right."""

import pytest
import torch
from torch import nn

from conftest import each_once_with_an_example
from distillguard import defenses
from distillguard.defenses import BitDepth, Detector, GaussianNoise, Layer, RandomLayer
from distillguard.exceptions import BrokenPromiseError
from distillguard.testing import check_defense

SOUND = {
    "BitDepth": BitDepth(3),
    "JPEG": defenses.JPEG(),
    "MedianFilter": defenses.MedianFilter(),
    "even MedianFilter": defenses.MedianFilter(2),
    "TotalVariation": defenses.TotalVariation(),
    "RandomResizePad": defenses.RandomResizePad(),
    "seeded RandomResizePad": defenses.RandomResizePad(seed=0),
    "GaussianNoise": GaussianNoise(),
    "seeded GaussianNoise": GaussianNoise(4.0, seed=3, bounds=(-10.0, 30.0)),
    "BitDepth in other units": BitDepth(bounds=(-2.0, 3.0)),
    "FeatureSqueezing": defenses.FeatureSqueezing(),
    "MaximumProbability": defenses.MaximumProbability(),
    "ReconstructionError": defenses.ReconstructionError(max_epochs=2, random_state=0),
    "a plain module": nn.AvgPool2d(3, 1, 1),
}


@pytest.mark.parametrize("name", SOUND)
def test_every_layer_and_detector_of_ours_keeps_its_promises(name):
    check_defense(SOUND[name])


def test_every_public_layer_and_detector_is_among_them():
    kinds = {type(part) for part in SOUND.values()}
    public = {getattr(defenses, name) for name in defenses.__all__}
    parts = {kind for kind in public if issubclass(kind, Layer | Detector)}
    assert parts - kinds == {Layer, RandomLayer, Detector}


class Part(nn.Module):
    """A layer of ``change``, without what :class:`Layer` sees to."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, inputs):
        return self.change(inputs)


class Plain(Layer):
    def transform(self, inputs):
        return self.change(inputs)

    def change(self, inputs):
        return 0.5 * inputs


class Rounded(Plain):
    """A straight-through estimator whose gradient is lost at the bounds."""

    gradient = "identity"

    def forward(self, inputs):
        return inputs.clamp(1e-3, 1 - 1e-3) + ((4 * inputs).round() / 4 - inputs).detach()


class HalfGradient(Plain):
    gradient = "identity"

    def forward(self, inputs):
        return inputs.round().detach() + 0.5 * (inputs - inputs.detach())


class Renamed(Plain):
    def __init__(self, strength: float = 0.5) -> None:
        super().__init__()
        self.power = strength

    def change(self, inputs):
        return self.power * inputs


class Changed(Plain):
    """Keeps its argument after it has changed it."""

    def __init__(self, strength: float = 0.5) -> None:
        super().__init__()
        self.strength = strength / 2

    def change(self, inputs):
        return self.strength * inputs


class Noise(Plain):
    def change(self, inputs):
        return inputs + 0.1 * torch.randn_like(inputs)


class OwnNoise(Noise):
    """Says that it draws, and keeps a generator that no seed reaches."""

    random = True

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def change(self, inputs):
        self.count += 1
        return inputs * (1 + self.count % 2) / 2


class Deaf(RandomLayer):
    """Takes a seed and does not look at it."""

    def transform(self, inputs):
        return inputs + (0.1 * torch.randn_like(inputs) if self.seed is None else 0.05)


class Seeding(Plain):
    def change(self, inputs):
        torch.manual_seed(0)
        return inputs + 0.1 * torch.randn_like(inputs[:1])


class Evaluated(Plain):
    def forward(self, inputs):
        return inputs if torch.is_grad_enabled() else 0.5 * inputs


class Shared(Plain):
    """Weights that its copies share."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def __deepcopy__(self, memo):
        twin = type(self)()
        twin.weight = self.weight
        return twin

    def change(self, inputs):
        return self.weight * inputs


class Statistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def change(self, inputs):
        self.seen += len(inputs)
        return inputs


class Score(Detector):
    def score(self, model, inputs):
        return self.told(model, inputs)

    def told(self, model, inputs):
        return model(inputs).logsumexp(dim=1)


def detector(told):
    return type("Told", (Score,), {"told": lambda self, model, inputs: told(model, inputs)})()


def writes(model, inputs):
    return inputs.mul_(0.5).flatten(1).sum(dim=1)


def trains(model, inputs):
    model.train()
    found = model(inputs).amax(dim=1)
    model.eval()
    for each in model.modules():
        each.training = True
    return found


FAULTS = {
    "shape": (Part(lambda x: x[..., ::2]), "answers"),
    "NaN": (Part(lambda x: x / x.flatten(1).amax(dim=1).view(-1, 1, 1, 1)), "answers"),
    "in place": (Part(lambda x: x.mul_(0.5)), "inputs-kept"),
    "beyond the bounds": (Part(lambda x: 1.001 * x), "range"),
    "other dtype": (Part(lambda x: 0.5 * x.double()), "dtype-and-device"),
    "float32 for float64": (Part(lambda x: 0.5 * x.float()), "dtype-and-device"),
    "of the batch": (Part(lambda x: (x - x.mean(0)) / 4 + 0.5), "batch-independence"),
    "rows turned": (Part(lambda x: x.flip(0)), "order-independence"),
    "undeclared rounding": (Part(lambda x: (8 * x).round() / 8), "no-stairs"),
    "detached": (Part(lambda x: 0.5 * x.detach()), "differentiable"),
    "half detached": (Part(lambda x: x.detach() - 0.5 * x + 0.25), "true-gradient"),
    "clamp": (Part(lambda x: x.clamp(0.01, 0.99)), "gradient-at-bounds"),
    "straight through, clamped": (Rounded(), "identity-gradient"),
    "half of the gradient": (HalfGradient(), "identity-gradient"),
    "undeclared noise": (Noise(), {"repeatable", "generators-kept"}),
    "no seed reaches it": (OwnNoise(), "seed"),
    "seed not looked at": (Deaf(), "seed"),
    "global seed": (Seeding(), "generators-kept"),
    "asks for gradients": (Evaluated(), "no-grad"),
    "argument under another name": (Renamed(), "parameters"),
    "argument changed": (Changed(), "parameters"),
    "copy": (Shared(), "copy"),
    "pickle": (Part(lambda x: 0.5 * x), "pickle"),
    "statistics": (Statistics(), "state-kept"),
    "no empty batch": (Part(lambda x: x - x.amin() * 0 if len(x) else x[0]), "empty-batch"),
    "detector: two numbers": (detector(lambda f, x: f(x)[:, :2]), "answers"),
    "detector: infinite": (
        detector(lambda f, x: x.flatten(1).sum(dim=1).log()),
        "answers",
    ),
    "detector: of the batch": (
        detector(lambda f, x: (s := f(x).logsumexp(dim=1)) - s.mean()),
        "batch-independence",
    ),
    "detector: in place": (detector(writes), "inputs-kept"),
    "detector: training mode": (detector(trains), "model-kept"),
    "detector: alarm": (
        detector(lambda f, x: (f(x).amax(dim=1) > 2).float() + 0 * f(x).sum(dim=1)),
        "no-stairs",
    ),
}


@pytest.mark.parametrize(
    ("part", "promise"),
    [
        (Part(lambda x: x + 0.01 * (x >= 1).all(dim=-1, keepdim=True)), "range"),
        (Rounded(), "identity-gradient"),
    ],
)
def test_what_goes_wrong_at_the_bounds_is_found_from_examples_inside_them(part, promise):
    inside = 0.25 + 0.5 * torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(BrokenPromiseError) as caught:
        check_defense(part, inside, skip="pickle")
    assert promise in {one.promise for one in caught.value.broken}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_no_other(name):
    part, promises = FAULTS[name]
    with pytest.raises(BrokenPromiseError) as caught:
        # Most faults here are lambdas, which no pickle takes.
        check_defense(part, skip=() if promises == "pickle" else "pickle")
    expected = {promises} if isinstance(promises, str) else promises
    assert each_once_with_an_example(caught.value.broken) == expected
    other = "layer must" if name.startswith("detector") else "detector must"
    assert not any(one.message.startswith(other) for one in caught.value.broken)


def test_the_smallest_example_shows_the_fault():
    with pytest.raises(BrokenPromiseError) as caught:
        check_defense(FAULTS["NaN"][0])
    assert not caught.value.broken[0].example.any()
    with pytest.raises(BrokenPromiseError, match=r"^layer must .*\n  range: layer must") as caught:
        check_defense(FAULTS["beyond the bounds"][0])
    (example,) = caught.value.broken[0].example
    assert example.max() == 1
    with pytest.raises(BrokenPromiseError, match=r"^detector must keep") as caught:
        check_defense(FAULTS["detector: of the batch"][0])
    assert len(caught.value.broken[0].example) == 2


def test_a_layer_that_has_no_gradient_says_so_by_skip():
    skip = {"differentiable", "true-gradient", "gradient-at-bounds", "pickle"}
    check_defense(FAULTS["detached"][0], skip=skip)


def test_examples_and_bounds_are_those_given():
    rows = torch.rand(3, 16) * 255
    wide = Part(lambda x: x.clamp(-1, 256))
    check_defense(wide, rows, bounds=(0.0, 255.0), skip="pickle")
    with pytest.raises(BrokenPromiseError, match="range: "):
        check_defense(Part(lambda x: x + 1), rows / 255, skip="pickle")


def test_a_detector_that_learns_is_fitted_on_a_copy():
    detector = defenses.ReconstructionError(max_epochs=1)
    check_defense(detector, torch.rand(4, 1, 8, 8))
    assert not detector.fitted


@pytest.mark.parametrize(
    ("part", "inputs", "error", "message"),
    [
        (lambda x: x, None, TypeError, "layer must be an nn.Module"),
        (nn.Identity(), torch.zeros(0, 3), ValueError, "example_inputs must hold at least one"),
        (nn.Identity(), torch.zeros(2, 3).long(), TypeError, "inputs must be floating point"),
    ],
)
def test_what_is_no_layer_is_refused(part, inputs, error, message):
    with pytest.raises(error, match=f"^{message}"):
        check_defense(part, inputs)
