"""Copier without what takes most of its time and changes nothing in a new folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType

import jinja2
import pytest
from copier._main import Worker

_compiled: dict[tuple[object, ...], CodeType | str] = {}
_compile = jinja2.Environment.compile


@contextmanager
def hurried() -> Iterator[None]:
    """Only for new folders: an update of a repository needs all of Copier."""
    with pytest.MonkeyPatch.context() as patch:
        # For each file, it asks git whether the folder is a repository that ignores file modes.
        patch.setattr(Worker, "_sync_git_index_executable_bit", lambda *_: None)
        # It compiles the names of all files again for each project.
        patch.setattr(jinja2.Environment, "compile", _compile_once)
        yield


def _compile_once(
    environment: jinja2.Environment, source: str, *arguments: object
) -> CodeType | str:
    # Environments with equal options share a lexer.
    key = (environment.lexer, source, arguments)
    if key not in _compiled:
        # jinja2 declares two forms of this method, and the arguments are passed on unread.
        _compiled[key] = _compile(environment, source, *arguments)  # type: ignore[call-overload]
    return _compiled[key]
