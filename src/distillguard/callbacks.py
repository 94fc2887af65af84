"""Watching training: the protocol of callbacks, a text log, and a way to any logger."""

from .training import Callback, JSONLines, LoggerCallback

__all__ = ["Callback", "JSONLines", "LoggerCallback"]
