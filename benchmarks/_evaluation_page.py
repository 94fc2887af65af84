"""docs/benchmarks/evaluation.md: generated from the result files of the evaluation's benchmarks."""

from pathlib import Path
from typing import Any

from benchmarks._common import load, table

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "evaluation.md"
STANDING, PASSES, SECONDS, FEW = 0.2, 1 / 8, 1 / 6, 60.0
SHOWN = (
    "network",
    "radius",
    "robust, %",
    "AutoAttack",
    "passes",
    "of which diagnosis",
    "AutoAttack's",
    "share",
    "share of seconds",
)
TEXT = """\
% Written by: python -m benchmarks.evaluation --page. Edit benchmarks/_evaluation_page.py instead.

# The standard evaluation compared with AutoAttack

This page compares `evaluate(attacks="standard")` with the published AutoAttack (pyautoattack's
"standard": 100 steps, 9 targets, 5,000 queries) on the same {examples} test images, with one seed;
{machine}.

- *Passes*: forward and backward passes per image. Ours include everything: the clean pass, the
  attacks, the verdicts and the diagnosis behind the findings.
- *Share*: our passes, or seconds on one CPU core, divided by AutoAttack's. Ours were measured again
  after "standard" had changed, on a machine with other work: the seconds are rough, the passes
  exact.

```
python -m benchmarks.evaluation           # --published FOLDER adds the published networks
python -m benchmarks.evaluation --page    # writes this page
```

```{{rst-class}} compact
```

{table}

In the {n_trained} rows for networks trained here, `evaluate` leaves more images than AutoAttack in
{n_above} and fewer in {n_below}; in the {n_published} rows for published networks, it leaves more
in {n_published_above}, by at most {most_above} of {examples} images. Over all rows that is
{images_above} images more and {images_below} fewer, of {images}.

How many steps each attack takes, and how near the boundary an image has to be for it, was chosen on
the first 400 test images of these networks, among which are those of the table. On {examples}
further images of each, which nobody had looked at (`--held-out`), it leaves more than AutoAttack in
{held_rows_above} of {held_rows} rows, by at most {held_most} images, and fewer in
{held_rows_below}: {held_above} more and {held_below} fewer of {held_images}, at {held_least:.3f} to
{held_share:.3f} of its passes.

On the TRADES network in l2 the lead of the right class does not shrink steadily towards the
boundary. `evaluate` runs Carlini and Wagner's attack on the images where its first steps reach no
other class, which fools most of them; on the images of the table it leaves {trades_fewer} fewer
than AutoAttack, on the further ones {held_trades} more. Evaluations without it raise the finding
[minimum-distance-beats-pgd](../findings/minimum-distance-beats-pgd.md).

If AutoAttack leaves at least a fifth of the images, the share of passes is at most
{most_share:.3f}; the target is an eighth. If it leaves fewer, the target is {few:.0f} passes in
all, which {n_within} of {n_few} rows keep, with at most {most_within} passes. The other one is the
TRADES network in l2 with {trades} passes: there the search for hidden boundaries runs on nearly all
images.

The distilled networks raise the three findings of a masked gradient; the other networks trained
here raise none.

## Photographs

Two undefended networks for photographs, both from installed packages: a ResNet-18 for CIFAR-10 and
an EfficientNet-Lite0 for ImageNet; {photo_machine}.

```
python -m benchmarks.photographs
```

{photographs}

## Large data sets

Data from a loader is streamed. `evaluate(attacks="quick")` on {large_examples:,} images in a file
of {large_data:.0f} MB increased the memory of the process by {large_growth:.0f} MB. A run that was
killed {kills} times and resumed gave the same report, except for its seconds.

```
python -m benchmarks.large_evaluation
```

## On a GPU

On one {gpu} with torch {gpu_torch}, in one run: a ResNet-18 that TRADES trained on Fashion-MNIST,
on {gpu_images} of its test images at linf {gpu_epsilon:g}. The published AutoAttack searches and
judges in the model's own precision, float32 with convolutions in TF32, which is PyTorch's default;
`evaluate` judges in it whatever it searches in. Seconds are a wall clock's, and those of the
compiled search include the compiler's. It was measured before "standard" and the diagnosis took a
quarter of the passes that they took then.

{gpu_table}

Training of a pre-activation ResNet-18 on {gpu_examples:,} random images of 3 x 32 x 32, first epoch
left out, and margin PGD of 40 steps on 2,048 of them:

{gpu_throughput}

```
python -m benchmarks.gpu
```
"""


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    return TEXT.format(**beside_autoattack(), **held_out(), **photographs(), **large(), **gpu())


def judged(found: dict[str, Any], examples: int) -> dict[str, Any]:
    """What a row says of the targets."""
    mine, theirs = found["distillguard"], found["AutoAttack"]
    standing = theirs["robust_accuracy"] >= STANDING
    passes, seconds = (mine[name] / theirs[name] for name in ("passes", "seconds"))
    cheap = passes <= PASSES and seconds <= SECONDS if standing else mine["passes"] <= FEW
    return {
        "network": found["network"],
        "radius": f"{found['norm']} {found['epsilon']:g}",
        "robust, %": 100 * mine["robust_accuracy"],
        "AutoAttack": 100 * theirs["robust_accuracy"],
        "images above": round((mine["robust_accuracy"] - theirs["robust_accuracy"]) * examples),
        "passes": round(mine["passes"]),
        "of which diagnosis": round(mine["diagnosis_passes"]),
        "AutoAttack's": round(theirs["passes"]),
        "share": passes,
        "share of seconds": seconds,
        "cost holds": cheap,
        "active test": " ".join(f"{n} {name}" for name, n in mine.get("active_test", {}).items()),
    }


