"""After `copier update --trust`, once, in the merged project: one line of migrations, then set-up.

With conflicts in the tree the database is left alone. COPIER_FASTAPI_SETUP=skip leaves it alone, too.
Argument: the files to which both the owner and the template add lines, with spaces between.
"""

import os
import sys
from pathlib import Path

from revisions import UndecidedError, reparent
from seams import conflicted, merge_seams
from set_up import SCRIPT, set_up


def say(*lines: str) -> None:
    print(*(f"[update] {line}" for line in lines), sep="\n", flush=True)


def main(shared: list[str]) -> int:
    project = Path.cwd()
    for file in merge_seams(project, shared):
        say(f"{file}: kept what you added and what the template added")
    try:
        say(*(reparent(project) or ["migrations: none that arrived had to move"]))
    except UndecidedError as error:
        say(str(error), f"Then run {SCRIPT}.")
        return 0
    if files := conflicted(project):
        say("the update and your changes meet in these files:", *(f"    {file}" for file in files))
        say(f"the database is as it was. Mend them, then run {SCRIPT}.")
    elif os.environ.get("COPIER_FASTAPI_SETUP") == "skip":
        say(f"COPIER_FASTAPI_SETUP=skip: run {SCRIPT} for new dependencies and migrations.")
    elif not set_up(project):
        say(f"the files are merged, set-up is not done: see above, then run {SCRIPT} again.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split()))
