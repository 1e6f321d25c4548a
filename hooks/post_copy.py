"""After `copier copy --trust`: set up the new project with its own script.

Arguments: the project's folder as the user wrote it, and the template's address.
COPIER_FASTAPI_SETUP=skip does not run the script.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from migrations import UndecidedError, reparent, restore_rendered_over
from repository import (
    ANSWERS,
    FOLDER_VARIABLE,
    SETUP_SCRIPT,
    TEMPLATE,
    escape_unprintable_output,
    git,
    last_committed,
    published_address,
    run_setup,
    say,
    setup_is_skipped,
    template_version,
)

# Copier commits uncommitted changes of the template to a clone, and deletes the clone afterwards.
DRAFT = "Copier automated commit for draft changes"


def main(project: Path, folder: str, source: str) -> None:
    """Set up the new project. Never fails, because Copier would then delete the rendered project."""
    is_new = not last_committed(project, ANSWERS)
    source = make_source_absolute(project, folder, source)
    if not is_new and not order_migrations(project):
        return
    if setup_is_skipped():
        print(f"COPIER_FASTAPI_SETUP=skip: run {SETUP_SCRIPT} in {project} to set it up.")
    else:
        os.environ[FOLDER_VARIABLE] = folder
        if not run_setup(project, "--new" if is_new else "--updated"):
            print(
                "\nSetup failed (see the error above). The project's files are complete.\n"
                f"After fixing it, run {SETUP_SCRIPT} in {project}",
                flush=True,
            )
    for note in notes_on_updates(project, source):
        print(f"\nNOTE: {note}", flush=True)


def make_source_absolute(project: Path, folder: str, source: str) -> str:
    """Let updates find the template from any folder, not only from the one of this command."""
    if is_url(source) or Path(source).expanduser().is_absolute():
        return source
    parts = Path(folder).parts
    started_in = project.joinpath(*[".."] * len(parts))
    if Path(folder).is_absolute() or ".." in parts:
        started_in = Path(os.environ.get("PWD", project))
    template = (started_in / source).resolve()
    if not (template / "copier.yml").is_file():
        return source
    answers = project / ANSWERS
    line = f"_src_path: {json.dumps(str(template), ensure_ascii=False)}"
    text = answers.read_text("utf-8")
    answers.write_text(re.sub(r"^_src_path: .*$", lambda _: line, text, flags=re.M), "utf-8")
    return str(template)


def is_url(source: str) -> bool:
    return re.match(r"\w{2,}[:@]", source) is not None


def notes_on_updates(project: Path, source: str) -> Iterator[str]:
    """What prevents later updates, and what to do."""
    known = template_version((project / ANSWERS).read_bytes()) != "unknown"
    if not known:
        yield (
            "this project can't be updated later, because its template has no git history. For a "
            "project that can, create it from a git clone or a URL."
        )
    elif git(TEMPLATE, "log", "-1", "--format=%s").strip() == DRAFT:
        yield (
            "the template has uncommitted changes, so this project can't be updated later. Commit "
            "them and create the project again."
        )
    elif git(TEMPLATE, "rev-parse", "--is-shallow-repository").strip() == "true":
        yield (
            "the template is a shallow clone. Updates fail once it no longer has this version. To "
            f'keep it, run: git -C "{source}" fetch --unshallow'
        )
    if known and not is_url(source) and (project / ".github").is_dir():
        address = published_address()
        yield (
            "GitHub can't reach a template on this computer. Before you push the project, change "
            f"_src_path in {ANSWERS} to {address or 'the URL of the template'}."
        )


def order_migrations(project: Path) -> bool:
    """After `copier recopy`, which renders over a living project: its migrations stay one line."""
    restore_rendered_over(project)
    try:
        say(*reparent(project))
    except UndecidedError as error:
        say(str(error), f"The database was not touched. Then run {SETUP_SCRIPT}")
        return False
    return True


if __name__ == "__main__":
    escape_unprintable_output()
    main(Path.cwd(), *sys.argv[1:])
