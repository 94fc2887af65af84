"""Attacks at the limits of floating point: half precision, infinite slopes, huge logits."""

from functools import cache, partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from distillguard import attacks
from distillguard._geometry import lp_norm

MINIMUM_DISTANCE = {
    "carlini_wagner_l2": attacks.carlini_wagner_l2,
    "carlini_wagner_linf": attacks.carlini_wagner_linf,
    "carlini_wagner_l0": attacks.carlini_wagner_l0,
    "ddn": attacks.ddn,
    "fmn-l1": partial(attacks.fmn, norm="l1"),
    "fmn-l2": attacks.fmn,
    "fmn-linf": partial(attacks.fmn, norm="linf"),
    "deepfool-l2": partial(attacks.deepfool, norm="l2"),
    "deepfool-linf": partial(attacks.deepfool, norm="linf"),
    "fab-l2": partial(attacks.fab_targeted, norm="l2", n_targets=3, random_state=0),
    "fab-linf": partial(attacks.fab_targeted, norm="linf", n_targets=3, random_state=0),
}
HALF = (torch.bfloat16, torch.float16)


def norm_of(name):
    """The norm of the distances that an attack keeps small."""
    return next((norm for norm in ("l0", "linf") if name.endswith(norm)), "l2")


def attacked(name, net, X, y):
    return MINIMUM_DISTANCE[name](net, X, y)


