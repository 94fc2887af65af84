"""What a model holds, whether two hold the same, and copies of it; on small objects."""

from collections import deque
from functools import partial
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distillguard.evaluation._records import Sample
from distillguard.evaluation._unasked import Unasked, differs, held, twin, unasked

ZERO, ONE = torch.zeros(1), torch.ones(1)


class Slots:
    __slots__ = "only"


class MoreSlots(Slots):
    __slots__ = ("__dict__", "more", "unset")


def slotted(**values):
    thing = MoreSlots()
    for name, value in values.items():
        setattr(thing, name, value)
    return thing


def closing(value, extra=0, *, keyword=None):
    def inner(x, default=extra, *, told=keyword):
        return later, value

    if value == "later":
        later = 3
    return inner


def hooked():
    module = nn.Sequential(nn.Linear(1, 1))
    module.register_buffer("kept", ZERO)
    module.register_forward_hook(print)
    module.register_full_backward_hook(print)
    module.note = 3
    return module


PART = partial(max, 1, key=len)
PART.note = 4
OWNER = Sample(1)


@pytest.mark.parametrize(
    ("thing", "holds"),
    [
        (SimpleNamespace(a=1), {"a": 1}),
        (slotted(only=1, more=2, free=3), {"only": 1, "more": 2, "free": 3}),
        (3, {}),
        (closing(1, 5, keyword=6), {"value": 1, "defaults": (5,), "keywords": {"told": 6}}),
        (closing("later"), {"value": "later", "later": 3, "defaults": (0,),
                            "keywords": {"told": None}}),
        (lambda x: x, {}),
        (OWNER.add, {"self": OWNER, "function": Sample.add}),
        (PART, {"note": 4, "function": max, "args": (1,), "keywords": {"key": len}}),
    ],
)  # fmt: skip
def test_what_an_object_holds(thing, holds):
    assert {name: each for name, each in held(thing).items() if name != "__dict__"} == holds


def test_what_a_module_holds_beside_its_parts_parameters_and_mode():
    found = held(hooked())
    assert found["note"] == 3
    assert found["_buffers"] == {"kept": ZERO}
    assert list(found["_forward_hooks"].values()) == [print]
    assert {"_forward_pre_hooks", "_forward_hooks"} == {name for name in found if "_hooks" in name}
    assert not {"training", "_modules", "_parameters"} & found.keys()


def nested(value, depth):
    return [nested(value, depth - 1)] if depth else value


OBJECTS = np.array([object()], dtype=object)


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        (1, 1, False), (1, 2, True), (1, 1.0, True), ("a", "b", True), (b"a", b"a", False),
        (float("nan"), float("nan"), True), (None, None, False),
        (ZERO, torch.zeros(1), False), (ZERO, ONE, True), (ZERO, torch.zeros(2), True),
        (np.zeros(1), np.ones(1), True), (OBJECTS, np.array([3], dtype=object), False),
        ({1, 2}, {1, 3}, False), ({1, 2}, {1}, True), (frozenset([1]), frozenset(), True),
        ({"a": 1}, {"a": 1}, False), ({"a": 1}, {"a": 2}, True), ({"a": 1}, {"b": 1}, True),
        ([1, 2], [1, 2], False), ([1, 2], [1, 3], True), ([1], [1, 2], True), ((1,), (2,), True),
        (deque([1]), deque([2]), True), (deque([1]), deque([1]), False),
        (SimpleNamespace(a=1), SimpleNamespace(a=1), False),
        (SimpleNamespace(a=1), SimpleNamespace(a=2), True),
        (nn.Linear(1, 1), nn.Linear(1, 1), False),  # parameters are lent, and stay
        (nn.BatchNorm1d(1), nn.BatchNorm1d(1), False),
        (nn.Sequential(nn.Dropout(0.1)), nn.Sequential(nn.Dropout(0.2)), True),
        # Eight deep is looked into, and what is below is not.
        (nested(1, 7), nested(2, 7), True), (nested(1, 8), nested(2, 8), False),
        ({"a": nested(1, 6)}, {"a": nested(2, 6)}, True),
        ({"a": nested(1, 7)}, {"a": nested(2, 7)}, False),
        (SimpleNamespace(a=nested(1, 6)), SimpleNamespace(a=nested(2, 6)), True),
        (SimpleNamespace(a=nested(1, 7)), SimpleNamespace(a=nested(2, 7)), False),
    ],
)  # fmt: skip
def test_two_things_differ_where_a_value_within_eight_steps_does(old, new, differ):
    assert differs(old, new, 8, set()) == differ
    assert not differs(old, new, 8, {id(new)})
    assert not differs(old, new, 0, set())


def test_copies_are_of_everything_but_parameters_and_what_is_shared_stays_shared():
    module = nn.Linear(1, 1)
    module.seen = []
    call = partial(closing(module), module, key=module)
    copied = twin(call)
    (inner,) = copied.args
    assert inner is not module
    assert inner is copied.keywords["key"]
    assert inner is held(copied.func)["value"]
    assert inner.weight is module.weight
    assert inner.seen is not module.seen
    method = twin(module.extra_repr)
    assert method.__self__ is not module
    assert method.__func__ is nn.Linear.extra_repr
    assert twin(len) is len
    assert Unasked(SimpleNamespace(rejects=True)).rejects
    assert unasked(len) is None
    assert unasked(SimpleNamespace(thing=Lock())) is None  # which cannot be copied
