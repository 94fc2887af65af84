"""docs/benchmarks/temperatures.md: generated from results of ``benchmarks.temperatures``."""

from pathlib import Path
from typing import Any

from benchmarks._common import load, table

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "temperatures.md"
TEXT = """\
% Written by: python -m benchmarks.temperatures --page. Edit _temperatures_page.py instead.

# Every temperature trains

The table shows the accuracy on test images of Papernot's network, undefended and distilled at each
temperature with the defaults ({epochs} epochs, float32, one seed), trained on 4,000 digits of
MNIST-5k or 10,000 images of Fashion-MNIST.{devices}

```
python -m benchmarks.temperatures --data mnist5k
python -m benchmarks.temperatures --data fashion
python -m benchmarks.temperatures --page    # writes this page
```

{table}

The mean absolute logit and the share of cross-entropy gradients that are exactly zero are for
MNIST-5k. The logits grow with the temperature, and the gradients vanish. The least accurate student
is {below_digits} the undefended network on the digits, and {below_clothes} it on Fashion-MNIST.

[Decision record 9](../adr/0009-every-temperature-trains.md) explains how this is done and compares
six other recipes; [record 11](../adr/0011-averaged-weights.md) explains why training ends with
averaged weights.
"""


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    digits, clothes = (load(f"temperatures-{data}") for data in ("mnist5k", "fashion"))
    rows = [
        {
            "network": row["network"].replace("=", " = "),
            "MNIST-5k": f"{100 * row['accuracy']:.1f} %",
            "mean abs. logit": f"{row['mean_abs_logit']:.1f}",
            "zero gradients": f"{100 * row['zero_gradients']:.0f} %",
            "Fashion-MNIST": f"{100 * other['accuracy']:.1f} %",
        }
        for row, other in zip(digits["rows"], clothes["rows"], strict=True)
    ]
    return TEXT.format(
        epochs=digits["epochs"],
        devices=devices(digits, clothes),
        table=table(rows, list(rows[0])),
        below_digits=below(digits["rows"]),
        below_clothes=below(clothes["rows"]),
    )


def devices(digits: dict[str, Any], clothes: dict[str, Any]) -> str:
    """Which trained which, where they are not the same."""
    where = [result["gpu"] or "a processor" for result in (digits, clothes)]
    if where[0] == where[1]:
        return ""
    return f"\nThose of MNIST-5k were trained on {where[0]}, those of Fashion-MNIST on {where[1]}."


def below(rows: list[dict[str, float]]) -> str:
    """The most that a student loses against the undefended network, in words."""
    undefended, *students = (row["accuracy"] for row in rows)
    points = 100 * (undefended - min(students))
    return f"{points:.2f} points below" if points > 0 else f"{-points:.2f} points above"
