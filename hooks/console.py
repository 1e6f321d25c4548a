"""How the hooks print: on Windows a pipe has the old code page, which lacks most letters."""

import io
import sys


def escape_what_cannot_be_printed() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(*lines: str) -> None:
    """Lines of an update, each by itself recognisable among those of other programs."""
    print(*(f"[update] {line}" for line in lines), sep="\n", flush=True)
