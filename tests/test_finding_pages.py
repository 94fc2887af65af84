"""The pages of the findings: their code runs as written, and does what the page says it does."""

import re
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from conftest import Cache, Turned, deaf, fitted
from distillguard import attacks, evaluate
from distillguard.functional import cross_entropy

PAGES = Path(__file__).parents[1] / "docs" / "findings"
CODES = sorted({page.stem for page in PAGES.glob("*.md")} - {"index"})
SECTIONS = ["Raised if", "What it means", "What to do", "When you can ignore it"]
EPSILON = 0.1
TRAINED = 1200


def text_of(code):
    return (PAGES / f"{code}.md").read_text(encoding="utf-8")


def blocks_of(code):
    found = re.findall(r"^( *)```python\n(.*?)^\1```$", text_of(code), re.DOTALL | re.MULTILINE)
    return [dedent(block) for _, block in found]


@pytest.mark.parametrize("code", CODES)
def test_a_page_says_when_why_what_to_do_and_when_not_to_worry(code):
    assert re.findall(r"^## (.*)$", text_of(code), re.MULTILINE) == SECTIONS
    remedy = text_of(code).partition("## What to do")[2].partition("## When")[0]
    assert "```python" in remedy


class Part(nn.Module):
    """A part of a model that is a function."""

    def __init__(self, function=torch.clone):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


class Defended(nn.Module):
    """A network between two parts, by the names that the pages use."""

    def __init__(self, network, front=torch.clone, softmax=torch.clone):
        super().__init__()
        self.front, self.network, self.softmax = Part(front), network, Part(softmax)

    def forward(self, inputs):
        return self.softmax(self.network(self.front(inputs)))


def rounded(inputs):
    return (4 * inputs).round() / 4


def backwards(inputs):
    return Turned.apply(inputs, -torch.ones_like(inputs))


def backwards_beyond_epsilon(inputs):
    """Inputs of 0 and 1 tell how far a point is from its own."""
    far = (inputs - inputs.round()).abs().amax(dim=1, keepdim=True) > EPSILON + 1e-4
    return Turned.apply(inputs, torch.where(far, -1.0, 1.0).expand_as(inputs))


def rippled(inputs):
    """The slope of the ripple is the same at all multiples of 1/16, as the data are."""
    return inputs + 0.001 * torch.sin(672 * torch.pi * inputs)


def noisy(inputs):
    return inputs + 0.1 * torch.randn_like(inputs)


def idle(model, inputs, labels):
    return inputs


def failing(model, inputs, labels):
    raise RuntimeError


