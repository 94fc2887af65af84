"""Put saved reports side by side."""

import argparse
from collections import Counter
from pathlib import Path

from ._values import one_of

FORMATS = {"text": "__str__", "markdown": "to_markdown", "csv": "to_csv", "latex": "to_latex"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The reports and the form of the table."""
    parser.add_argument(
        "reports",
        metavar="REPORT",
        nargs="+",
        help="a JSON file that evaluate --json or RobustnessReport.to_json wrote",
    )
    parser.add_argument(
        "--format",
        default="text",
        type=one_of(*FORMATS),
        metavar="FORM",
        help="text (default), markdown, csv or latex",
    )


def run(chosen: argparse.Namespace) -> int:
    """Read the reports and print them, each under the name of its file."""
    from ..evaluation import RobustnessReport, compare

    paths = [Path(each) for each in chosen.reports]
    stems = Counter(path.stem for path in paths)
    reports = {}
    for path in paths:
        name = path.stem if stems[path.stem] == 1 else str(path)
        if name in reports:
            raise ValueError(f"REPORT must name each file once, got {name!r} twice")
        try:
            reports[name] = RobustnessReport.from_json(path)
        except ValueError as error:
            raise ValueError(
                f"REPORT must be a file that evaluate --json wrote, got {str(path)!r}: {error}"
            ) from error
    print(getattr(compare(reports), FORMATS[chosen.format])().rstrip("\n"))
    return 0