def beside_autoattack() -> dict[str, Any]:
    """The rows, and what the text says of them."""
    result = load("evaluation")
    rows = [judged(row, result["examples"]) for row in result["rows"]]
    published = [row for row in rows if "published" in row["network"]]
    trained = [row for row in rows if row not in published]
    shares = [row["share"] for row in rows if row["AutoAttack"] >= 100 * STANDING]
    fewer = [row["passes"] for row in rows if row["AutoAttack"] < 100 * STANDING]
    within = [passes for passes in fewer if passes <= FEW]
    (other,) = (passes for passes in fewer if passes > FEW)
    return {
        "examples": result["examples"],
        "machine": machine(result),
        "table": table([shown(row) for row in rows], list(SHOWN)),
        "n_trained": len(trained),
        "n_above": count(row["images above"] > 0 for row in trained),
        "n_below": count(row["images above"] < 0 for row in trained),
        "n_published": len(published),
        "n_published_above": count(row["images above"] > 0 for row in published),
        "most_above": max(row["images above"] for row in published),
        "most_share": max(shares),
        "images": f"{result['examples'] * len(rows):,}",
        "few": FEW,
        "n_few": len(fewer),
        "n_within": len(within),
        "most_within": max(within),
        "trades": other,
        "trades_fewer": -hidden(rows),
    } | dict(zip(("images_above", "images_below"), apart(rows), strict=True))


def apart(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """How many images more than AutoAttack leaves, and in the other rows how many fewer."""
    above = [row["images above"] for row in rows]
    return sum(n for n in above if n > 0), -sum(n for n in above if n < 0)


def hidden(rows: list[dict[str, Any]]) -> int:
    """How many images more than AutoAttack's stand in the row of hidden boundaries."""
    (above,) = (
        row["images above"]
        for row in rows
        if "TRADES" in row["network"] and row["radius"].startswith("l2")
    )
    return int(above)


def held_out() -> dict[str, Any]:
    """What the rows on other images say."""
    result = load("evaluation-held-out")
    rows = [judged(row, result["examples"]) for row in result["rows"]]
    above, below = apart(rows)
    shares = [row["share"] for row in rows]
    return {
        "held_rows": len(rows),
        "held_rows_above": count(row["images above"] > 0 for row in rows),
        "held_rows_below": count(row["images above"] < 0 for row in rows),
        "held_most": max(row["images above"] for row in rows),
        "held_above": above,
        "held_below": below,
        "held_images": f"{result['examples'] * len(rows):,}",
        "held_trades": hidden(rows),
        "held_least": min(shares),
        "held_share": max(shares),
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the table has it."""
    percent = {name: f"{row[name]:.1f}" for name in ("robust, %", "AutoAttack")}
    return row | percent | {name: f"{row[name]:.3f}" for name in ("share", "share of seconds")}


def photographs() -> dict[str, str]:
    """The rows of ``benchmarks.photographs``, one for each attack."""
    result = load("photographs")
    rows = [
        {
            "network": row["network"],
            "images": row["images"],
            "linf": row["radius"],
            "attacks": attacks,
            "robust, %": f"{100 * row[attacks]['robust_accuracy']:.1f}",
            "passes": round(row[attacks]["passes"]),
            "seconds": round(row[attacks]["seconds"]),
        }
        for row in result["rows"]
        for attacks in ("quick", "standard", "AutoAttack")
    ]
    return {"photographs": table(rows, list(rows[0])), "photo_machine": machine(result)}


def large() -> dict[str, Any]:
    """What ``benchmarks.large_evaluation`` found."""
    result = load("large-evaluation")
    if not result["reports equal"]:
        raise ValueError("the page says that the reports are equal, and they are not")
    return {
        "large_examples": result["examples"],
        "large_data": result["data_bytes"] / 1e6,
        "large_growth": result["growth_bytes"] / 1e6,
        "kills": result["kills"],
    }


def gpu() -> dict[str, Any]:
    """What ``benchmarks.gpu`` found."""
    result = load("gpu")
    evaluated = [
        {
            "attacked by": row["what"].replace('evaluate("standard")', "`evaluate`"),
            "search in": row["setting"],
            "robust, %": f"{row['robust, %']:.2f}",
            "passes": round(row["passes"]),
            "seconds": f"{row['seconds']:.1f}",
        }
        for row in result["rows"]
        if "seconds" in row
    ]
    throughput = [
        {
            "what": row["what"],
            "setting": row["setting"],
            "images a second": f"{row['examples per second']:,.0f}",
        }
        for row in result["rows"]
        if "examples per second" in row
    ]
    return {
        "gpu": result["gpu"],
        "gpu_torch": result["versions"]["torch"],
        "gpu_images": result["images"],
        "gpu_examples": result["examples"],
        "gpu_epsilon": result["epsilon"],
        "gpu_table": table(evaluated, list(evaluated[0])),
        "gpu_throughput": table(throughput, list(throughput[0])),
    }


def machine(result: dict[str, Any]) -> str:
    """Where and when a file's figures were taken."""
    return f"{result['processor']}, torch {result['versions']['torch']}, {result['date']}"


def count(flags: Any) -> int:
    """How many of these are true."""
    return sum(map(bool, flags))
