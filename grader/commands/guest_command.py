"""The command line of what runs guests to look at them: `make explain`, `make timeline`, `make debug`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable

from grader.commands import play
from grader.course import LABS
from grader.execution.runs import CannotGrade


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that these commands share."""
    parser = argparse.ArgumentParser(prog=f"make {name}", description=description)
    parser.add_argument("--lab", type=int, choices=LABS, default=1)
    parser.add_argument("--solution", action="store_true")
    parser.add_argument("--from", dest="source", default="", metavar="mine")
    parser.add_argument("--backend", default="")
    parser.add_argument("--guests", type=str.split, default=[], help="names or files")
    parser.add_argument("--options", type=shlex.split, default=[], help="those of the VMM")
    return parser


def carry_out(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> int:
    """Carries out the command with its arguments; returns the exit status."""
    arguments = parser.parse_args()
    try:
        return command(arguments)
    except play.Stop as stop:
        return stop.status
    except CannotGrade as error:
        play.say(f"This machine can't run this: {error}")
        return play.CANNOT_RUN