def step(model, x, labels):
    """Forty of them stay within epsilon."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(x), labels).sum(), x)
    return (x + EPSILON / 40 * gradient.sign()).clamp(0, 1).detach()


def forgetful(model, inputs, labels):
    x = inputs
    for _ in range(40):
        x = step(model, x, labels)
    model(x)
    return inputs


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y)


@pytest.fixture(scope="module")
def network(digits):
    X, y = digits
    return fitted(X[:TRAINED], y[:TRAINED])


@pytest.fixture(scope="module")
def reader(digits, network):
    """What the reader of a page has, under the names of the pages, with ``n`` examples."""

    def has(n=24, **others):
        X, y = (part[TRAINED:][:n] for part in digits)
        known = {"model": network, "X": X, "y": y, "epsilon": EPSILON}
        own = {"attack": idle, "step": step, "surrogate": network, "X_train": digits[0][:500]}
        return known | own | others

    return has


def evaluated(names, **settings):
    given = {"epsilon": names["epsilon"], "diagnosis": "full", "random_state": 0} | settings
    return evaluate(names["model"], names["X"], names["y"], **given)


def severities(report):
    return {finding.code: finding.severity for finding in report.findings}


def remedied(code, names, **settings):
    """What the page's code makes of a model that shows the finding: the reports, that before first.

    A block is run with the names of those above it; some make no report.
    """
    reports = [evaluated(names, **settings)]
    assert code in severities(reports[0])
    for block in blocks_of(code):
        names.pop("report", None)
        exec(compile(block, code, "exec"), names)
        reports += [names["report"]] if "report" in names else []
    return reports


QUICK = {"attacks": "quick"}
WEAK = {"attacks": [idle]}


@pytest.mark.parametrize(
    ("code", "parts", "settings"),
    [
        ("attack-fails-its-own-test", {}, WEAK),
        ("attack-raised", {}, {"attacks": ["fgsm", failing]}),
        ("gradient-vanishes-at-bounds", {"front": deaf}, QUICK),
        ("interrupted-graph", {"front": torch.Tensor.detach}, WEAK),
        ("more-steps-help", {}, WEAK),
        ("one-step-beats-iterative", {"front": rippled}, QUICK),
        ("outside-threat-model", {}, {"attacks": partial(attacks.pgd, epsilon=0.3)}),
        ("probabilities-not-logits", {"softmax": partial(torch.softmax, dim=1)}, QUICK),
        ("silent-success", {}, {"attacks": [forgetful]}),
    ],
)
def test_the_code_of_a_page_ends_the_finding(reader, network, code, parts, settings):
    names = reader(model=Defended(network, **parts))
    names["x"] = names["X"].clone().requires_grad_()
    before, *reports = remedied(code, names, **settings)
    assert reports
    for report in reports:
        assert code not in severities(report)
        assert report.robust_accuracy <= before.robust_accuracy


def loud(logits):
    return 1000 * logits


@pytest.mark.parametrize(
    ("code", "parts", "settings"),
    [
        ("black-box-beats-white-box", {"front": backwards}, {"n": 16, **QUICK}),
        ("margin-beats-cross-entropy", {"softmax": loud}, {"attacks": "pgd"}),
        ("noise-beats-gradient", {"front": backwards}, {"epsilon": 0.3, "n": 40, **QUICK}),
        ("transfer-beats-white-box", {"front": backwards}, {"surrogate": None, **QUICK}),
        ("unbounded-attack-fails", {"front": backwards}, {"n": 40, **QUICK}),
        ("zero-gradients", {"softmax": loud}, {"attacks": "pgd"}),
        ("zero-gradients", {"front": rounded}, QUICK),
    ],
)
def test_where_the_finding_is_about_the_model_the_code_of_its_page_lowers_the_figure(
    reader, network, code, parts, settings
):
    settings = dict(settings)
    names = reader(model=Defended(network, **parts), n=settings.pop("n", 24))
    names["epsilon"] = settings.get("epsilon", EPSILON)
    if "surrogate" in settings:
        settings["surrogate"] = names["surrogate"]
    before, *reports = remedied(code, names, **settings)
    assert min(report.robust_accuracy for report in reports) < before.robust_accuracy - 0.2


def test_a_nearest_example_is_looked_for_as_the_page_says(reader, digits):
    X, y = digits
    steep = Part(lambda inputs: torch.sigmoid(50 * (inputs - 0.5)))
    names = reader(model=fitted(X[:TRAINED], y[:TRAINED], steep), n=100, epsilon=0.9)
    margin = partial(attacks.pgd, loss="margin")
    before, after = remedied("minimum-distance-beats-pgd", names, norm="l2", attacks=margin)
    assert "minimum-distance-beats-pgd" not in severities(after)
    assert after.robust_accuracy < before.robust_accuracy - 0.1


def test_where_more_budget_does_not_help_a_replacement_does(reader, digits):
    X, y = digits
    model = Defended(fitted(X[:TRAINED].round(), y[:TRAINED]), backwards_beyond_epsilon)
    names = reader(model=model, n=40)
    names["X"] = names["X"].round()
    _, after = remedied("more-budget-does-not-help", names, **QUICK)
    assert "more-budget-does-not-help" not in severities(after)


def test_a_missing_normalisation_is_put_inside_as_the_page_says(reader, network):
    whole = nn.Sequential(nn.Flatten(), network)
    names = reader(model=Defended(whole, lambda inputs: 0.3530 * inputs + 0.2860), n=60)
    names["X"] = names["X"].view(-1, 1, 8, 8)
    before, after = remedied("normalisation-missing", names, **QUICK)
    assert "normalisation-missing" not in severities(after)
    assert after.clean_accuracy > before.clean_accuracy + 0.2


def test_draws_make_of_a_random_model_one_that_is_judged_by_its_mean(reader, network):
    names = reader(model=Defended(network, noisy))
    before, after, _ = remedied("unstable-predictions", names, **QUICK)
    assert severities(before)["unstable-predictions"] == "severe"
    assert severities(after).get("unstable-predictions") != "severe"


def test_copies_make_of_a_model_that_remembers_one_that_does_not(reader, network):
    before = evaluated(reader(model=Cache(network, radius=0.8)), **QUICK)
    assert severities(before)["unstable-predictions"] == "severe"
    names = reader(model=Cache(network, radius=0.8), evaluate=evaluate)
    exec(blocks_of("unstable-predictions")[1], names)
    assert "unstable-predictions" not in severities(names["report"])
    assert names["report"].robust_accuracy < before.robust_accuracy


def test_logits_divided_by_the_temperature_give_probabilities_again(reader, network):
    names = reader(model=Defended(network, softmax=lambda logits: 100 * logits))
    assert len(remedied("saturated-softmax", names, **QUICK)) == 1
    torch.testing.assert_close(names["probabilities"], network(names["X"]).softmax(dim=1))


def test_the_clamp_of_the_page_has_a_gradient_at_the_bounds():
    x = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], requires_grad=True)
    names = {"x": x}
    exec(blocks_of("gradient-vanishes-at-bounds")[0], names)
    assert names["x"].equal(x.clamp(0, 1))
    names["x"].sum().backward()
    assert x.grad.equal(torch.ones_like(x))
