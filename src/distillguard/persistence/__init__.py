"""Fitted estimators on disk, without pickle: reading one believes none of it."""

from ._saving import load
from ._schema import SCHEMA

__all__ = ["SCHEMA", "load"]
