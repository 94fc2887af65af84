"""Watching training: the protocol, and two loggers."""

import json
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from .._processes import joined
from ..exceptions import MissingPackageError

__all__ = ["Callback", "JSONLines", "TensorBoard"]

Epoch: TypeAlias = dict[str, Any]
"""One record of the history: stage, epoch, loss, accuracy, learning_rate, seconds, ..."""


class Callback:
    """Something that watches training; override what you need.

    Every process of a run on several calls its own callbacks. The network is in eval mode, with
    averaged weights where ``weight_averaging`` is on.

    Examples
    --------
    >>> from distillguard import UndefendedClassifier, datasets
    >>> from distillguard.callbacks import Callback
    >>> class UntilGoodEnough(Callback):
    ...     def on_epoch(self, record, network):
    ...         return record["accuracy"] > 0.9
    >>> X, y = datasets.load_digits("train")
    >>> stopped = UndefendedClassifier(
    ...     max_epochs=50, callbacks=[UntilGoodEnough()], random_state=0
    ... ).fit(X, y)
    >>> stopped.n_iter_ < 50
    True
    """

    def on_start(self, stage: str, network: nn.Module, history: list[Epoch]) -> None:
        """Called before the first epoch of a stage.

        Parameters
        ----------
        stage : str
            "teacher", "student" or "network".
        network : nn.Module
            The network that the stage trains.
        history : list of dict
            The stage's records so far: not empty where a run goes on from a checkpoint.
        """

    def on_epoch(self, record: Epoch, network: nn.Module) -> bool | None:
        """Called after every epoch; return True to end the stage.

        Parameters
        ----------
        record : dict
            The epoch's entry of ``history_``.
        network : nn.Module
            The network that is being trained.

        Returns
        -------
        bool or None
            Whether to end the stage. All callbacks of all processes are asked, and one True
            is enough.
        """

    def on_end(self, stage: str, network: nn.Module, history: list[Epoch]) -> None:
        """Called when the stage is over and the network has its final weights.

        Parameters
        ----------
        stage : str
            "teacher", "student" or "network".
        network : nn.Module
            The network that the stage trained.
        history : list of dict
            The stage's records.
        """


class JSONLines(Callback):
    """Write the history as a text file with one JSON object per epoch.

    A stage that is trained again, or goes on from a checkpoint, replaces what the file holds of
    it and of what followed, so that no epoch appears twice.

    Parameters
    ----------
    path : str or path-like
        The file. Its folder is made if there is none.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from distillguard import UndefendedClassifier, datasets
    >>> from distillguard.callbacks import JSONLines
    >>> X, y = datasets.load_digits("train")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = pathlib.Path(folder) / "history.jsonl"
    ...     classifier = UndefendedClassifier(max_epochs=2, callbacks=[JSONLines(log)]).fit(X, y)
    ...     len(log.read_text().splitlines())
    2
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path

    def on_start(self, stage: str, network: nn.Module, history: list[Epoch]) -> None:
        if not joined().first:
            return
        # What was written before the stage stays, and its history goes below.
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        before = takewhile(lambda line: json.loads(line)["stage"] != stage, lines)
        path.write_text("".join(f"{line}\n" for line in [*before, *map(json.dumps, history)]))

    def on_epoch(self, record: Epoch, network: nn.Module) -> None:
        if joined().first:
            with Path(self.path).open("a") as file:
                file.write(json.dumps(record) + "\n")


class TensorBoard(Callback):
    """Write the numbers of every epoch for TensorBoard, one run per stage.

    Parameters
    ----------
    log_dir : str or path-like
        The folder that ``tensorboard --logdir`` is given.

    Raises
    ------
    MissingPackageError
        If the package tensorboard is not installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from distillguard import UndefendedClassifier, datasets
    >>> from distillguard.callbacks import TensorBoard
    >>> X, y = datasets.load_digits("train")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logged = UndefendedClassifier(max_epochs=2, callbacks=[TensorBoard(folder)]).fit(X, y)
    ...     [run.name for run in pathlib.Path(folder).iterdir()]
    ['network']
    """

    def __init__(self, log_dir: str | PathLike[str]) -> None:
        self.log_dir = log_dir

    def on_start(self, stage: str, network: nn.Module, history: list[Epoch]) -> None:
        if joined().first:
            # Events of epochs that are trained again, after a kill, are purged.
            folder = str(Path(self.log_dir) / stage)
            self._writer = _summary_writer()(folder, purge_step=len(history) + 1)

    def on_epoch(self, record: Epoch, network: nn.Module) -> None:
        if joined().first:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "epoch":
                    self._writer.add_scalar(name, value, record["epoch"])
            self._writer.flush()

    def on_end(self, stage: str, network: nn.Module, history: list[Epoch]) -> None:
        if joined().first:
            self._writer.close()
            del self._writer


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError(
            "TensorBoard needs the package tensorboard: pip install distillguard[tensorboard]"
        ) from error
    return SummaryWriter
