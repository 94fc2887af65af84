"""Examples as pictures."""

import base64
import io
from typing import Any

import torch
from torch import Tensor


def scaled(values: Tensor, bounds: tuple[Any, Any]) -> Tensor | None:
    """A picture (1 or 3, h, w) of values from 0 to 1, from shape (h, w), (1, h, w) or (3, h, w).

    None of anything else.
    """
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        return None
    low, high = (torch.tensor(bound, device="cpu") for bound in bounds)
    return ((values.detach().cpu().float() - low) / (high - low)).clamp(0, 1)


def data_url(values: Tensor, bounds: tuple[Any, Any]) -> str:
    """The address under which a page holds a picture itself; "" of what is none."""
    picture = scaled(values, bounds)
    if picture is None:
        return ""
    pixels = (picture * 255).round().to(torch.uint8)
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def png(pixels: Tensor) -> bytes:
    """Portable Network Graphics of grey or RGB bytes of shape (1 or 3, h, w)."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).save(file, format="png")
    return file.getvalue()
