"""How the hooks print: on Windows a pipe has the old code page, which lacks most letters."""

import io
import sys


def escape_what_cannot_be_printed() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
