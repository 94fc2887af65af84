"""What is told of models and attacks, so that another process knows whether it is the same."""

import math
import random
from collections import OrderedDict
from functools import partial, wraps
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import attacks
from distillguard._identity import (
    BYTECODE,
    Describer,
    difference,
    hash_of_weights,
    without_bytecode,
)

# Values.


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "3"),
        (np.float64(0.5), "0.5"),
        (np.bool_(True), "True"),
        ("text", "'text'"),
        (None, "None"),
        (torch.float32, "torch.float32"),
        (range(3), "range(0, 3)"),
        ([1, [2, "a"]], ["1", ["2", "'a'"]]),
        ((1,), ["1"]),
        ({3, 1, 2}, ["1", "2", "3"]),
        ({"b": 1, "a": (2,)}, {"'a'": ["2"], "'b'": "1"}),
        (math.cos, "math.cos"),
        (math, "math"),
        (len, "builtins.len"),
        (nn.Linear, "torch.nn.modules.linear.Linear"),
        (np.array(["a", "b"]), ["'a'", "'b'"]),
        (np.array([1 + 2j], dtype=object), ["(1+2j)"]),
    ],
)
def test_plain_values_are_told_as_they_are(value, told):
    assert Describer()(value) == told


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.zeros(2), False),
        (torch.ones(2), torch.ones(2, 1), False),
        (torch.ones(2), np.ones(2, dtype=np.float32), True),
        (np.ones(2), np.ones(2).astype(">f8"), False),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3, order="A")[:, ::1], True),
        (np.arange(4)[::2], np.array([0, 2]), True),
        (OrderedDict(a=1, b=2), {"b": 2, "a": 1}, True),
        (partial(attacks.pgd, epsilon=0.1), partial(attacks.pgd, epsilon=0.2), False),
        (partial(attacks.pgd, epsilon=0.1), partial(attacks.pgd, epsilon=0.1, batch_size=7), True),
        (
            partial(attacks.pgd, epsilon=0.1),
            partial(attacks.pgd, epsilon=0.1, loss="margin"),
            False,
        ),
        (attacks.fgsm, attacks.pgd, False),
        (attacks.fgsm, attacks.fgsm, True),
    ],
)
def test_what_does_the_same_is_told_alike(one, other, alike):
    assert (Describer()(one) == Describer()(other)) is alike


def test_what_has_no_order_is_told_in_one():
    parts = [partial(len), partial(max), partial(min, 3)]
    assert Describer()(set(parts)) == Describer()(frozenset(reversed(parts)))
    assert len(Describer()(set(parts))) == 3


def test_what_leads_back_to_itself_or_deep_down_is_told_and_ends():
    loop = [1]
    loop.append(loop)
    assert Describer()(loop) == ["1", "the same list"]
    deep = 1
    for _ in range(60):
        deep = [deep]
    describer, depth = Describer(), 0
    found = describer(deep)
    while isinstance(found, list):
        found, depth = found[0], depth + 1
    assert (found, depth) == ("builtins.list", 39)
    assert describer.notes == ["a builtins.list is told by its type alone"]
    # Depth is that of one value: the next one starts at the top.
    assert describer([["x"]]) == [["'x'"]]
    again = [2]
    assert Describer()([again, again]) == [["2"], "the same list"]
    assert Describer()([torch.ones(2)] * 2)[0].startswith("tensor float32 (2,)")
    twice = Describer()([torch.ones(2)] * 2)
    assert twice[0] == twice[1]


