"""Real networks and photographs of other packages, read without running any code of theirs."""

import io
import pickle

import pytest
import torch
from benchmarks import _photographs as photographs


class Command:
    """What a hostile pickle holds: a call of ``print``."""

    def __reduce__(self):
        return print, ("ran",)


def test_a_pickle_that_asks_for_anything_else_runs_nothing(capsys):
    hostile = pickle.dumps({"x_test": Command()})
    with pytest.raises(pickle.UnpicklingError, match=r"asks for builtins\.print"):
        photographs.Unpickler(io.BytesIO(hostile)).load()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("network", "images", "correct"),
    [
        (photographs.resnet18, photographs.cifar10, 94),
        (photographs.efficientnet_lite0, photographs.imagenet, 17),
    ],
)
def test_the_weights_classify_the_photographs(network, images, correct):
    """As many right as the same weights have in other programs: 94 of 100, 17 of 20."""
    try:
        inputs, labels = images()
        model = network()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    with torch.no_grad():
        assert int((model(inputs).argmax(dim=1) == labels).sum()) == correct
