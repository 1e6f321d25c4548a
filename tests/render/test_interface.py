"""The names that owners import: one list, which the documents, the code and its users agree on."""

import re

from tests.render.test_project_documents import (
    DEVELOPING,
    code_blocks,
    imported_names,
    listed_names,
)
from tests.support.breaking_changes import Code
from tests.support.projects import Project
from tests.update.test_moved_names import public_names
from tools.interface import DOCUMENT, Interface

INTERFACE = Interface.load()
TEMPLATES = ("app.auth.", "app.core.")


def test_the_document_has_the_tables_that_the_command_writes() -> None:
    text = DOCUMENT.read_text("utf-8")

    assert text == INTERFACE.document(text)
    assert INTERFACE.document("{# interface: import #}\n{# end #}\n").count("| `app.") > 40


def test_every_project_lists_the_names_that_it_has(project: Project) -> None:
    names = INTERFACE.names(auth=project.answers["auth"])
    code = Code(project.path)

    assert {name for name in names if not code.find(name)} <= INTERFACE.deprecated.keys()
    assert listed_names(project) == [name for name in names if name.startswith("app.")]
    fixtures = [name.rpartition(".")[2] for name in names if name.startswith("tests.")]
    assert [name for name in fixtures if f"\n| `{name}` |" not in project.read(DEVELOPING)] == []
    assert len(names) == len(set(names)) > 40


def test_a_name_of_the_template_is_listed_or_private(project: Project) -> None:
    """By its underscore, or because its module is one that the document calls private."""
    listed = INTERFACE.names()
    code = Code(project.path)
    # Names that modules of the owner pass on, such as `app.errors.NotFound`.
    paths = {found.path for name in listed if (found := code.find(name))}
    undecided = {
        name
        for name in public_names(project.path)
        if name.startswith(TEMPLATES)
        and not INTERFACE.is_internal(name.rpartition(".")[0])
        and not name.endswith(".logger")
    }

    assert undecided - paths == set()
    assert len(undecided) > 20


def test_modules_that_are_private_exist(project: Project) -> None:
    modules = [module for module in INTERFACE.internal if module != "app.auth"]

    assert [m for m in modules if not project.has(f"{m.replace('.', '/')}.py")] == []
    assert project.has("app/auth") == project.answers["auth"]


def test_what_owners_are_shown_and_given_imports_only_listed_names(project: Project) -> None:
    """The recipes, the files that an owner starts with, and the tests of the project."""
    listed = set(INTERFACE.names())
    documents = (str(file) for file in project.files() if file.suffix == ".md")
    sources = {
        document: "\n".join(code_blocks(project.read(document))) for document in documents
    } | {
        str(file): project.read(str(file))
        for file in project.files()
        if file.suffix == ".py" and file.parts[:2] not in {("app", "auth"), ("app", "core")}
    }
    missing = []
    for source, text in sources.items():
        module = source.removesuffix(".py").replace("/", ".")
        for name in imported_names(text):
            passed_on = f"{module}.{name.rpartition('.')[2]}"
            if name.startswith(TEMPLATES) and not {name, passed_on} & listed:
                missing.append((source, name))

    assert missing == []
    assert len(sources) > 20


def test_what_documents_name_in_a_sentence_is_listed(project: Project) -> None:
    """As in "call `recheck` from `app.auth.permissions`"."""
    listed = set(INTERFACE.names())
    mentioned = {
        f"{module}.{name}"
        for file in ("AGENTS.md", DEVELOPING, "docs/operating.md", "docs/security.md")
        for name, module in re.findall(
            r"`(\w+)`\s+from\s+`(app\.(?:core|auth)\.\w+)`", project.read(file)
        )
    }

    assert "app.core.routing.Router" in mentioned
    assert mentioned - listed == set()
