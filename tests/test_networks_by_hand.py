"""Factories, wrappers and the files of data sets: counted, called and refused by hand."""

import gzip
import struct

import numpy as np
import pytest
import torch
from torch import nn

from distillguard.datasets import _image_files, _load
from distillguard.datasets._image_files import (
    CIFAR10_RECORD,
    first_with_all,
    read_cifar10_binary,
    read_idx,
    read_idx_pair,
)
from distillguard.datasets._load import _fixed_split
from distillguard.exceptions import MissingDataError
from distillguard.networks import Logits, Normalized, Rejecting, Scaled, mlp, wide_resnet
from distillguard.networks._builders import built, called
from distillguard.networks._layers import (
    PreActivationBlock,
    check_dropout,
    check_image,
    he_initialised,
    papernot,
)
from distillguard.networks._wrappers import scaled_as_saved

# Factories.


class Late:
    """Somebody's network whose classes come late."""

    def __init__(self, weights=None, block=3, num_classes=1000):
        self.got = num_classes


@pytest.mark.parametrize(
    ("factory", "got"),
    [
        (lambda shape, n: (shape, n), ((4,), 3)),
        (lambda input_shape=(9,), n_classes=7: (input_shape, n_classes), ((4,), 3)),
        (lambda *given: given, ((4,), 3)),
        (lambda num_classes: num_classes, 3),
        (lambda n_classes=10: n_classes, 3),
        (lambda *, n_classes: n_classes, 3),
        (lambda **settings: settings, {"num_classes": 3}),
        (lambda weights=None, progress=True, num_classes=9: num_classes, 3),
        (lambda weights=None, progress=True, **more: more, {"num_classes": 3}),
    ],
)
def test_a_factory_is_called_with_shape_and_classes_or_with_classes_by_name(factory, got):
    assert called("module", factory, (4,), 3) == got


def test_a_class_whose_classes_come_late_is_called_by_name_and_others_are_told_what_to_write():
    assert called("module", Late, (4,), 3).got == 3

    def narrow(width):
        return None

    def none():
        return None

    for factory, message in (
        (narrow, "got the function narrow, which takes width; .* lambda shape, n_classes: narrow"),
        (none, "got the function none, which takes no arguments"),
        (
            type("Net", (), {"__init__": lambda self, a, b, c: None}),
            "got the class Net, .* a, b, c",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            called("module", factory, (4,), 3)
    for module, message in ((3, "got int"), (lambda shape, n: 7, "one that returns int")):
        with pytest.raises(TypeError, match=f"teacher must be an nn.Module.*{message}"):
            built("teacher", module, (4,), 3)
    given = nn.Linear(4, 3)
    assert built("module", given, (4,), 3) is not given
    assert built("module", lambda shape, n: given, (4,), 3) is given
    assert built("module", None, (4,), 3)(torch.zeros(2, 4)).shape == (2, 3)


def test_layers_are_as_many_and_as_wide_as_the_papers():
    network = papernot((2, 20, 24), 5, (0.25, 0.5), channels=(3, 4), hidden=6)
    kinds = [type(part).__name__ for part in network]
    convolutions = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    dense = ["Linear", "ReLU", "Dropout"]
    assert kinds == [*convolutions, *convolutions, "Flatten", *dense, *dense, "Linear"]
    widths = [(p.in_channels, p.out_channels) for p in network if isinstance(p, nn.Conv2d)]
    assert widths == [(2, 3), (3, 3), (3, 4), (4, 4)]
    # 20 x 24 becomes 8 x 10, and then 2 x 3.
    linear = [(p.in_features, p.out_features) for p in network if isinstance(p, nn.Linear)]
    assert linear == [(24, 6), (6, 6), (6, 5)]
    assert [p.p for p in network if isinstance(p, nn.Dropout)] == [0.25, 0.5]
    assert network(torch.zeros(1, 2, 20, 24)).shape == (1, 5)
    wide = wide_resnet((3, 8, 8), 4, depth=16, width=2)
    strides = [block.conv1.stride[0] for block in wide.stages]
    assert strides == [1, 1, 2, 1, 2, 1]
    assert [block.shortcut is None for block in wide.stages] == [False, True] * 3
    assert wide.head.in_features == 128
    kept = PreActivationBlock(4, 4, 1, nn.ReLU).eval()
    assert kept.shortcut is None
    nn.init.zeros_(kept.conv2.weight)
    inputs = torch.rand(2, 4, 5, 5)
    assert kept(inputs).equal(inputs)
    table = mlp((3, 2), 4, hidden=(5, 7), dropout=0.5)
    assert [type(part).__name__ for part in table] == [
        "Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear",
    ]  # fmt: skip


def test_weights_follow_hes_rule_over_inputs_or_outputs():
    torch.manual_seed(0)
    with_bias, without = nn.Conv2d(4, 256, 3), nn.Conv2d(4, 256, 3, bias=False)
    linear = he_initialised(nn.Sequential(with_bias, without, nn.Linear(50, 4000)))[2]
    assert with_bias.weight.std().item() == pytest.approx((2 / 36) ** 0.5, rel=0.03)
    assert without.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.03)
    assert linear.weight.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.03)
    assert not with_bias.bias.any()
    assert not linear.bias.any()
    assert check_dropout(0) == (0, 0)
    assert check_dropout([0.25, 0.5]) == (0.25, 0.5)
    for dropout, error in ((1, ValueError), (-0.1, ValueError), ([0.1], TypeError),
                           ("ab", TypeError), ([0.5, 1.0], ValueError)):  # fmt: skip
        with pytest.raises(error, match="dropout must be"):
            check_dropout(dropout)
    assert check_image((1, 4, 5), 4) == (1, 4, 5)
    for shape in ((1, 4, 3), (1, 3, 4), (4, 4), (1, 1, 4, 4)):
        with pytest.raises(ValueError, match="height and width of at least 4"):
            check_image(shape, 4)


