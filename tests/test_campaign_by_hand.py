"""Attacks again, on forms of a model: whom they meet, what they spend, and what is told of them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillguard._data import Chunk
from distillguard.evaluation import _adaptation
from distillguard.evaluation._adaptation import Campaign, adapt, attempted, chunks_at_hand
from distillguard.evaluation._adapted_forms import FORMS, PART, SEARCH, TOWARDS, Form
from distillguard.evaluation._judge import ThreatModel
from distillguard.evaluation._stand_ins import BeforeHead, over_parts
from distillguard.evaluation.diagnosis._findings import Finding
from distillguard.networks import Logits
from test_forms_by_hand import Cut, subject_of
from test_run_by_hand import Above

FIVE = torch.tensor([[0.125], [0.25], [0.3125], [0.375], [0.4375]])


def subject(model=None, **settings):
    return subject_of(
        model or Above(), FIVE.clone(), ThreatModel("linf", 0.25, (0.0, 1.0)), **settings
    )


def finding(code, severity="severe", **figures):
    return Finding(code, severity, "", "", "", figures)


def by(step):
    def attack(model, inputs, labels):
        model(inputs)
        return inputs + step

    return attack


def form(made=None, attacks=None, label="in a form", **told):
    def build(subject):
        return subject.base

    steps = {"a": by(0.125), "b": by(0.25)} if attacks is None else attacks
    return Form(label, made or build, lambda subject: steps, **told)


STANDING = torch.tensor([True, True, True, False, True])


def test_a_form_is_attacked_by_each_attack_on_what_those_before_it_left():
    campaign = Campaign(subject(), STANDING, ["before"])
    campaign.attack(form(own="its own way"))
    one, other = campaign.rows
    # 0.125 takes the last over the half, 0.25 the third too: 0.25 and a quarter is a tie.
    assert (one.name, one.attacked, one.fooled) == ("a, in a form", 4, 1)
    assert (other.name, other.attacked, other.fooled) == ("b, in a form", 3, 1)
    assert (one.forwards, one.robust_accuracy) == (2.0, 3 / 5)
    assert campaign.remedies == ["its own way: 2 of 4 fooled"]
    assert campaign.standing.tolist() == [True, True, False, False, False]
    told = campaign.outcome(("x", "y"))
    assert (told.standing, told.attacked, told.fooled) == (4, 4, 2)
    assert (told.findings, told.failed) == (("x", "y"), ("before",))
    assert (told.remedies, told.attacks) == (tuple(campaign.remedies), (one, other))


def test_a_form_that_leaves_nothing_is_attacked_no_further():
    campaign = Campaign(subject(), STANDING, [])
    campaign.attack(form(attacks={"all": by(0.25), "more": by(0.25)}))
    assert [row.name for row in campaign.rows] == ["all, in a form", "more, in a form"]
    campaign = Campaign(subject(), torch.tensor([False] * 4 + [True]), [])
    campaign.attack(form(attacks={"all": by(0.25), "more": by(0.25)}))
    assert [row.name for row in campaign.rows] == ["all, in a form"]


@pytest.mark.parametrize(("least", "runs"), [(4, True), (5, False)])
def test_a_dear_form_is_made_where_enough_is_left(least, runs):
    made = []
    campaign = Campaign(subject(), STANDING, [])
    campaign.attack(form(lambda subject: made.append(1), least=least))
    assert bool(made) == runs
    assert (campaign.rows, campaign.remedies) == ([], [])  # there is no such form


def test_a_form_that_cannot_be_made_is_told_of_and_memory_that_ran_out_is_raised():
    def raising(error):
        def made(subject):
            raise error

        return form(made)

    campaign = Campaign(subject(), STANDING, [])
    campaign.attack(raising(KeyError("x")))
    assert campaign.failed == ["in a form, the model raised KeyError: 'x'"]
    with pytest.raises(MemoryError):
        campaign.attack(raising(MemoryError()))


def test_another_model_is_told_by_what_it_says_of_itself():
    class Adapted(Above):
        adaptation = "a student"

    campaign = Campaign(subject(), STANDING, [])
    campaign.attack(form(lambda subject: Adapted(), own="its own way"))
    campaign.attack(form(lambda subject: Above(), label="b", own="the other way"))
    assert campaign.remedies == ["a student: 2 of 4 fooled", "the other way: 0 of 2 fooled"]


def test_what_an_attack_spends_is_its_own_and_its_error_ends_it():
    held, asked = subject(), []
    held.run.records.cost(PART).add(100, 50, 9.0)

    def attack(model, inputs, labels):
        asked.append(len(inputs))
        if len(asked) == 2:
            raise OSError("out")
        model(inputs.clone().requires_grad_()).sum().backward()
        return inputs + 0.25

    part = attempted(held, "a", attack, held.base, STANDING)
    # Chunks of three, of which the second is never judged.
    assert asked == [3, 1]
    assert part.places.tolist() == [0, 1, 2]
    assert part.verdict.fooled.tolist() == [False, False, True]
    assert part.error == "OSError: out"
    assert (part.cost.forwards, part.cost.backwards) == (3 + 3, 3)
    assert part.cost.seconds < 9
    spent = held.run.records.costs[PART]
    assert (spent.forwards, spent.backwards) == (106, 53)

    def full(model, inputs, labels):
        raise MemoryError

    with pytest.raises(MemoryError):
        attempted(held, "a", full, held.base, STANDING)


def test_of_what_is_left_each_process_takes_every_so_manieth():
    held = subject()
    for count, expected in ((1, [[[0, 1, 2], [4]]]), (2, [[[0, 2]], [[1], [4]]])):
        for rank, places in enumerate(expected):
            held.processes = SimpleNamespace(rank=rank, count=count)
            chunks = list(chunks_at_hand(held, STANDING))
            assert [chunk.places.tolist() for chunk in chunks] == places
            for chunk in chunks:
                assert isinstance(chunk, Chunk)
                assert chunk.inputs.equal(FIVE[chunk.places])
                assert len(chunk.labels) == len(chunk.places)
    held.processes = SimpleNamespace(rank=0, count=1)
    assert list(chunks_at_hand(held, ~STANDING & False)) == []


class Noted(Campaign):
    """Notes the forms that it is given."""

    def attack(self, form):
        self.given.append(form)
        self.subject.run.records.cost(PART).add(3, 2, 1.0)


def adapted(monkeypatch, *found, fallen=(), standing=True):
    held = subject().run
    held.records.add({"a/fooled": torch.tensor([not standing] * 5)})
    held.records.columns["predicted"].zero_()
    held.attacks = {"a": SimpleNamespace(attack=by(0), near=None)}
    held.fooled_by_diagnosis = torch.tensor(fallen, dtype=torch.int64)
    Noted.given = []
    monkeypatch.setattr(_adaptation, "Campaign", Noted)
    told = adapt(held, found, subject().data, 3, None, subject().processes)
    return told, Noted.given, held


RANDOM = finding("unstable-predictions", logit_gap=0.5, changed=0.5)


def test_findings_are_answered_by_forms_in_their_order(monkeypatch):
    found = finding("interrupted-graph"), finding("single-step-beats-iterative", "notice")
    told, given, held = adapted(monkeypatch, *found, fallen=(1, 3))
    assert given == [form for form in FORMS if form in given]
    assert SEARCH in given
    assert TOWARDS in given
    assert told.findings[0] == "interrupted-graph"
    # Two had fallen to the diagnosis.
    assert (told.standing, told.fooled, told.failed) == (3, 0, ())
    assert held.records.costs[PART].forwards == 3 * len(given)
    told, given, _ = adapted(monkeypatch, *found, RANDOM)
    assert SEARCH not in given
    assert TOWARDS not in given


def test_nothing_is_adapted_without_a_remedy_or_without_anybody_left(monkeypatch):
    told, given, held = adapted(monkeypatch, finding("low-success", "notice"))
    assert (told, given) == (None, [])
    assert PART not in held.records.costs
    told, given, _ = adapted(monkeypatch, finding("interrupted-graph"), standing=False)
    assert (told, given) == (None, [])


def test_what_cannot_be_helped_is_said_if_it_is_severe(monkeypatch):
    told, given, held = adapted(monkeypatch, finding("silent-success"))
    assert given == []
    assert told.findings == ()
    assert told.failed == ("no attack is adapted to silent-success",)
    assert PART not in held.records.costs
    told, _, _ = adapted(monkeypatch, finding("silent-success", "notice"))
    assert told is None
    broken = finding("unstable-predictions", batch_gap=0.5)
    told, _, _ = adapted(monkeypatch, finding("silent-success"), broken)
    assert told.failed == ("no attack is adapted to silent-success and unstable-predictions",)


# Parts that hide a gradient.


def test_every_part_that_hides_the_gradient_is_stepped_over_and_no_other():
    x = torch.rand(4, 3)
    network = nn.Sequential(
        Cut(), nn.Linear(3, 3), nn.Sequential(nn.Tanh(), Cut()), nn.Linear(3, 2)
    )
    found = over_parts(network, network, x)
    asked = x.clone().requires_grad_()
    found(asked).sum().backward()
    plain = nn.Sequential(network[1], network[2][0], network[3])
    other = x.clone().requires_grad_()
    plain(other).sum().backward()
    torch.testing.assert_close(asked.grad, other.grad)
    torch.testing.assert_close(found(x), network(x))
    assert over_parts(plain, plain, x) is None
    assert over_parts(lambda x: x.detach(), lambda x: x.detach(), x) is None
    # One that changes the shape cannot be taken for the identity.
    narrow = nn.Sequential(nn.Linear(3, 2), nn.Flatten(), Halved())
    assert over_parts(narrow, narrow, x) is None


class Halved(nn.Module):
    """Half as many values, without a gradient."""

    def forward(self, inputs):
        return torch.cat([inputs, inputs], dim=1).detach()


def test_a_model_that_fails_behind_what_is_inside_answers_with_it():
    class Numpy(nn.Module):
        def __init__(self, before):
            super().__init__()
            self.layer, self.before = nn.Linear(3, 2), before

        def forward(self, inputs):
            if self.before:
                raise RuntimeError("before")
            return self.layer(inputs).numpy()

    x = torch.rand(4, 3).requires_grad_()
    model = Numpy(False)
    head = BeforeHead(model, model.layer)
    assert head(x).equal(model.layer(x))
    assert head.adaptation == "the output of its Linear in place of its own"
    assert not model.layer._forward_hooks
    broken = Numpy(True)
    with pytest.raises(RuntimeError, match="before"):
        BeforeHead(broken, broken.layer)(x)
    assert not broken.layer._forward_hooks


def test_the_base_of_a_model_of_probabilities_are_their_logarithms():
    held = subject(lambda x: Above()(x).softmax(dim=1))
    assert not isinstance(held.base, Logits)
    again = subject(lambda x: Above()(x).softmax(dim=1), remembers=True)
    again.run.model.takes_logarithm = True
    again.run.unasked = lambda x: Above()(x).softmax(dim=1)
    assert isinstance(again.base, Logits)
    torch.testing.assert_close(again.base(FIVE).diff(dim=1), 2 * FIVE - 1)
    assert again.counted(again.base).takes_logarithm is False
    assert again.counted(again.base).account is again.run.model.account
