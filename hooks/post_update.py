"""After `copier update --trust`: merge what Copier left, rewrite moved names, then run setup.

Arguments: the template's address, and the files to which both sides add lines.
COPIER_FASTAPI_SETUP=skip does not run the setup script, so the database is not touched.
"""

import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# tools/ has the table of moved names, and what rewrites code with it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from line_merge import describe_duplicate_names, union_merge
from migrations import UndecidedError, reparent, restore_committed
from moved_files import (
    follow_renamed_by_owner,
    is_changed,
    keep_changed,
    merge_bytes,
    merge_python,
    restore_lost_names,
)
from repository import (
    ANSWERS,
    PYTHON,
    SETUP_SCRIPT,
    TEMPLATE,
    Renders,
    changed_and_new_files,
    changed_files,
    conflicted_files,
    end_update,
    escape_unprintable_output,
    git,
    git_bytes,
    last_committed,
    run_setup,
    say,
    setup_is_skipped,
    template_version,
)
from tools.moved_names import (
    MIGRATIONS,
    Table,
    names_in_other_files,
    outdated_readme_lines,
    rewrite_names,
    unresolved_imports,
)

# Prints the last line of the project that an error of its import passes through.
IMPORT_CHECK = """
import os, sys, traceback
sys.path.insert(0, os.getcwd())
for module in ("app.main", "app.cli"):
    try:
        if os.path.exists(module.replace(".", "/") + ".py"):
            __import__(module)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename.startswith(os.getcwd()) and ".venv" not in f.filename]
        file, line = (getattr(error, "filename", None), getattr(error, "lineno", None))
        if not isinstance(error, SyntaxError):
            file, line = (own[-1].filename, own[-1].lineno) if own else (module, 0)
        place = os.path.relpath(str(file)) if os.path.isabs(str(file)) else file
        sys.exit(f"{place}:{line}: {type(error).__name__}: {error}")
"""


def main(project: Path, source: str, shared: list[str]) -> int:
    """Returns 1 if anything is left for the owner to do. Ends with what the changelog asks of them."""
    code = finish(project, source, shared)
    for note in notes_of_releases(project):
        say(note)
    return code


def finish(project: Path, source: str, shared: list[str]) -> int:
    """Merge what Copier left, then run setup."""
    table = Table.load()
    for line in merge(project, source, shared, table):
        say(line)
    in_order = order_migrations(project)
    reports = rewrite_names(project, table)
    broken = unresolved_imports(project, table)
    for line in reports:
        if line not in broken:
            say(line)
    say(*names_in_other_files(project, table))
    say_what_changed(project)
    if outdated := outdated_readme_lines(project, table):
        say("Your README is not updated. It names what has moved:")
        say(*(f"    {line}" for line in outdated))
    files, duplicates = conflicted_files(project), describe_duplicate_names(project, shared)
    if files:
        say("Merge conflicts in:", *(f"    {file}" for file in files))
    if broken:
        say("These imports no longer work:", *(f"    {line}" for line in broken))
    for line in duplicates:
        say(line)
    # If the rest is interrupted, running setup again is enough.
    end_update(project)
    stops = [line for line in broken if line.startswith(("app/", MIGRATIONS))]
    if files or duplicates or stops or not in_order:
        if stops and not files:
            # Everything that is left to do, at once.
            say_type_errors(project, broken)
        say(f"The database was not touched. Resolve the above, then run {SETUP_SCRIPT}")
        return 1
    return set_up(project, broken) or int(bool(broken))


def merge(project: Path, source: str, shared: list[str], table: Table) -> Iterator[str]:
    """Fix what Copier merged wrongly or left out. Yields a sentence for each change."""
    with tempfile.TemporaryDirectory() as folder:
        renders = Renders(project, source, Path(folder))
        yield from restore_committed(project)
        merge_bytes(project, renders)
        yield from merge_python(project, table)
        yield from keep_changed(project, renders, table)
        yield from follow_renamed_by_owner(project, renders)
        yield from merge_python(project, table)
        union_merge(project, shared)
        yield from restore_lost_names(project, table)
        if merged := merged_files(project, renders):
            some = ", ".join(merged[:3]) + (", ..." if len(merged) > 3 else "")
            yield f"merged your changes and the template's in {count_files(merged)}: {some}"


def merged_files(project: Path, renders: Renders) -> list[str]:
    """The files that both sides changed and that have no conflict."""
    left_out = {ANSWERS, *conflicted_files(project)}
    return [
        file
        for file in changed_files(project, "M")
        if file not in left_out
        and (renders.old / file).is_file()
        and is_changed(project, renders.old, file)
    ]


def count_files(files: list[str]) -> str:
    return f"{len(files)} file{'s' * (len(files) != 1)}"


def order_migrations(project: Path) -> bool:
    try:
        say(*reparent(project))
    except UndecidedError as error:
        say(str(error))
        return False
    return True