# Wrappers.


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.1, 0.2], [1.0, 2.0, 3.0], "std must have one number for each of 2 in mean, got 3"),
        (0.0, [1.0, 0.0], "std must be above 0, got 0.0"),
        (0.0, [0.5, -1.0], "std must be above 0, got -1.0"),
        (
            [[0.0, 1.0], [0.0, 1.0]],
            1.0,
            r"mean must be a number or one per channel, got shape \(2, 2",
        ),
        ([], 1.0, "mean must be a number or one per channel, got shape"),
        ([0.0, float("nan")], 1.0, "mean must be finite, got nan"),
        (0.0, float("inf"), "std must be finite, got inf"),
    ],
)
def test_statistics_are_one_or_one_for_each_channel(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalized(nn.Identity(), mean, std)
    for mean, std, expected in (
        (0.5, [1.0, 2.0], [0.5, 0.25]),
        ([[0.5]], 2.0, [0.25, 0.25]),
        (torch.tensor([[0.5, 1.0]]), 2.0, [0.25, 0.0]),
    ):
        found = Normalized(nn.Identity(), mean, std)(torch.ones(3, 2, 2))
        assert found[1, :, 0].tolist() == pytest.approx(expected)
    two = Normalized(nn.Identity(), 0.0, [1.0, 2.0])
    for shape in ((3,), (3, 3)):
        with pytest.raises(ValueError, match="2 channels in axis 1"):
            two(torch.ones(shape))


def test_the_last_logit_moves_by_the_offset_and_all_by_the_factor():
    head = nn.Linear(2, 3)
    inputs = torch.rand(4, 2)
    found = Rejecting(head, -1.5)(inputs)
    assert found[:, :2].equal(head(inputs)[:, :2])
    torch.testing.assert_close(found[:, 2], head(inputs)[:, 2] - 1.5)
    assert repr(Rejecting(head, -1.5)).startswith("Rejecting(\n  offset=-1.5")
    assert Scaled(head, 2.0)(inputs).equal(2 * head(inputs))
    assert repr(Scaled(head, 0.25)).startswith("Scaled(\n  factor=0.25")
    assert Scaled(Rejecting(head), 2.0).rejects
    assert not Scaled(head, 2.0).rejects
    saved = Scaled(head, 2.0).state_dict()
    assert isinstance(scaled_as_saved(head, saved), Scaled)
    assert scaled_as_saved(head, head.state_dict()) is head
    for call, message in (
        (lambda: Scaled(head, 0.0), "factor must be"), (lambda: Scaled(3, 1.0), "network must be"),
        (lambda: Rejecting(head, float("inf")), "offset must be"),
        (lambda: Rejecting(3), "network must be"), (lambda: Logits(nn.Linear), "module must be"),
        (lambda: Logits(head, True), "pick must be"), (lambda: Logits(head, 0.5), "pick must be"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    z = torch.tensor([[1.0], [-2.0]])
    assert Logits(lambda x: x)(z).tolist() == [[0, 1], [0, -2]]
    assert Logits(lambda x: {"a": x}, "a")(torch.ones(2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="pick must be in what the module returns, got 'b'"):
        Logits(lambda x: {"a": x}, "b")(z)


# Files.


def idx(axes, content, kind=8):
    return (
        struct.pack(">BBBB", 0, 0, kind, len(axes)) + struct.pack(f">{len(axes)}I", *axes) + content
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx((2, 2, 3), bytes(12)), None),
        (idx((2, 2, 3), bytes(11)), "12 bytes of data after its header, got only 11"),
        (idx((2, 2, 3), bytes(13)), "12 bytes of data after its header, got more"),
        (idx((2, 3, 2), bytes(12)), r"examples of shape \(2, 3\), got \(3, 2\)"),
        (idx((0, 2, 3), b""), "at least one example, got a count of 0"),
        (idx((12,), bytes(12)), "unsigned bytes with 3 axes"),
        (idx((2, 2, 3), bytes(12), kind=9), "unsigned bytes with 3 axes"),
        (idx((2, 2, 3), b"")[:15], "unsigned bytes with 3 axes"),
        (b"", "got a header of no bytes"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_holds_what_its_header_says(tmp_path, monkeypatch, content, message, suffix):
    monkeypatch.setattr(_image_files, "_PIECE", 5)
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    if message is None:
        assert read_idx(path, (2, 3)).shape == (2, 2, 3)
    else:
        with pytest.raises(ValueError, match=message):
            read_idx(path, (2, 3))


def test_images_and_labels_are_as_many_and_labels_are_digits(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(idx((2, 28, 28), bytes(2 * 784)))
    for content, message in (
        (idx((2,), bytes([0, 9])), None),
        (idx((3,), bytes(3)), "as many images as .* labels, got 2 and 3"),
        (idx((2,), bytes([0, 10])), "labels from 0 to 9, got 10"),
    ):
        labels.write_bytes(content)
        if message is None:
            found = read_idx_pair(images, labels)
            assert (found[0].shape, found[1].tolist()) == ((2, 1, 28, 28), [0, 9])
        else:
            with pytest.raises(ValueError, match=message):
                read_idx_pair(images, labels)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "images.gz").touch()
    (tmp_path / "other" / "labels").touch()
    folders = [tmp_path / "no", tmp_path / "other", tmp_path]
    assert first_with_all(folders, ["images", "labels"]) == [
        tmp_path / "other" / "images.gz", tmp_path / "other" / "labels",
    ]  # fmt: skip
    assert first_with_all(folders, ["images", "none"]) is None


def test_cifar10s_records_are_a_label_and_three_planes(tmp_path):
    rows = np.arange(3 * CIFAR10_RECORD, dtype=np.uint64).reshape(3, -1) % 251
    rows[:, 0] = [3, 9, 0]
    (tmp_path / "test_batch.bin").write_bytes(rows.astype(np.uint8).tobytes())
    images, labels = read_cifar10_binary(tmp_path, "test")
    assert labels.tolist() == [3, 9, 0]
    assert images.shape == (3, 3, 32, 32)
    assert images[1, 2, 31, 30] == rows[1, 1 + 2 * 1024 + 31 * 32 + 30]
    with pytest.raises(MissingDataError, match="data_batch_1"):
        read_cifar10_binary(tmp_path, "train")
    for size in (0, CIFAR10_RECORD + 1):
        (tmp_path / "test_batch.bin").write_bytes(bytes(size))
        with pytest.raises(ValueError, match="whole records of 3073 bytes"):
            read_cifar10_binary(tmp_path, "test")


def test_every_fifth_of_a_class_is_for_testing_and_classes_alternate():
    labels = np.array([1, 0] * 10 + [0] * 3)
    images = np.arange(23)
    parts = {split: _fixed_split(images, labels, split) for split in ("train", "test", "all")}
    assert parts["test"][0].tolist() == [9, 8, 19, 18]
    assert parts["train"][0].tolist() == [
        1, 0, 3, 2, 5, 4, 7, 6, 11, 10, 13, 12, 15, 14, 17, 16, 20, 21, 22,
    ]  # fmt: skip
    assert sorted(parts["all"][0].tolist()) == list(range(23))
    X, y = _load._to_tensors(np.array([[16, 8]]), np.array([3], dtype=np.uint8), white=16)
    assert (X.tolist(), y.dtype) == ([[1, 0.5]], torch.int64)
