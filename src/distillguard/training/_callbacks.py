"""Watching training: the protocol, a text log, and a way to other libraries' loggers."""

import json
from itertools import takewhile
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from .._processes import joined
from .._words import described

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

__all__ = ["Callback", "JSONLines", "LoggerCallback"]

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
            The stage's records so far: not empty when a run resumes from a checkpoint.
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

    A stage that is trained again, or resumes from a checkpoint, replaces what the file holds of
    it and of what followed, so that no epoch appears twice: one file serves a run however often
    it starts again, and reads back as ``history_``.

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


class LoggerCallback(Callback):
    """Write the numbers of every epoch to a logger with the interface of Lightning Fabric's.

    Such are Fabric's own for CSV files and TensorBoard, and Lightning's for Weights & Biases,
    MLflow and others. Each number is named after its stage, as ``student/loss``; steps count
    the epochs of all stages. Of several processes the first one logs.

    Parameters
    ----------
    logger : lightning_fabric.loggers.Logger
        Anything with the methods ``log_metrics(metrics, step)`` and ``save()``. Call its
        ``finalize`` yourself after ``fit`` where it needs that.

    Raises
    ------
    TypeError
        If ``logger`` has no such methods.

    See Also
    --------
    JSONLines : One text file, in which a run that starts again replaces its own epochs.

    Notes
    -----
    A run that resumes from a checkpoint first logs the epochs that were trained before, under the
    steps that they had. So give it a logger that starts empty, and no step is written twice: a new
    version, which is the default of Fabric's loggers, a ``CSVLogger`` of a fixed version, which
    begins its file anew, or ``TensorBoardLogger(..., purge_step=0)``, which hides what the folder
    held before.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from lightning_fabric.loggers import CSVLogger
    >>> from distillguard import UndefendedClassifier, datasets
    >>> from distillguard.callbacks import LoggerCallback
    >>> X, y = datasets.load_digits("train")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = LoggerCallback(CSVLogger(folder, name="digits"))
    ...     classifier = UndefendedClassifier(max_epochs=2, callbacks=[log]).fit(X, y)
    ...     len((pathlib.Path(log.logger.log_dir) / "metrics.csv").read_text().splitlines())
    3
    """

    def __init__(self, logger: "Logger") -> None:
        methods = [getattr(logger, name, None) for name in ("log_metrics", "save")]
        if isinstance(logger, type) or not all(map(callable, methods)):
            raise TypeError(
                "logger must have the methods log_metrics and save, as those of "
                f"lightning_fabric.loggers do, got {described(logger)}"
            )
        self.logger = logger
        self._step = 0

    def on_start(self, stage: str, network: nn.Module, history: list[Epoch]) -> None:
        for record in history:
            self._log(record)

    def on_epoch(self, record: Epoch, network: nn.Module) -> None:
        self._log(record)

    def _log(self, record: Epoch) -> None:
        if joined().first:
            self._step += 1
            numbers = {k: v for k, v in record.items() if isinstance(v, Real)}
            metrics = {f"{record['stage']}/{name}": float(v) for name, v in numbers.items()}
            self.logger.log_metrics(metrics, step=self._step)
            self.logger.save()
