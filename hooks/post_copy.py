"""After `copier copy --trust`: sets the new project up by its own script.

Never fails: Copier would delete the rendered project because, say, there was no network.
COPIER_FASTAPI_SETUP=skip renders only.
"""

import os
from pathlib import Path

from console import escape_what_cannot_be_printed
from repository import git
from set_up import SCRIPT, set_up

# The commit in which Copier keeps uncommitted changes, in a clone that it deletes afterwards.
DRAFT = "Copier automated commit for draft changes"


def main() -> None:
    project = Path.cwd()
    template = Path(__file__).resolve().parents[1]
    if git(template, "log", "-1", "--format=%s").strip() == DRAFT:
        print(
            "WARNING: the template has uncommitted changes, and nothing will know later what they "
            "were: this project can't be updated. To be able to, commit them, then generate it again."
        )
    if os.environ.get("COPIER_FASTAPI_SETUP") == "skip":
        print(f"COPIER_FASTAPI_SETUP=skip: run {SCRIPT} in {project} to set it up.")
    elif not set_up(project):
        print(
            f"\nSet-up did not finish: the reason stands above. The project itself is complete.\n"
            f"When the reason is gone, run {SCRIPT} in {project}",
            flush=True,
        )


if __name__ == "__main__":
    escape_what_cannot_be_printed()
    main()
