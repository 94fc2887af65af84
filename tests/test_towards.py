"""A search along the way to other examples, and what falls to it: models that measure distances."""

from functools import partial

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from distillguard import attacks, datasets, evaluate
from distillguard.evaluation import _adapted_forms
from distillguard.evaluation._ours import masked
from distillguard.evaluation._towards import NEAREST, towards

N = 50
PGD = {"PGD": partial(attacks.pgd, loss="margin", steps=40)}
SETTINGS = {"attacks": PGD, "diagnosis": "brief", "random_state": 0}
RADII = {"linf": 0.2, "l2": 0.9, "l1": 4.0, "l0": 6}


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """What other forms of the model cost is of no interest here."""
    monkeypatch.setattr(_adapted_forms, "QUESTIONS", 100)
    monkeypatch.setattr(_adapted_forms, "QUERIES", 5)


@pytest.fixture(scope="module")
def train():
    inputs, labels = datasets.load_digits("train")
    return inputs.flatten(1), labels


@pytest.fixture(scope="module")
def data():
    inputs, labels = datasets.load_digits("test")
    return inputs[:N].flatten(1), labels[:N]


class Radial(nn.Module):
    """Sums of exponentials of squared distances, most of which are less than one rounding."""

    def __init__(self, inputs, labels):
        super().__init__()
        self.register_buffer("known", inputs.double())
        self.members = nn.functional.one_hot(labels, 10).double()

    def exponents(self, x):
        return -20 * torch.cdist(x.double(), self.known) ** 2

    def forward(self, x):
        return (self.exponents(x).exp() @ self.members).float()

    def inside(self, x):
        """The same comparison of classes, where nothing underflows."""
        hidden = torch.where(self.members.T[:, None] > 0, 0.0, -torch.inf)
        return (self.exponents(x) + hidden).logsumexp(dim=2).T


def test_sums_of_exponentials_fall_along_their_logarithms(train, data):
    model = Radial(*(part[:500] for part in train))
    labels = data[1]
    points = attacks.pgd(model.inside, *data, epsilon=0.2, loss="margin", random_state=0)
    left = (model(points).argmax(dim=1) == labels).double().mean().item()
    blind = evaluate(model, *data, epsilon=0.2, adapt=False, **SETTINGS)
    report = evaluate(model, *data, epsilon=0.2, adapt=True, **SETTINGS)
    assert blind.quoted_accuracy > left + 0.3
    assert report.quoted_accuracy <= left + 0.05
    assert "logarithms of its answers" in report.adaptation.remedies[0]


def test_answers_below_zero_have_no_logarithms(train, data):
    model = Radial(*(part[:200] for part in train))
    below = nn.Sequential(model, Less())
    report = evaluate(below, *data, epsilon=0.2, adapt=True, **SETTINGS)
    assert report.adaptation.remedies
    assert not any("logarithms" in remedy for remedy in report.adaptation.remedies)


class Less(nn.Module):
    """A little, which leaves the largest score above 0."""

    def forward(self, scores):
        return scores - 1e-30


@pytest.fixture(scope="module")
def neighbours(train):
    inputs, labels = train
    fitted = KNeighborsClassifier(5).fit(inputs.numpy(), labels.numpy())
    return lambda x: torch.tensor(fitted.predict_proba(x.detach().numpy()), dtype=torch.float32)


