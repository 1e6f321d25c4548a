"""How commands speak to the person at the terminal."""

import asyncio
import io
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

Result = TypeVar("Result")


def escape_what_cannot_be_printed() -> None:
    """On Windows a pipe or a file gets the old code page, which has few of the world's letters."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """As `asyncio.run`; psycopg can't use the event loop that Windows has by default."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


def fail(reason: object) -> typer.Exit:
    """What to raise: the reason on standard error, and the exit code 1."""
    typer.echo(f"Error: {reason}", err=True)
    return typer.Exit(1)


def ask_secret(name: str) -> str:
    """Twice on a terminal, otherwise one line of standard input; never an argument."""
    if sys.stdin.isatty():
        return str(typer.prompt(name, hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work that is reported with how much is done, and of how much."""
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress() as bars:

        def show(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = bars.add_task(kind)
            bars.update(tasks[kind], completed=done, total=total)

        yield show
