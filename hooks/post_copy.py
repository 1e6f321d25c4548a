"""After `copier copy --trust`: set up the new project with its own script.

COPIER_FASTAPI_SETUP=skip does not run the script.
"""

from pathlib import Path

from migrations import UndecidedError, reparent, restore_rendered_over
from repository import (
    ANSWERS,
    SETUP_SCRIPT,
    TEMPLATE,
    escape_unprintable_output,
    git,
    last_committed,
    run_setup,
    say,
    setup_is_skipped,
)

# Copier commits uncommitted changes of the template to a clone, and deletes the clone afterwards.
DRAFT = "Copier automated commit for draft changes"


def main(project: Path) -> None:
    """Set up the new project. Never fails, because Copier would then delete the rendered project."""
    if git(TEMPLATE, "log", "-1", "--format=%s").strip() == DRAFT:
        print(
            "WARNING: the template has uncommitted changes, so this project can't be updated later. "
            "To make it updatable, commit them and generate the project again."
        )
    if last_committed(project, ANSWERS) and not order_migrations(project):
        return
    if setup_is_skipped():
        print(f"COPIER_FASTAPI_SETUP=skip: run {SETUP_SCRIPT} in {project} to set it up.")
    elif not run_setup(project, "--new"):
        print(
            f"\nSetup failed (see the error above). The project's files are complete.\n"
            f"After fixing it, run {SETUP_SCRIPT} in {project}",
            flush=True,
        )


def order_migrations(project: Path) -> bool:
    """After `copier recopy`, which renders over a living project: its migrations stay one line."""
    restore_rendered_over(project)
    try:
        say(*(reparent(project) or ["migrations: none had to move"]))
    except UndecidedError as error:
        say(str(error), f"The database was not touched. Then run {SETUP_SCRIPT}")
        return False
    return True


if __name__ == "__main__":
    escape_unprintable_output()
    main(Path.cwd())
