"""What export_onnx writes is what the estimator predicts, in ONNX Runtime and for any batch."""

import json
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from distillguard import DefensiveDistiller, UndefendedClassifier, datasets, networks
from distillguard.estimators import _onnx
from distillguard.exceptions import MissingPackageError


def digits():
    return datasets.load_digits("train")


def mnist():
    return datasets.load_mnist5k("train")


def colours():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(40, 3, 16, 16, generator=generator), torch.arange(40) % 5


def fitted_on(load, module, **settings) -> tuple:
    X, y = load()
    settings = {"max_epochs": 1, "random_state": 0, **settings}
    return DefensiveDistiller(module, **settings).fit(X[:64], y[:64]), X[:64]


def ran(path, inputs: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"inputs": inputs})[0]


@pytest.mark.parametrize(
    ("load", "module"),
    [
        (digits, networks.mlp),
        (mnist, networks.papernot_mnist),
        (colours, networks.preact_resnet18),
    ],
    ids=["mlp on digits", "papernot on MNIST", "residual on colour images"],
)
def test_three_networks_give_torchs_logits_to_1e_4(load, module, tmp_path):
    pytest.importorskip("onnxscript")
    fitted, X = fitted_on(load, module)
    path = tmp_path / "guard.onnx"
    fitted.export_onnx(path)
    for n in (1, 3, 40):
        expected = fitted.decision_function(X[:n])
        np.testing.assert_allclose(ran(path, X[:n].numpy()), expected, rtol=0, atol=1e-4)
    assert [each.name for each in tmp_path.iterdir()] == ["guard.onnx"]


def test_the_file_names_its_ends_and_the_classes(tmp_path):
    onnx = pytest.importorskip("onnx")
    X, y = digits()
    names = np.array(["even", "odd"])[y[:64] % 2]
    fitted = UndefendedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), max_epochs=1)
    fitted.fit(X[:64], names).export_onnx(tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model)
    (given,), (returned,) = model.graph.input, model.graph.output
    assert (given.name, returned.name) == ("inputs", "logits")
    axes = [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim]
    own = torch.__version__.startswith("2.6.")  # names the axis by itself
    assert axes == ["s0" if own else "batch", 1, 8, 8]
    metadata = {each.key: each.value for each in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["even", "odd"]
    winners = ran(tmp_path / "a.onnx", X[:64].numpy()).argmax(axis=1)
    np.testing.assert_array_equal(fitted.classes_[winners], fitted.predict(X[:64]))


class FirstColumns(nn.Module):
    def forward(self, inputs):
        return inputs[:, :3] * 2


def test_a_network_that_slices_is_exported_for_batches_of_any_size(tmp_path):
    pytest.importorskip("onnxscript")
    _onnx.export(FirstColumns(), (5,), tmp_path / "a.onnx", [0, 1, 2])
    inputs = np.arange(55, dtype=np.float32).reshape(11, 5)
    np.testing.assert_array_equal(ran(tmp_path / "a.onnx", inputs), 2 * inputs[:, :3])


def test_other_precisions_are_exported_in_float32(tmp_path):
    pytest.importorskip("onnxscript")
    fitted, X = fitted_on(digits, partial(networks.mlp, hidden=(8,)), precision="bf16-true")
    before = fitted.decision_function(X)
    fitted.export_onnx(tmp_path / "a.onnx")
    np.testing.assert_array_equal(fitted.decision_function(X), before)
    expected = fitted.student_.float()(X).detach().numpy()
    np.testing.assert_allclose(ran(tmp_path / "a.onnx", X.numpy()), expected, atol=1e-4)


def test_a_network_that_works_in_place_is_exported(tmp_path):
    class InPlace(nn.Module):
        def __init__(self, shape, n_classes):
            super().__init__()
            self.head = nn.Linear(*shape, n_classes)

        def forward(self, inputs):
            return self.head(inputs.sub_(0.3).div_(0.35))

    X = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    fitted = UndefendedClassifier(InPlace, max_epochs=1, random_state=0).fit(X, torch.arange(8) % 2)
    fitted.export_onnx(tmp_path / "graph.onnx")
    fresh = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    logits = ran(tmp_path / "graph.onnx", fresh.numpy())
    head = fitted.model_.head
    expected = ((fresh - 0.3) / 0.35) @ head.weight.T + head.bias
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-5)


def test_a_graph_that_computes_something_else_is_not_left_behind(tmp_path, monkeypatch):
    """The network changes between its export and the comparison, as a wrong exporter's would."""
    pytest.importorskip("onnxscript")
    fitted, _ = fitted_on(digits, partial(networks.mlp, hidden=(8,)))
    compare = _onnx._check_same

    def after_a_change(network, written, input_shape):
        with torch.no_grad():
            next(network.parameters()).add_(0.01)
        compare(network, written, input_shape)

    monkeypatch.setattr(_onnx, "_check_same", after_a_change)
    (tmp_path / "a.onnx").write_bytes(b"the one before")
    with pytest.raises(RuntimeError, match=r"logits to \d\.\de-0\d, got a difference of \d"):
        fitted.export_onnx(tmp_path / "a.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["a.onnx"]
    assert (tmp_path / "a.onnx").read_bytes() == b"the one before"


def test_the_rounding_of_large_logits_below_zero_is_none_of_the_graphs(tmp_path):
    pytest.importorskip("onnxscript")
    fitted, X = fitted_on(digits, partial(networks.mlp, hidden=()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in fitted.student_.parameters():
            weight.copy_(-1e6 * torch.rand(weight.shape, generator=generator))
    fitted.export_onnx(tmp_path / "a.onnx")
    expected = fitted.decision_function(X)
    assert expected.max() < -1e6
    np.testing.assert_allclose(ran(tmp_path / "a.onnx", X.numpy()), expected, rtol=1e-5)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_names_the_extra(package, tmp_path, monkeypatch):
    fitted, _ = fitted_on(digits, partial(networks.mlp, hidden=(8,)))
    # None in sys.modules is how an import is made to fail.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingPackageError, match=rf"{package}.*pip install 'distillguard\[onnx\]'"
    ):
        fitted.export_onnx(tmp_path / "a.onnx")


def test_an_unfitted_estimator_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        DefensiveDistiller().export_onnx(tmp_path / "a.onnx")
