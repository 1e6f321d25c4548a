"""Before `copier update --trust` changes anything: refuse what would lose lines."""

import re
import sys
import tempfile
from pathlib import Path

from repository import (
    begin_update,
    committed_half_update,
    escape_unprintable_output,
    git,
    list_files,
    say,
    update_marker,
)


def main(project: Path) -> int:
    if git(project, "config", "--get", "status.showUntrackedFiles").strip() == "no":
        say(
            "git is configured to hide untracked files, but Copier looks for them to merge your lines.",
            "Run `git config --local status.showUntrackedFiles normal`, then update again.",
        )
        return 1
    if refusal := unreadable_names(project):
        say(*refusal)
        return 1
    commit = committed_half_update(project)
    if commit:
        say(
            "an earlier update was interrupted, and its unfinished result was committed: some of your",
            f"lines may be missing. `git diff {commit[:10]} HEAD` shows what changed since. To start",
            f"over, go back to {commit[:10]} and update again. If nothing is missing, delete",
            f"{update_marker(project)}",
        )
        return 1
    begin_update(project)
    return 0


def unreadable_names(project: Path) -> list[str]:
    """What to do about names of files at which Copier fails after it has written half of them."""
    files = list_files(project, "ls-files")
    status = list_files(project, "status", "--porcelain", "--ignored")
    files += [entry[3:] for entry in status if entry.startswith("!!")]
    for file in files:
        name = file.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if name != file:
            return [f"the name of {name} is not UTF-8. Rename the file, commit, and update again."]
    # Copier takes such a character for a byte if git does not quote it.
    read_as_bytes = [file for file in files if re.search(r"[\x80-\xff]", file)]
    # Copier also works in folders of its clones, where the project's own configuration is missing.
    for folder in (project, Path(tempfile.gettempdir())):
        found = git(folder, "config", "--show-scope", "--type=bool", "--get", "core.quotePath")
        scope, _, quotes = found.strip().partition("\t")
        if quotes == "false" and read_as_bytes:
            return [
                f"git is configured not to quote names, and Copier can't read {read_as_bytes[0]} then.",
                f"Run `git config --{scope} core.quotePath true`, then update again.",
            ]
    return []


if __name__ == "__main__":
    escape_unprintable_output()
    sys.exit(main(Path.cwd()))
