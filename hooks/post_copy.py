"""After `copier copy --trust`: set up the new project with its own script.

COPIER_FASTAPI_SETUP=skip does not run the script.
"""

from pathlib import Path

from repository import (
    SETUP_SCRIPT,
    TEMPLATE,
    escape_unprintable_output,
    git,
    run_setup,
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
    if setup_is_skipped():
        print(f"COPIER_FASTAPI_SETUP=skip: run {SETUP_SCRIPT} in {project} to set it up.")
    elif not run_setup(project):
        print(
            f"\nSetup failed (see the error above). The project's files are complete.\n"
            f"After fixing it, run {SETUP_SCRIPT} in {project}",
            flush=True,
        )


if __name__ == "__main__":
    escape_unprintable_output()
    main(Path.cwd())