def set_up(project: Path, broken: list[str]) -> int:
    if setup_is_skipped():
        say(f"COPIER_FASTAPI_SETUP=skip: run {SETUP_SCRIPT} for new dependencies and migrations.")
        return 0
    done = run_setup(project, "--updated")
    say("Importing the app and checking its types")
    error = import_error(project)
    if error:
        say(f"the app can't be imported: {error}")
    has_type_errors = say_type_errors(project, broken)
    if error or not done:
        say(f"The files are merged, but setup failed. Fix the error above, then run {SETUP_SCRIPT}")
        return 1
    if has_type_errors or broken:
        say("The database is at the latest migration. Fix the errors above, then run the tests.")
    else:
        say("The database is at the latest migration. Run the tests, then commit.")
    if difference := model_difference(project):
        # Not a failure: a table need not have a model.
        say(
            difference,
            "Your models and the database differ. If an option brought back models whose",
            'tables you had dropped, `alembic revision -m "restore" --autogenerate` creates them again;',
            "then run `alembic upgrade head`.",
        )
    return int(has_type_errors)


def run_python(
    project: Path, *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the project's own Python. It succeeds silently if the owner's setup creates another one."""
    command = [str(project / PYTHON), *arguments]
    if not (project / PYTHON).is_file():
        return subprocess.CompletedProcess(command, 0, "", "")
    return subprocess.run(
        command,
        cwd=folder or project,
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )


def import_error(project: Path) -> str:
    """Where the import of the app fails and why; empty if it works."""
    run = run_python(project, "-c", IMPORT_CHECK)
    return (run.stderr.strip().splitlines() or ["unknown error"])[-1] if run.returncode else ""


def say_type_errors(project: Path, broken: list[str]) -> bool:
    """Name the type errors that the last commit does not have, without the imports named before."""
    named = {line.split(": ")[0] for line in broken}
    errors = [line for line in new_type_errors(project) if line.split(": ")[0] not in named]
    if errors:
        say("mypy finds what the update broke:", *(f"    {line}" for line in errors))
    return bool(errors)


def new_type_errors(project: Path) -> list[str]:
    """The last commit is only checked if there are errors, since that takes as long again."""
    errors = type_errors(project, project)
    if not errors:
        return []
    with tempfile.TemporaryDirectory() as folder:
        archive = io.BytesIO(git_bytes(project, "archive", "--format=zip", "HEAD"))
        with zipfile.ZipFile(archive) as files:
            files.extractall(folder)
        # What mypy knows of the libraries need not be found again.
        cache = ("--cache-dir", str(project / ".mypy_cache"))
        found = type_errors(project, Path(folder), *cache)
        known = Counter((file, text) for file, _, text in found)
    new = []
    for file, line, text in errors:
        if not known[file, text]:
            new.append(f"{file}:{line}: {text}")
        known[file, text] -= 1
    return new


def type_errors(project: Path, folder: Path, *options: str) -> list[tuple[str, str, str]]:
    """File, line and text of what the project's mypy finds in a folder; nothing without mypy."""
    format_options = ("--no-pretty", "--no-color-output", "--hide-error-context")
    run = run_python(project, "-m", "mypy", *format_options, *options, folder=folder)
    found = re.findall(r"^([^:\n]+):(\d+)(?::\d+)?: error: (.*)$", run.stdout, re.MULTILINE)
    return [(file.replace("\\", "/"), line, text) for file, line, text in found]


def model_difference(project: Path) -> str:
    """What a new migration would contain; empty if nothing."""
    run = run_python(project, "-m", "alembic", "check")
    said = (run.stderr + run.stdout).strip().splitlines()
    return (said or ["alembic check failed"])[-1] if run.returncode else ""


# ---- the changelog ----------------------------------------------------------------------------


def say_what_changed(project: Path) -> None:
    before, after = (describe_version(name) for name in updated_versions(project))
    files = count_files(changed_and_new_files(project))
    say(f"template: {before} -> {after}, {files} changed; see `git status` and `git diff`")


def updated_versions(project: Path) -> tuple[str, str]:
    """The versions of the template before and after this update."""
    now = (project / ANSWERS).read_bytes()
    return template_version(last_committed(project, ANSWERS)), template_version(now)


def describe_version(name: str) -> str:
    """A bare commit, as of a clone without tags, is preceded by the version that it declares."""
    declared = declared_version(name)
    return name if version(name) or not declared else f"{declared} ({name[:10]})"


def declared_version(name: str) -> str:
    """The version itself, or what pyproject.toml had in that commit of the template."""
    if version(name):
        return name
    found = re.search(r'^version = "(.+)"', git(TEMPLATE, "show", f"{name}:pyproject.toml"), re.M)
    return found[1] if found else ""


def notes_of_releases(project: Path) -> Iterator[str]:
    before, after = (declared_version(name) for name in updated_versions(project))
    return release_notes(TEMPLATE / "CHANGELOG.md", before, after)


def release_notes(changelog: Path, before: str, after: str) -> Iterator[str]:
    """The paragraphs "After updating" of the releases in between, oldest first."""
    if not changelog.is_file() or not version(before):
        return
    _, *parts = re.split(r"^## \[?([^]\s]+).*$", changelog.read_text("utf-8"), flags=re.M)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    for name in sorted(sections, key=version):
        if version(before) < version(name) <= (version(after) or version(name)):
            for paragraph in sections[name].split("\n\n"):
                if paragraph.strip().startswith("After updating"):
                    yield f"{name}: {' '.join(paragraph.split())}"


def version(text: str) -> tuple[int, ...]:
    """The numbers of `v0.3.0`, `0.3.0` or `v0.3.0-5-gab0fea6`; nothing for a bare commit."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


if __name__ == "__main__":
    escape_unprintable_output()
    sys.exit(main(Path.cwd(), sys.argv[1], sys.argv[2].split()))
