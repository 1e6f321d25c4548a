"""After `copier update --trust`, once, in the merged project: one line of migrations, then set-up.

With conflicts in the tree the database is left alone. COPIER_FASTAPI_SETUP=skip leaves it alone, too.
"""

import os
import sys
from pathlib import Path

from revisions import UndecidedError, git, reparent
from set_up import SCRIPT, set_up


def conflicts(project: Path) -> list[str]:
    """Files, relative to the project, that the update could not merge."""
    unmerged = git(project, "diff", "--name-only", "--diff-filter=U", "--relative", "-z")
    rejected = git(project, "ls-files", "--others", "--exclude-standard", "-z", "*.rej")
    return sorted({*unmerged.split("\0"), *rejected.split("\0")} - {""})


def say(*lines: str) -> None:
    print(*(f"[update] {line}" for line in lines), sep="\n", flush=True)


def main() -> int:
    project = Path.cwd()
    try:
        say(*(reparent(project) or ["migrations: none that arrived had to move"]))
    except UndecidedError as error:
        say(str(error), f"Then run {SCRIPT}.")
        return 0
    if files := conflicts(project):
        say("the update and your changes meet in these files:", *(f"    {file}" for file in files))
        say(f"the database is as it was. Mend them, then run {SCRIPT}.")
    elif os.environ.get("COPIER_FASTAPI_SETUP") == "skip":
        say(f"COPIER_FASTAPI_SETUP=skip: run {SCRIPT} for new dependencies and migrations.")
    elif not set_up(project):
        say(f"the files are merged, set-up is not done: see above, then run {SCRIPT} again.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
