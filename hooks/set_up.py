"""Running the set-up script of a generated project: the only place where set-up is written."""

import os
import subprocess
from pathlib import Path

WINDOWS = os.name == "nt"
SCRIPT = ".\\setup.bat" if WINDOWS else "./setup.sh"
PYTHON = ".venv/Scripts/python.exe" if WINDOWS else ".venv/bin/python"


def set_up(project: Path) -> bool:
    """Run the project's own set-up script, its output in view; tell whether it succeeded."""
    command = ["cmd", "/c", SCRIPT] if WINDOWS else ["sh", SCRIPT]
    return subprocess.run(command, cwd=project, check=False).returncode == 0


def models_are_migrated(project: Path) -> bool:
    """Whether a new migration would have nothing to do; Alembic says what, if it had."""
    python = project / PYTHON
    if not python.is_file():
        # Its owner has set-up make another environment.
        return True
    command = [str(python), "-m", "alembic", "check"]
    return subprocess.run(command, cwd=project, check=False).returncode == 0
