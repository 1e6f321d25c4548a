"""After `copier update --trust`, once, in the merged project: one line of migrations, then set-up.

With conflicts in the tree the database is left alone. COPIER_FASTAPI_SETUP=skip leaves it alone, too.
Arguments: the template's address, and the files to which both the owner and the template add lines.
"""

import os
import sys
from pathlib import Path

from console import escape_what_cannot_be_printed
from removed import keep_changed
from repository import conflicted
from revisions import UndecidedError, reparent, restore_committed
from seams import merge_seams
from set_up import SCRIPT, set_up


def say(*lines: str) -> None:
    print(*(f"[update] {line}" for line in lines), sep="\n", flush=True)


def main(source: str, shared: list[str]) -> int:
    """Returns 1 if something is left for the owner to do."""
    project = Path.cwd()
    for file in merge_seams(project, shared):
        say(f"{file}: kept what you added and what the template added")
    for line in [*restore_committed(project), *keep_changed(project, source)]:
        say(line)
    in_order = order_migrations(project)
    files = conflicted(project)
    if files:
        say("your changes and the template's meet in:", *(f"    {file}" for file in files))
    if files or not in_order:
        say(f"the database is as it was. When that is mended, run {SCRIPT}")
        return 1
    if os.environ.get("COPIER_FASTAPI_SETUP") == "skip":
        say(f"COPIER_FASTAPI_SETUP=skip: run {SCRIPT} for new dependencies and migrations.")
        return 0
    if not set_up(project):
        say(f"the files are merged, set-up is not done: see above, then run {SCRIPT} again.")
        return 1
    return 0


def order_migrations(project: Path) -> bool:
    try:
        say(*(reparent(project) or ["migrations: none that arrived had to move"]))
    except UndecidedError as error:
        say(str(error))
        return False
    return True


if __name__ == "__main__":
    escape_what_cannot_be_printed()
    sys.exit(main(sys.argv[1], sys.argv[2].split()))
