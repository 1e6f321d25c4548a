"""After `copier update --trust`, once, in the merged project: one line of migrations, then set-up.

With conflicts in the tree the database is left alone. COPIER_FASTAPI_SETUP=skip leaves it alone, too.
Arguments: the template's address, and the files to which both the owner and the template add lines.
"""

import os
import sys
from pathlib import Path

from console import escape_what_cannot_be_printed, say
from interrupted import end
from moved import follow_moved
from notes import notes
from removed import keep_changed
from repository import ANSWERS, changed, conflicted, last_committed, template_version
from revisions import UndecidedError, reparent, restore_committed
from seams import doubled, merge_seams
from set_up import SCRIPT, models_are_migrated, set_up

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def main(source: str, shared: list[str]) -> int:
    """Returns 1 if something is left for the owner to do."""
    project = Path.cwd()
    for file in merge_seams(project, shared):
        say(f"{file}: kept what you added and what the template added")
    kept = [*restore_committed(project), *keep_changed(project, source)]
    for line in [*kept, *follow_moved(project, source)]:
        say(line)
    in_order = order_migrations(project)
    say_what_changed(project)
    files, twice = conflicted(project), doubled(project, shared)
    if files:
        say("your changes and the template's meet in:", *(f"    {file}" for file in files))
    for line in twice:
        say(line)
    # From here on, a run that is killed leaves nothing that running set-up again does not mend.
    end(project)
    if files or twice or not in_order:
        say(f"the database is as it was. When that is mended, run {SCRIPT}")
        return 1
    return set_up_anew(project)


def order_migrations(project: Path) -> bool:
    try:
        say(*(reparent(project) or ["migrations: none that arrived had to move"]))
    except UndecidedError as error:
        say(str(error))
        return False
    return True


def say_what_changed(project: Path) -> None:
    before = template_version(last_committed(project, ANSWERS))
    after = template_version((project / ANSWERS).read_bytes())
    say(
        f"template: {before} -> {after}, {len(changed(project))} files changed; see `git status` and `git diff`"
    )
    for note in notes(CHANGELOG, before, after):
        say(note)


def set_up_anew(project: Path) -> int:
    if os.environ.get("COPIER_FASTAPI_SETUP") == "skip":
        say(f"COPIER_FASTAPI_SETUP=skip: run {SCRIPT} for new dependencies and migrations.")
        return 0
    if not set_up(project):
        say(f"the files are merged, set-up is not done: see above, then run {SCRIPT} again.")
        return 1
    say("the database is at the newest migration. Run the tests, then commit.")
    if not models_are_migrated(project):
        # No failure: a table may well have no model.
        say(
            "The models differ from it, see above. If you had dropped tables that came back with an",
            'option, `alembic revision -m "restore" --autogenerate` makes them again; then',
            "`alembic upgrade head`.",
        )
    return 0


if __name__ == "__main__":
    escape_what_cannot_be_printed()
    sys.exit(main(sys.argv[1], sys.argv[2].split()))
