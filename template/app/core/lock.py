"""Writes the exact versions of all libraries: `constraints.txt` and `requirements.txt`.

Setup installs the versions of constraints.txt. Production installs requirements.txt, which has
hashes and leaves out the development tools.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CONSTRAINTS = "constraints.txt"
REQUIREMENTS = "requirements.txt"
_HEADERS = {
    CONSTRAINTS: "# The exact versions of all libraries. Setup installs these.\n",
    REQUIREMENTS: "# What production installs, from `python -m app lock`. Do not edit it.\n",
}
_COMPILE = ["pip", "compile", "--universal", "--no-annotate", "--no-header", "--quiet"]
_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)


class LockError(Exception):
    pass


def lock(project: Path, *, upgrade: bool = False) -> None:
    """Add pins for new libraries and drop those of removed ones. Existing pins stay as they are."""
    if (project / REQUIREMENTS).exists() and not _is_lock(project / REQUIREMENTS):
        raise LockError(f"{REQUIREMENTS} is not from this command: rename it, and run this again")
    package = _read_package(project)
    oldest = re.findall(r"\d[\d.]*", package["project"]["requires-python"])[0]
    builds = package["build-system"]["requires"]
    extras = package["project"].get("optional-dependencies", {})
    with tempfile.TemporaryDirectory() as folder:
        uv = _find_uv(project, Path(folder))
        # The compiler leaves out what builds the project.
        build, tools = Path(folder, "build.in"), Path(folder, "tools.in")
        build.write_text("\n".join(builds), "utf-8")
        tools.write_text("uv\n", "utf-8")
        options = ["--python-version", oldest, "pyproject.toml", str(build)]
        everything = [str(tools), "--all-extras", *(["--upgrade"] if upgrade else [])]
        hashed = ["--generate-hashes", "--constraint", CONSTRAINTS]
        hashed += [f"--extra={extra}" for extra in extras if extra != "dev"]
        for file, more in ((CONSTRAINTS, everything), (REQUIREMENTS, hashed)):
            command = [*uv, *_COMPILE, *options, *more, "--output-file", file]
            if subprocess.run(command, cwd=project, check=False).returncode:  # noqa: S603
                raise LockError("could not find versions that fit (see above)")
            target = project / file
            target.write_text(_HEADERS[file] + target.read_text("utf-8"), "utf-8", newline="\n")


def _is_lock(file: Path) -> bool:
    """Whether this command wrote it. An owner may have a file of this name."""
    return file.exists() and file.read_text("utf-8").startswith(_HEADERS[REQUIREMENTS])


def _read_package(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text("utf-8"))


def _find_uv(project: Path, folder: Path) -> list[str]:
    """The command uv. Without it, pip installs it for this one time."""
    if find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    if program := shutil.which("uv"):
        return [program]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--constraint", CONSTRAINTS, "--target", str(folder), "uv"]
    if subprocess.run(command, cwd=project, check=False).returncode:  # noqa: S603
        raise LockError("could not install uv (see above)")
    return [shutil.which("uv", path=folder / "bin") or "uv"]


def find_stale_pins(project: Path) -> list[str]:
    """What `pyproject.toml` and the files with the exact versions disagree about."""
    files = [project / name for name in ("pyproject.toml", CONSTRAINTS, REQUIREMENTS)]
    if not _is_lock(files[-1]) or not all(file.exists() for file in files):
        return []
    constraints, requirements = (_read_pins(file) for file in files[1:])
    package = _read_package(project)["project"]
    extras = package.get("optional-dependencies", {})
    groups = [package["dependencies"], *(extras[name] for name in extras if name != "dev")]
    names = {_name_of(line) for group in groups for line in group}
    missing = sorted(names - requirements.keys())
    different = [name for name, pin in requirements.items() if constraints.get(name) != pin]
    return [
        *(f"{REQUIREMENTS} lacks {name}" for name in missing),
        *(f"{REQUIREMENTS} and {CONSTRAINTS} differ in {name}" for name in different),
    ]


def find_other_versions(project: Path) -> list[str]:
    """Installed libraries that do not have the version of `requirements.txt`."""
    file = project / REQUIREMENTS
    if not _is_lock(file) or not (project / "pyproject.toml").exists():
        return []
    # What builds the project does not run, and pip has a copy for itself.
    builds = {_name_of(line) for line in _read_package(project)["build-system"]["requires"]}
    found = []
    for name, pin in _read_pins(file).items():
        if name in builds:
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            # It may be for another platform.
            continue
        if installed != pin:
            found.append(f"{name} {installed} is installed, but {REQUIREMENTS} has {pin}")
    return found


def _read_pins(file: Path) -> dict[str, str]:
    return {_normalize(name): pin for name, pin in _PIN.findall(file.read_text("utf-8"))}


def _name_of(requirement: str) -> str:
    return _normalize(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
