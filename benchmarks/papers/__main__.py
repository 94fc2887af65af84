"""Run every reproduction, go on where a run was interrupted, and say which claims hold.

python -m benchmarks.papers [--data mnist5k|fashion|mnist|cifar10] [--seeds 3] [--full]
python -m benchmarks.papers --pages     # only judge, draw and write docs/papers from the rows
"""

from collections.abc import Sequence

from benchmarks.papers._claim import Places, lab_of, parser, verdict, work_through
from benchmarks.papers._pages import NAMES, claims, rejudge


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    options = parser(__doc__)
    options.add_argument(
        "--pages", action="store_true", help="measure nothing: judge, draw and write the pages"
    )
    options.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    chosen = options.parse_args(arguments)
    places = Places(chosen.results, chosen.docs)
    if chosen.pages:
        rejudge(places)
    else:
        wanted = [claim for claim in claims() if claim.name in chosen.only]
        results = work_through(wanted, lab_of(chosen), chosen.seeds, places, chosen.processes)
        found = [one for result in results for one in result["checks"]]
        print(f"{sum(bool(one['holds']) for one in found)} of {len(found)} checks hold")
        for one in found:
            if not one["holds"]:
                print(verdict(one), one["name"], one["value"], one["bound"])


if __name__ == "__main__":
    main()
