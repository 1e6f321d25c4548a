"""Copier without what takes most of its time and changes nothing in a new folder."""

from types import CodeType

import jinja2
import pytest
from copier._main import Worker


def hurry(patch: pytest.MonkeyPatch) -> None:
    # For each file, it asks git whether the folder is a repository that ignores file modes.
    patch.setattr(Worker, "_sync_git_index_executable_bit", lambda *_: None)

    # It compiles the names of all files again for each project.
    compile_template = jinja2.Environment.compile
    compiled: dict[tuple[object, ...], CodeType | str] = {}

    def compile_once(self: jinja2.Environment, source: str, *arguments: object) -> CodeType | str:
        # Environments with equal options share a lexer.
        key = (self.lexer, source, arguments)
        if key not in compiled:
            compiled[key] = compile_template(self, source, *arguments)  # type: ignore[call-overload]
        return compiled[key]

    patch.setattr(jinja2.Environment, "compile", compile_once)
