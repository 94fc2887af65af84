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
{n_above} and fewer in {n_below}. Its steps and targets were chosen on other images, except for 20
steps of APGD on the cross-entropy, which were added because of one image of these.

In the {n_published} rows for published networks, it leaves more in {n_published_above}, by at most
{most_above} of {examples} images. On the TRADES network in l2 the lead of the right class does not
shrink steadily towards the boundary. `evaluate` finds more than AutoAttack there, because it runs
Carlini and Wagner's attack on the images where its first steps reach no other class. Only this
setting was chosen on these networks. Evaluations without it raise the finding
[minimum-distance-beats-pgd](../findings/minimum-distance-beats-pgd.md).

If AutoAttack leaves at least a fifth of the images, the share of passes is at most
{most_share:.3f}; the target is an eighth. If more images are fooled, the fixed cost of the
diagnosis weighs more.

The distilled networks raise the three findings of a masked gradient; the other networks trained
here raise none.

## Cheaper evaluations

If AutoAttack leaves less than a fifth of the images, the target is {few:.0f} passes in all.
{n_costly} rows miss it. This is what cheaper evaluations leave there:

- *brief*: "standard" with `diagnosis="brief"`,
- *third*: besides, about a third of the steps (FGSM, PGD on the margin from 3 starts in 15 steps,
  APGD towards 2 classes in 15 steps each),
- *quick*: `attacks="quick"`.

```
python -m benchmarks.cheaper
```

{cheaper}

A third of the steps keeps {n_third} of the {n_costly} rows within the target, and there leaves at
most {third_above} of {examples} images more than "standard". But on the TRADES network in l2 it
leaves {third_trades:.1f} % where "standard" leaves {whole_trades:.1f} %. That is why "standard" is
not cheaper.

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
compiled search include the compiler's.

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
    return TEXT.format(**beside_autoattack(), **cheaper(), **photographs(), **large(), **gpu())


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
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the table has it."""
    percent = {name: f"{row[name]:.1f}" for name in ("robust, %", "AutoAttack")}
    return row | percent | {name: f"{row[name]:.3f}" for name in ("share", "share of seconds")}


def cheaper() -> dict[str, Any]:
    """What less than "standard" leaves where that takes more passes than its target."""
    standard = {(row["network"], row["norm"]): row for row in load("evaluation")["rows"]}
    result = load("cheaper")
    lines, above = [], []
    hidden: dict[str, float] = {}
    for row in result["rows"]:
        known = standard[row["network"], row["norm"]]
        whole, third = known["distillguard"], row["third"]
        lines.append(
            {
                "network": row["network"],
                "radius": f"{row['norm']} {row['epsilon']:g}",
                "AutoAttack": f"{100 * known['AutoAttack']['robust_accuracy']:.1f} %",
                '"standard"': left_at(whole),
                "brief": left_at(row["brief"]),
                "third": left_at(third),
                "quick": left_at(row["quick"]),
            }
        )
        if third["passes"] <= FEW:
            above.append(third["robust_accuracy"] - whole["robust_accuracy"])
        else:
            hidden = {
                "third_trades": third["robust_accuracy"],
                "whole_trades": whole["robust_accuracy"],
            }
    return {
        "few": FEW,
        "n_costly": len(lines),
        "n_third": len(above),
        "third_above": round(max(above) * result["examples"]),
        "cheaper": table(lines, list(lines[0])),
    } | {name: 100 * value for name, value in hidden.items()}


def left_at(found: dict[str, Any]) -> str:
    """Robust accuracy, and the passes that it took."""
    return f"{100 * found['robust_accuracy']:.1f} %, {found['passes']:.0f} passes"


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
