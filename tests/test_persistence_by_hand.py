"""The parts of a save, each of which is refused, cut off or carried by its own rule."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from distillguard import DefensiveDistiller, UndefendedClassifier, networks
from distillguard.exceptions import SaveError
from distillguard.persistence._manifest import (
    _builder,
    _builders,
    _classes,
    _fitted,
    _plain,
    _told_classes,
    _tuples,
)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (np.array([1.0, np.nan]), None),
        (Path("a") / "b", str(Path("a") / "b")),
        (None, "None"),
        (True, True),
        ("text", "text"),
        (math.inf, None),
        ((1, (2, "x")), [1, [2, "x"]]),
        ([1, print], None),
        ({"a": (1,), "b": None}, {"a": [1], "b": None}),
        ({"a": print}, None),
        ({1: 2, "a": 3}, None),
        ({1, 2}, None),
        (print, None),
        (nn.Linear(2, 2), None),
        (type("Int", (int,), {})(3), None),
    ],
)
def test_what_json_carries_of_a_value_is_the_same_value_or_nothing(value, told):
    found = _plain(value)
    if told is None:
        assert found is NotImplemented
    else:
        assert found == (None if told == "None" else told)
        assert json.loads(json.dumps(found)) == found


def test_lists_come_back_as_tuples_and_too_deep_ones_are_refused():
    assert _tuples([1, [2, []], {"a": [3]}]) == (1, (2, ()), {"a": [3]})
    nested = [7]
    for _ in range(30):
        nested = [nested]
    assert _tuples(nested)
    with pytest.raises(SaveError, match="lists within fewer than 32 lists"):
        _tuples([nested])
    for told, message in (
        ({"class of distillguard": 3}, "classes of ours"),
        ({"class of distillguard": "Layers"}, "classes of ours"),
        ({"class of distillguard": "mlp"}, "classes of ours"),
        ({"class of distillguard": "JPEG"}, "the arguments of JPEG"),
        ({"class of distillguard": "JPEG", "arguments": {"quality": 101}}, "at most 100"),
        ({"class of distillguard": "JPEG", "arguments": {"size": 3}}, "arguments for JPEG"),
    ):
        with pytest.raises(SaveError, match=message):
            _tuples(told)
    made = _tuples([{"class of distillguard": "JPEG", "arguments": {"bounds": [-1, 1]}}])
    assert made[0].bounds == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("dtype", "values", "message"),
    [
        ("<i8", [0, 1], None),
        ("int64", [0, 1], "a dtype of numbers or short strings"),
        ("<M8[D]", [0, 1], "a dtype of numbers or short strings"),
        ("<c16", [0, 1], "a dtype of numbers or short strings"),
        ("<U8388609", ["a", "b"], "a dtype of numbers or short strings"),
        ("<U1", ["a", "bc"], "sorted classes"),
        ("|i1", [0, 300], "classes"),
        ("<i8", [1, 1], "sorted classes"),
        ("<i8", [1], "sorted classes"),
        ("<i8", [1, 0], "sorted classes"),
        ("<i8", [0.5, 1], "sorted classes"),
        ("<i8", ["a", "b"], "must have classes at fitted.classes"),
        ("nothing", [0, 1], "must have classes at fitted.classes"),
        ("|b1", [False, True], None),
        ("<f4", [0.5, 1.5], None),
    ],
)
def test_classes_are_two_or_more_in_order_and_whole(dtype, values, message):
    if message is None:
        found = _classes(dtype, values)
        assert found.tolist() == values
        assert found.dtype.str == dtype
    else:
        with pytest.raises(SaveError, match=message):
            _classes(dtype, values)


def test_classes_that_json_cannot_carry_are_refused():
    for classes in (
        np.array([0, 1j]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array(["a", (1, 2)], dtype=object),
    ):
        with pytest.raises(SaveError, match="classes_ must be numbers or strings to be saved"):
            _told_classes(classes)


FITTED = {
    "classes": {"dtype": "<i8", "values": [0, 1]}, "input_shape": [2, 3], "n_features_in": 6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"n_features_in": 5}, "a shape of 5 numbers"),
        ({"false_alarms": [3, 2]}, "at most all examples"),
        ({"feature_names_in": list("abcde")}, "6 names"),
    ],
)
def test_what_was_learned_has_to_agree(more, message):
    with pytest.raises(SaveError, match=message):
        _fitted(FITTED | more)
    found = _fitted(
        FITTED | {"false_alarms": [2, 2], "n_iter": 3, "feature_names_in": list("abcdef")}
    )
    assert found["false_alarms_"] == (2, 2)
    assert found["input_shape_"] == (2, 3)
    assert (found["n_features_in_"], found["n_iter_"]) == (6, 3)
    assert found["feature_names_in_"].tolist() == list("abcdef")
    assert "history_" not in found
    assert "n_iter_" not in _fitted(FITTED)


def mlp(input_shape, n_classes):
    """Somebody else's, of the name of one of ours."""


@pytest.mark.parametrize(
    ("builder", "told"),
    [
        (None, {"kind": "none"}),
        (networks.mlp, {"kind": "built-in", "name": "mlp", "keywords": {}}),
        (
            partial(networks.mlp, hidden=(3,)),
            {"kind": "built-in", "name": "mlp", "keywords": {"hidden": [3]}},
        ),
        (partial(networks.mlp, (4,)), {"kind": "given", "name": "functools.partial"}),
        (mlp, {"kind": "given", "name": f"{__name__}.mlp"}),
        (nn.Linear(2, 2), {"kind": "given", "name": "torch.nn.modules.linear.Linear"}),
        (
            partial(networks.wide_resnet, activation=nn.ReLU),
            {"kind": "given", "name": "distillguard.networks._papers.wide_resnet"},
        ),
    ],
)
def test_a_network_of_ours_is_told_by_its_name_and_keywords_and_others_are_asked_for(builder, told):
    assert _builder(builder) == told


def test_builders_are_those_of_the_class_and_the_callers_come_first():
    built = {"kind": "built-in", "name": "mlp", "keywords": {"hidden": [3]}}
    manifest = {"builders": {"module": built}, "estimator": "UndefendedClassifier"}
    found = _builders(manifest, UndefendedClassifier, {"module": None})["module"]
    assert (found.func, found.keywords) == (networks.mlp, {"hidden": (3,)})
    assert _builders(manifest, UndefendedClassifier, {"module": mlp}) == {"module": mlp}
    with pytest.raises(TypeError, match="teacher must be None for UndefendedClassifier"):
        _builders(manifest, UndefendedClassifier, {"teacher": mlp})
    with pytest.raises(SaveError, match="must have module, teacher at builders"):
        _builders(manifest, DefensiveDistiller, {})
    bare = {"builders": {"module": {**built, "keywords": {}}}, "estimator": "UndefendedClassifier"}
    assert _builders(bare, UndefendedClassifier, {})["module"] is networks.mlp