def trained(transform: nn.Module | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network on real digits behind a transform, and 12 images that it gets right."""
    digits = load_digits()
    X = torch.tensor(digits.data, dtype=torch.float32) / 16
    y = torch.tensor(digits.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            transform or nn.Identity(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )
        optimizer = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(15):
            for batch in torch.randperm(1500).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(X[batch]), y[batch]).backward()
                optimizer.step()
    net.eval().requires_grad_(False)
    X, y = X[1500:1530], y[1500:1530]
    right = net(X).argmax(dim=1) == y
    return net, X[right][:12], y[right][:12]


class Root(nn.Module):
    """The square root of pixels, of infinite slope at exact zeros unless shifted."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs + self.shift).sqrt()


@pytest.fixture(scope="module")
def plain():
    return trained()


@pytest.fixture(scope="module")
def exact(plain):
    """The median distance in single precision, by the name of the attack."""
    net, X, y = plain
    return cache(lambda name: lp_norm(attacked(name, net, X, y) - X, norm_of(name)).median())


@pytest.fixture(scope="module")
def steep():
    return cache(lambda shift: trained(Root(shift)))


@pytest.fixture(scope="module")
def root(steep):
    return steep(0.0)


@pytest.mark.parametrize(
    ("inputs_dtype", "model_dtype"),
    [
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("name", MINIMUM_DISTANCE)
def test_in_half_precision_every_example_is_fooled_and_about_as_closely(
    plain, exact, name, inputs_dtype, model_dtype
):
    net, X, y = plain
    state = {key: value.to(model_dtype) for key, value in net.state_dict().items()}
    half = nn.Sequential(nn.Identity(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    half = half.to(model_dtype).eval()
    half.load_state_dict(state)
    inputs = X.to(inputs_dtype)
    with torch.no_grad():
        right = half(inputs.to(model_dtype)).argmax(dim=1) == y
    inputs, y = inputs[right], y[right]
    adversarial = attacked(name, half, inputs, y)
    assert adversarial.dtype == inputs_dtype
    with torch.no_grad():
        assert (half(adversarial.to(model_dtype)).argmax(dim=1) != y).all()
    distance = lp_norm(adversarial.float() - inputs.float(), norm_of(name)).median()
    assert distance <= 1.1 * exact(name)


# DeepFool in l2 knows no bounds: pixels at 0 with an infinite slope downwards take all of its step.
@pytest.mark.parametrize("name", [name for name in MINIMUM_DISTANCE if name != "deepfool-l2"])
def test_a_slope_without_end_is_followed(root, name):
    net, X, y = root
    assert (X == 0).any()
    adversarial = MINIMUM_DISTANCE[name](net, X, y)
    assert (net(adversarial).argmax(dim=1) != y).float().mean() >= 0.95


@pytest.mark.parametrize("shift", [1e-3, 1e-4, 1e-6, 0.0])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["carlini_wagner_l2", "carlini_wagner_linf"])
def test_a_slope_that_falls_on_the_way_does_not_hide_the_boundary(steep, name, targeted, shift):
    net, X, y = steep(shift)
    labels = (y + 1) % 10 if targeted else y
    adversarial = MINIMUM_DISTANCE[name](net, X, labels, targeted=targeted)
    assert ((net(adversarial).argmax(dim=1) == labels) == targeted).all()


class Planes(nn.Module):
    """Class 0 leads by ``1 - (t / t0)^p`` along the nearest of three normals: steep, then flat."""

    START, POWER = 1e-9, 0.25

    def __init__(self, normals: Tensor, middle: float, reach: float) -> None:
        super().__init__()
        self.normals, self.middle = normals, middle
        self.whole = reach**self.POWER

    def forward(self, inputs: Tensor) -> Tensor:
        along = (inputs - self.middle) @ self.normals.T + self.START
        # The distance at which a rival draws level, exactly: t = reach - START.
        rivals = 1 + along.clamp(min=self.START / 2) ** self.POWER / self.whole
        return torch.cat([inputs.new_full((len(inputs), 1), 2.0), rivals], dim=1)


@pytest.mark.parametrize("reach", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_boundary_far_beyond_what_the_slope_foretells_is_found_as_closely(norm, reach):
    dual = 2 if norm == "l2" else 1
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(3, 64, generator=generator)
    normals /= normals.norm(p=dual, dim=1, keepdim=True)
    reach = reach if norm == "l2" else reach / 2
    net = Planes(normals, 0.5, reach)
    X = torch.full((1, 64), 0.5)
    adversarial = MINIMUM_DISTANCE[f"carlini_wagner_{norm}"](net, X, torch.tensor([0]))
    assert net(adversarial).argmax() != 0
    assert lp_norm(adversarial - X, norm).item() == pytest.approx(reach, rel=0.01)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_slope_without_end_never_gives_nan(root, norm, momentum):
    net, X, y = root
    unjudged = partial(attacks.pgd, judge_last=False, random_start=False, early_stop=False)
    for attack in (partial(unjudged, steps=3, momentum=momentum), attacks.fgsm):
        assert attack(net, X, y, norm=norm, epsilon=0.1).isfinite().all()


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("name", MINIMUM_DISTANCE)
def test_logits_of_any_scale_are_attacked_alike(plain, name, scale):
    net, X, y = plain
    adversarial = MINIMUM_DISTANCE[name](lambda inputs: net(inputs) * scale, X, y)
    assert (net(adversarial).argmax(dim=1) != y).all()


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_a_length_is_right_at_every_scale(scale):
    delta = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64) * scale
    lengths = lp_norm(delta.float(), "l2")
    assert lengths[0].item() == pytest.approx(5 * scale, rel=1e-5, abs=0)
    assert lengths[1] == 0


@pytest.mark.parametrize("name", ["square", "pgd", "carlini_wagner_l2", "deepfool-l2", "jsma"])
def test_a_forward_that_works_in_place_changes_no_point_of_the_attack(plain, name):
    net, X, y = plain
    several = {
        **MINIMUM_DISTANCE,
        "square": partial(attacks.square, epsilon=0.2, norm="linf", queries=50, random_state=0),
        "pgd": partial(attacks.pgd, epsilon=0.2, steps=5, norm="linf", random_state=0),
        "jsma": partial(attacks.jsma, max_features=10),
    }

    def apart(inputs: Tensor) -> Tensor:
        return net((inputs - 0.5) * 2)

    def in_place(inputs: Tensor) -> Tensor:
        return net(inputs.sub_(0.5).mul_(2))

    torch.testing.assert_close(several[name](in_place, X, y), several[name](apart, X, y))


@pytest.mark.parametrize("dtype", HALF)
def test_probabilities_in_half_precision_are_refused(plain, dtype):
    net, X, y = plain
    with pytest.raises(ValueError, match="sum to 1"):
        attacks.pgd(lambda inputs: net(inputs).softmax(dim=1).to(dtype), X, y, epsilon=0.1)


def test_a_choice_that_cannot_be_hashed_is_refused(plain):
    net, X, y = plain
    with pytest.raises(ValueError, match="algorithm must be one of 'fast', 'paper', got"):
        attacks.carlini_wagner_l2(net, X, y, algorithm=["fast"])
