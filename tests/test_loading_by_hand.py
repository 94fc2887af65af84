"""How a saved network is built, checked and placed, for as little of an estimator as it takes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distillguard.exceptions import SaveError
from distillguard.networks import Rejecting
from distillguard.persistence import _saving
from distillguard.persistence._networks import built, check_width
from distillguard.persistence._saving import load, save


def estimator(**more):
    given = {
        "input_shape_": (4,), "classes_": [0, 1, 2], "_EXTRA_COLUMNS": {"student_": 1},
        "_default_module": lambda shape, n_classes: nn.Linear(*shape, n_classes),
    }  # fmt: skip
    return SimpleNamespace(**given | more)


STATE = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}


def test_a_network_is_built_for_the_shape_and_the_columns_of_its_attribute():
    state = torch.random.get_rng_state()
    for attribute, columns in (("model_", 3), ("student_", 4)):
        made = built("module", None, estimator(), STATE, attribute)
        assert made.weight.shape == (columns, 4)
        with torch.device("meta"):
            named = built("module", lambda s, n: nn.Linear(s[0], n), estimator(), STATE, attribute)
        assert named.weight.shape == (columns, 4)
        assert named.weight.device.type == "cpu"
    assert torch.random.get_rng_state().equal(state)
    own = nn.Linear(4, 3)
    for given in (own, SimpleNamespace(model_=own)):
        copy = built("module", given, estimator(), STATE, "model_")
        assert copy is not own
        assert copy.weight.equal(own.weight)


def broken(shape, n_classes):
    raise RuntimeError("no such layer")


@pytest.mark.parametrize(
    ("builder", "error", "message"),
    [
        (3, TypeError, "teacher must be an nn.Module or a callable, got int"),
        (lambda shape, n_classes: 7, TypeError, "teacher must return an nn.Module, .* returns int"),
        (
            broken,
            SaveError,
            r"teacher must build .* \(4,\) and 3 classes, got RuntimeError: no such",
        ),
        (lambda shape, n: nn.Linear(2**14, 2**13), SaveError, "weight of Linear, of shape"),
    ],
)
def test_what_builds_no_network_of_the_save_is_refused_by_its_name(builder, error, message):
    with pytest.raises(error, match=message):
        built("teacher", builder, estimator(), STATE, "model_")


class Counts(nn.Module):
    """Fails on shapes alone in any dtype but its own, and keeps a buffer that wants a gradient."""

    def __init__(self, columns):
        super().__init__()
        self.head = nn.Linear(4, columns).double()
        self.register_buffer("shift", torch.zeros(4, dtype=torch.float64).requires_grad_())

    def forward(self, inputs):
        return self.head(inputs + self.shift)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(4, 3), None),
        (nn.Linear(4, 2), "module must return one logit for each of the 3 saved classes, got 2"),
        (Counts(3), None),
        (Counts(5), "for each of the 3 saved classes, got 5"),
        (Rejecting(nn.Linear(4, 4)), None),
        (Rejecting(nn.Linear(4, 3)), "for each of the 3 saved classes, got 2"),
        (nn.Linear(5, 2), None),  # it cannot be asked so: whoever asks it will say
    ],
)
def test_a_width_is_checked_on_shapes_alone(network, message):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if message is None:
        check_width(network, "module", estimator())
    else:
        with pytest.raises(SaveError, match=message):
            check_width(network, "module", estimator())
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert all(value.device.type == "cpu" for value in network.state_dict().values())


class Kind:
    """As little of an estimator as a save needs."""

    model_: nn.Module
    _EXTRA_COLUMNS: dict = {}  # noqa: RUF012
    _default_module = staticmethod(lambda shape, n: nn.Conv2d(1, n, 2))

    @staticmethod
    def _get_param_names():
        return ["module"]

    def __init__(self, module=None):
        self.module, self.input_shape_, self.classes_ = module, (1, 2, 2), [0, 1, 2]

    def _assembled(self, attribute, network, saved):
        return network


@pytest.fixture
def kept(monkeypatch):
    """What was written to a folder, and how it is read."""
    held = SimpleNamespace(content={}, states={}, asked=[])
    monkeypatch.setattr(_saving._folder, "write", lambda path, *given: held.asked.append(given))
    monkeypatch.setattr(_saving._folder, "read", lambda path: (held.content, held.states))
    monkeypatch.setattr(_saving, "described", lambda estimator, networks: {"names": [*networks]})
    monkeypatch.setattr(_saving, "restored", lambda content, given: Kind(given["module"]))
    return held


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(1, 3, 2)

    def forward(self, inputs):
        return self.head(inputs).sum((2, 3))


def test_a_save_holds_the_answers_of_those_networks_alone_that_give_some(kept):
    for network, names in ((Sums(), ["model"]), (nn.Linear(9, 2), [])):
        one = Kind()
        one.model_ = network
        save(one, "folder")
        content, states = kept.asked[-1]
        assert content["names"] == ["model"]
        assert [*content["answers"]] == names
        assert states["model"].keys() == network.state_dict().keys()


def test_a_network_is_filled_laid_out_put_in_eval_mode_and_on_the_device(kept, monkeypatch):
    source = Sums()
    kept.states = {"model": source.state_dict()}
    kept.content = {"answers": {}, "channels_last": []}
    for layout in ([], ["model"]):
        kept.content["channels_last"] = layout
        found = load("folder", Sums())
        weight = found.model_.head.weight
        assert weight.equal(source.head.weight)
        assert not found.model_.training
        assert found.model_.head.training is False
    placed = []
    monkeypatch.setattr(Sums, "to", lambda self, *given, **more: placed.append(given) or self)
    for device, there, expected in (
        ("cpu", True, "cpu"), ("auto", False, "cpu"), ("auto", True, "cuda"),
        ("meta", True, "meta"),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        kept.content["channels_last"] = []
        load("folder", Sums(), device=device)
        assert placed[-1][0].type == expected
    kept.content["answers"] = {"other": {}}
    with pytest.raises(SaveError, match="must have networks at answers"):
        load("folder", Sums())
    kept.content["answers"], kept.states["more"] = {}, {}
    with pytest.raises(SaveError, match="must have model at networks"):
        load("folder", Sums())


def test_convolutions_lie_channels_last_where_the_save_says_so(kept):
    class Wide(Sums):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(2, 3, 2)

        def forward(self, inputs):
            return self.head(inputs.expand(-1, 2, -1, -1)).sum((2, 3))

    kept.states = {"model": Wide().state_dict()}
    for layout in ([], ["model"]):
        kept.content = {"answers": {}, "channels_last": layout}
        weight = load("folder", Wide()).model_.head.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is bool(layout)
