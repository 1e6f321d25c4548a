"""How commands speak to the person at the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


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
