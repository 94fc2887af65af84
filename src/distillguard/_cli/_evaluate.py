"""Attack a model within a radius, and print the accuracy that is left and what to believe of it."""

import argparse
import sys
from pathlib import Path

from ._data import data_from
from ._model import model_from
from ._values import count, number, one_of, seed, share


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is evaluated, in which threat model, how, and where the report goes."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="module:name of a model, a fitted estimator or a function that returns one; a "
        "TorchScript or torch.export file; or a folder that an estimator's save wrote",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder of images with one folder per class; an .npz file with arrays X and y; or "
        "cifar10, digits, fashion_mnist, mnist, mnist5k for the test set of that name",
    )
    threat = parser.add_argument_group("threat model")
    threat.add_argument(
        "--epsilon",
        type=number,
        required=True,
        metavar="RADIUS",
        help="such as 8/255, in the units of DATA; a whole number in l0 and l0_pixels",
    )
    threat.add_argument(
        "--norm",
        default="linf",
        type=one_of("linf", "l2", "l1", "l0", "l0_pixels"),
        metavar="NORM",
        help="linf (default), l2, l1, or l0 or l0_pixels: how many values or pixels change",
    )
    threat.add_argument(
        "--bounds",
        type=number,
        nargs=2,
        default=(0.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="lowest and highest value of an input (default: 0 1)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--preset",
        default="standard",
        type=one_of("quick", "standard", "autoattack"),
        metavar="NAME",
        help="the attacks: quick, standard (default) or autoattack",
    )
    how.add_argument("--seed", type=seed, default=0, help="of everything random (default: 0)")
    how.add_argument(
        "--limit", type=count, metavar="N", help="examples, drawn by the seed (default: all)"
    )
    how.add_argument("--batch-size", type=count, default=256, metavar="N", help="default: 256")
    how.add_argument("--device", help="auto, cpu, cuda:1, ... (default: where it lies)")
    out = parser.add_argument_group("what comes of it")
    out.add_argument("--html", metavar="FILE", help="write the report as a page")
    out.add_argument("--json", metavar="FILE", help="write the report for compare")
    out.add_argument(
        "--fail-under",
        type=share,
        metavar="SHARE",
        help="exit with 1 if the robust accuracy to quote is below it, such as 0.45",
    )


def run(chosen: argparse.Namespace) -> int:
    """Evaluate, print, write, and judge."""
    from .._files import check_writable
    from ..evaluation import evaluate

    for option in ("html", "json"):
        path = getattr(chosen, option)
        if path is not None and Path(path).is_dir():
            raise ValueError(f"--{option} must be a file, got the folder {path!r}")
        if path is not None:
            check_writable(path)
    model = model_from(chosen.model, chosen.device)
    data = data_from(chosen.data, getattr(model, "classes_", None))
    data = data.limited(chosen.limit, chosen.seed)
    report = evaluate(
        model,
        data.X,
        data.y,
        norm=chosen.norm,
        epsilon=chosen.epsilon,
        attacks=chosen.preset,
        bounds=tuple(chosen.bounds),
        batch_size=chosen.batch_size,
        random_state=chosen.seed,
        progress=sys.stderr.isatty(),
        class_names=data.class_names,
        dataset=data.name,
    )
    print(report)
    if chosen.html is not None:
        report.to_html(chosen.html)
    if chosen.json is not None:
        report.to_json(chosen.json)
    if chosen.fail_under is None:
        return 0
    held = report.quoted_accuracy >= chosen.fail_under
    counted = f"{round(report.quoted_accuracy * report.n_examples)} of {report.n_examples}"
    print(
        f"\nRobust accuracy to quote {report.quoted_accuracy:.4f} ({counted}), at least "
        f"{chosen.fail_under:g} wanted: {'held' if held else 'failed'}"
    )
    return 0 if held else 1
