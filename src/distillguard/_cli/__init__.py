"""The command line. What a command needs is imported when it runs: ``--help`` waits for nothing."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from .._version import __version__
from . import _compare, _demo, _evaluate, _exercises

EXIT_CODES = """exit codes:
  0    done; with --fail-under: held
  1    the accuracy to quote is below --fail-under; an answer to an exercise is wrong
  2    wrong use, or an error
  130  interrupted
"""


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise what :func:`main` prints."""
        raise ValueError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what goes wrong is a sentence on stderr."""
    chosen = argparse.Namespace(traceback=False)
    try:
        _parser().parse_args(arguments, chosen)
        code: int = chosen.run(chosen)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stdout = None  # whoever read it has gone
        return 0
    except Exception as error:
        if chosen.traceback:
            raise
        print(f"distillguard: error: {_sentence(error)}", file=sys.stderr)
        return 2
    return code


def _parser() -> Parser:
    shared = Parser(add_help=False)
    shared.add_argument(
        "--traceback", action="store_true", help="show where in the code an error came from"
    )
    parser = Parser(
        prog="distillguard",
        description="Attack a classifier and report what its robustness is worth.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"distillguard {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, command in {
        "demo": _demo,
        "evaluate": _evaluate,
        "compare": _compare,
        "exercises": _exercises,
    }.items():
        summary = (command.__doc__ or "").splitlines()[0]
        own = commands.add_parser(
            name,
            help=summary,
            description=summary,
            parents=[shared],
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return parser


def _sentence(error: Exception) -> str:
    """What an error says, in one line; one that is not of a kind that we raise, with its kind."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | TypeError | OSError | ImportError) and text:
        return text
    return f"{type(error).__name__}: {text}; --traceback shows where"