@pytest.mark.parametrize("kind", [str, list, dict])
def test_of_much_data_a_hash_is_kept(kind):
    def described(n, last):
        value = {str: "x" * (n - 3) + last, list: ["x" * 5] * (n // 11) + [last],
                 dict: {str(k): last for k in range(n // 8)}}[kind]  # fmt: skip
        return Describer()(value)

    assert isinstance(described(100, "a"), type(kind()) if kind is not str else str)
    long = described(4000, "a")
    assert isinstance(long, str)
    assert long.split()[1] == {str: "letters", list: "entries", dict: "entries"}[kind]
    assert long != described(4000, "b")
    assert long == described(4000, "a")
    if kind is str:
        assert described(1998, "a") == repr("x" * 1995 + "a")
        assert described(2001, "a").startswith("2001 letters ")


def test_what_has_no_value_to_tell_is_noted_by_its_type():
    for value, name in (
        (torch.Generator(), "torch._C.Generator"),
        (random.Random(0), "random.Random"),
        (object(), "builtins.object"),
        (iter([]), "builtins.list_iterator"),
    ):
        describer = Describer()
        assert describer(value) == name
        assert describer.notes == [f"a {name} is told by its type alone"]
    assert Describer()(complex) == "builtins.complex"


# Objects, functions, modules.


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a = a


def test_an_object_is_told_by_its_class_and_attributes():
    found = Describer()(Slotted(3))
    assert found["attributes"] == {"a": "3"}
    assert "Slotted" in str(found["object"])
    space = Describer()(SimpleNamespace(x=1, y=torch.ones(1)))
    assert space["attributes"]["x"] == "1"
    # Without its data: code and tensors alone.
    bare = Describer(data=False)(SimpleNamespace(x=1, y=torch.ones(1), z=[len, 2], w={"a": 3}))
    assert sorted(bare["attributes"]) == ["y", "z"]


OFFSET = 2


def shifted(x, by=1):
    return x + by + OFFSET


def made(k):
    def inner(x):
        return x * k

    return inner


def decorated(function):
    @wraps(function)
    def wrapper(*given):
        return function(*given)

    return wrapper


def test_a_function_is_told_by_its_code_defaults_closure_and_globals(monkeypatch):
    before = Describer()(shifted)
    assert before["function"].endswith("shifted")
    assert before["defaults"] == {"by": "1"}
    assert before["globals"] == {"OFFSET": "2"}
    assert len(before[BYTECODE]) == 16
    monkeypatch.setitem(globals(), "OFFSET", 3)
    assert Describer()(shifted)["globals"] == {"OFFSET": "3"}
    assert Describer(data=False)(shifted).keys() == {"function", BYTECODE}
    assert Describer()(made(3))["closure"] == {"k": "3"}
    assert Describer()(made(3)) == Describer()(made(3)) != Describer()(made(4))
    assert Describer()(decorated(shifted)) != Describer()(decorated(made(3)))
    sets = [lambda x: x in {"a", "b"}, lambda x: x in {"b", "a"}, lambda x: x in {"a", "c"}]
    one, other, third = (Describer()(each)[BYTECODE] for each in sets)
    assert one == other != third
    nested = Describer()(lambda x: [OFFSET + each for each in x])
    assert nested["globals"] == {"OFFSET": "3"}
    method = Describer()(Slotted(5).__init__)
    assert method["object"]["attributes"] == {"a": "5"}


def test_code_within_code_is_told_by_what_it_does_wherever_it_lies():
    source = "def outer(xs):\n    return [(lambda y: y + {})(x) for x in xs]\n"
    made = []
    for number in (1, 1, 2):
        made.append(space := {"__name__": "somewhere"})
        exec(compile("\n" * len(made) + source.format(number), f"{len(made)}.py", "exec"), space)
    one, other, third = (Describer()(space["outer"])[BYTECODE] for space in made)
    assert one == other != third


class Head(nn.Linear):
    scale = 2

    def __init__(self, *given):
        super().__init__(*given)
        self.extra, self._hidden = 7, 8

    @property
    def twice(self):
        return 2 * self.extra

    @staticmethod
    def still(x):
        return x


def test_a_module_is_told_by_its_classes_weights_and_public_attributes():
    torch.manual_seed(0)
    network = nn.Sequential(Head(2, 2), nn.ReLU())
    found = Describer()(network)
    assert found["class"] == "torch.nn.modules.container.Sequential"
    assert found["weights"] == hash_of_weights(network)
    own = found["attributes"]["0"]
    assert own["extra"] == "7"
    assert not {"_hidden", "training"} & own.keys()
    (name,) = (name for name in found["classes"] if "Head" in name)
    members = found["classes"][name]["members"]
    assert {"Head.__init__", "Head.scale", "Head.twice", "Head.still"} <= members.keys()
    assert "Head.__module__" not in members
    assert found["classes"]["torch.nn.modules.activation.ReLU"].endswith("ReLU")
    assert "attributes" not in Describer(data=False)(network)
    network.train(not network.training)
    assert Describer()(network) == found
    assert hash_of_weights(nn.ReLU()) == "none"
    lazy = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 2, device="meta"))
    assert hash_of_weights(lazy) == "none"
    with_one = nn.Sequential(nn.LazyLinear(2), network[0])
    assert hash_of_weights(with_one) not in ("none", hash_of_weights(network))


# Comparison.


def test_the_first_difference_is_told_by_its_place_and_both_sides():
    theirs = {"a": ["1", {"'b'": "2"}], "c": "x"}
    assert difference(theirs, theirs) is None
    for ours, told in (
        ({"a": ["1", {"'b'": "3"}], "c": "y"}, ("a.1.b", "2", "3")),
        ({"a": ["1", {"'b'": "2"}]}, ("c", "x", "nothing")),
        ({**theirs, "d": ["z"]}, ("d", "nothing", '["z"]')),
        ({**theirs, "a": ["1"]}, ("a", '["1", {"\'b\'": "2"}]', '["1"]')),
        ({**theirs, "a": "1"}, ("a", '["1", {"\'b\'": "2"}]', "1")),
        ({**theirs, "c": "y" * 101}, ("c", "x", "y" * 100 + "...")),
        ({**theirs, "c": "y" * 100}, ("c", "x", "y" * 100)),
    ):
        assert difference(theirs, ours) == told
    assert difference(["1"], ["1", "2"]) == ("", '["1"]', '["1", "2"]')


def test_bytecode_is_left_out_at_every_depth():
    tree = {BYTECODE: "1", "a": [{BYTECODE: "2", "b": "3"}], "c": "4"}
    assert without_bytecode(tree) == {"a": [{"b": "3"}], "c": "4"}
