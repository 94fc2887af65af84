"""Watching training: the protocol of callbacks, and loggers for text files and TensorBoard."""

from .training import Callback, JSONLines, TensorBoard

__all__ = ["Callback", "JSONLines", "TensorBoard"]