def nearest_point(start, goal, norm, radius):
    """The point of the ball that is nearest to the goal, by bisection on its conditions."""
    gap = goal - start
    if norm == "linf":
        return start + gap.clamp(-radius, radius)
    if norm == "l2":
        return start + gap * min(1, radius / gap.norm())
    if norm == "l0":
        kept = gap.abs() >= gap.abs().sort(descending=True).values[radius - 1]
        return torch.where(kept, goal, start)
    low, high = torch.tensor(0.0), gap.abs().max()
    for _ in range(60):
        level = (low + high) / 2
        over = (gap.abs() - level).clamp(min=0).sum() > radius
        low, high = (level, high) if over else (low, level)
    return start + gap.sign() * (gap.abs() - high).clamp(min=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nearest_neighbours_fall_wherever_a_point_towards_an_example_fools(norm, neighbours, data):
    inputs, labels = data
    radius = RADII[norm] * 0.75
    report = evaluate(neighbours, *data, norm=norm, epsilon=radius, adapt=True, **SETTINGS)
    right = neighbours(inputs).argmax(dim=1) == labels
    left = right.clone()
    for row, (start, label) in enumerate(zip(inputs, labels, strict=True)):
        points = [nearest_point(start, goal, norm, radius * (1 - 1e-6)) for goal in inputs]
        left[row] &= bool((neighbours(torch.stack(points)).argmax(dim=1) == label).all())
    assert left.sum() < right.sum()
    assert report.quoted_accuracy <= left.double().mean()
    assert any(f"the {NEAREST} nearest examples" in told for told in report.adaptation.remedies)


def test_a_random_model_is_not_searched(neighbours, data):
    """Each question costs many draws, and of many answers one fools by chance."""
    report = evaluate(
        lambda x: neighbours(x + 0.3 * torch.randn_like(x)),
        *(part[:25] for part in data),
        epsilon=0.1,
        adapt=True,
        **SETTINGS,
    )
    assert {"unstable-predictions", "interrupted-graph"} <= {each.code for each in report.findings}
    assert report.adaptation.attacks
    assert not any(row.name.startswith("Other examples") for row in report.adaptation.attacks)


class Recorded(nn.Module):
    """Answers with the class of the nearest goal, and keeps what it is asked about."""

    def __init__(self, goals, classes):
        super().__init__()
        self.goals, self.classes, self.asked = goals, classes, []

    def forward(self, x):
        self.asked.append(x.clone())
        told = self.classes[torch.cdist(x, self.goals).argmin(dim=1)]
        return nn.functional.one_hot(told, 3).float()


@pytest.fixture
def flock():
    torch.manual_seed(0)
    return torch.rand(80, 12), torch.arange(80) % 3


@pytest.mark.parametrize("norm", RADII)
def test_each_question_is_the_point_of_the_ball_nearest_to_the_next_goal(norm, flock):
    goals, classes = flock
    start, label = goals[:1].clone(), classes[:1]
    silent = Recorded(goals, torch.full_like(classes, int(label)))
    settings = {"goals": goals, "classes": classes, "epsilon": RADII[norm], "norm": norm}
    towards(silent, start, label, **settings)
    others = goals[classes != label]
    order = (others - start).norm(dim=1).argsort()[:NEAREST]
    expected = [nearest_point(start[0], others[i], norm, RADII[norm]) for i in order]
    torch.testing.assert_close(torch.cat(silent.asked), torch.stack(expected))
    assert len(silent.asked) == NEAREST


@pytest.mark.parametrize("norm", RADII)
def test_what_is_excluded_stays_as_it_is_and_uses_up_nothing(norm, flock):
    goals, classes = flock
    start, label, mask = goals[:1], classes[:1], torch.arange(12) < 8
    silent = Recorded(goals, torch.full_like(classes, int(label)))
    settings = {"goals": goals, "classes": classes, "epsilon": RADII[norm], "norm": norm}
    masked(partial(towards, **settings), mask[None])(silent, start, label)
    others = goals[classes != label]
    order = (others - start).norm(dim=1).argsort()[:NEAREST]
    inside = [nearest_point(start[0, :8], others[i, :8], norm, RADII[norm]) for i in order]
    asked = torch.cat(silent.asked)
    torch.testing.assert_close(asked[:, :8], torch.stack(inside))
    assert bool((asked[:, 8:] == start[:, 8:]).all())


def test_what_is_fooled_is_not_asked_about_again(flock):
    goals, classes = flock
    model = Recorded(goals, classes)
    settings = {"goals": goals, "classes": classes, "epsilon": 1.0, "norm": "linf"}
    points = towards(model, goals[:6], classes[:6], **settings)
    assert [len(each) for each in model.asked] == [6]
    assert bool((model(points).argmax(dim=1) != classes[:6]).all())


def test_of_points_that_do_not_fool_the_one_of_the_widest_margin_comes_back(flock):
    goals, classes = flock
    asked = []

    def sure(x):
        asked.append(x.clone())
        return torch.stack([0 * x[:, 0] + 9, x[:, 0]], dim=1)

    settings = {"goals": goals, "classes": classes, "epsilon": 0.2, "norm": "linf"}
    points = towards(sure, goals[:1], classes[:1], **settings)
    assert len(asked) == NEAREST
    assert points[0, 0] == torch.cat(asked)[:, 0].max()


def test_a_tie_is_no_success(flock):
    goals, classes = flock
    asked = []

    def level(x):
        asked.append(x.clone())
        lead = 0.0 if len(asked) == 1 else 1.0
        return torch.tensor([[0.0, lead]]).expand(len(x), 2)

    settings = {"goals": goals, "classes": classes, "epsilon": 0.2, "norm": "linf"}
    points = towards(level, goals[:1], classes[:1], **settings)
    assert len(asked) == 2
    assert torch.equal(points, asked[1])


def test_a_point_that_is_rejected_is_no_success(flock):
    goals, classes = flock
    model = Recorded(goals, torch.where(classes == 0, 0, 2))
    model.rejects = True
    settings = {"goals": goals, "classes": classes, "epsilon": 1.0, "norm": "linf"}
    towards(model, goals[:1], classes[:1], **settings)
    assert len(model.asked) > NEAREST / 2


def test_no_example_of_another_class_is_no_question(flock):
    goals, _ = flock
    same = torch.zeros(len(goals), dtype=torch.int64)
    model = Recorded(goals, same)
    points = towards(model, goals, same, goals=goals, classes=same, epsilon=0.1, norm="linf")
    assert torch.equal(points, goals)
    assert not model.asked
