#!/bin/sh
# Sets up this project: environment, dependencies, .env and database. Safe to run again at any time.
# setup.bat takes the same steps on Windows: change both together.
set -u
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH CDPATH

say() { printf '[setup] %s\n' "$1"; }
fail() {
    printf '[setup] ERROR: %s\n' "$2" >&2
    exit "$1"
}

cd -- "$(dirname -- "$0")" || fail 1 "could not change to the folder of setup.sh"
[ -f pyproject.toml ] && [ -f constraints.txt ] && [ -f alembic.ini ] ||
    fail 1 "setup.sh is not in a project folder. If this is a symbolic link, run the original"
venv_python=.venv/bin/python

# Exit code: 0 if the dependencies are up to date, 1 if not, 2 if the project folder was moved.
stamp='
import os, pathlib, sys
wanted = os.getcwd()
for name in "pyproject.toml", "constraints.txt":
    wanted += chr(10) + pathlib.Path(name).read_text("utf-8")
stamp = pathlib.Path(".venv", "installed.txt")
if sys.argv[1:] == ["write"]:
    stamp.write_text(wanted, "utf-8")
installed = stamp.read_text("utf-8") if stamp.is_file() else ""
moved = installed and installed.splitlines()[0] != os.getcwd()
sys.exit(2 if moved else installed != wanted)
'

say "1/4 Python environment"
"$venv_python" -c "$stamp" 2>/dev/null
state=$?
# A killed installation leaves incomplete packages, so .venv is created again.
if [ "$state" -gt 1 ] || [ -e .venv/half-installed ] || ! "$venv_python" -m pip --version >/dev/null 2>&1; then
    state=1
    python=
    too_old=
    for candidate in python3 python python3.14 python3.13 python3.12 python3.11; do
        "$candidate" -c '' 2>/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            python=$candidate
            break
        fi
        too_old=$("$candidate" --version 2>&1)
    done
    if command -v uv >/dev/null 2>&1; then
        uv venv --quiet --clear --seed --python "${python:->=3.11}" .venv ||
            fail 12 "uv could not create .venv"
    elif [ -n "$python" ]; then
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            fail 12 "this Python can't create virtual environments. On Debian or Ubuntu, run: sudo apt install python3-venv"
        "$python" -m venv --clear .venv || fail 12 "could not create .venv"
    elif [ -n "$too_old" ]; then
        fail 11 "Python 3.11 or newer is required. This is $too_old"
    else
        fail 10 "Python 3.11 or newer was not found. Get it from https://www.python.org/downloads/"
    fi
fi

say "2/4 Dependencies"
if [ "$state" -ne 0 ]; then
    : >.venv/half-installed || fail 14 "could not write to .venv"
    if command -v uv >/dev/null 2>&1; then
        uv pip install --python "$venv_python" --constraint constraints.txt --editable ".[dev]"
    else
        say "    This takes about half a minute the first time."
        "$venv_python" -m pip install --disable-pip-version-check --retries 2 \
            --constraint constraints.txt --editable ".[dev]"
    fi
    failed=$?
    rm -f .venv/half-installed
    [ "$failed" -eq 0 ] ||
        fail 14 "could not install the dependencies (see above). If you were offline, connect and run ./setup.sh again"
    "$venv_python" -c "$stamp" write || fail 14 "could not write .venv/installed.txt"
fi

say "3/4 Settings (.env)"
if [ ! -e .env ]; then
    (umask 077 && cp .env.example .env.new && mv .env.new .env) || fail 15 "could not write .env"
fi

say "4/4 Database"
# A database must not be ahead of an app that does not work.
"$venv_python" -c "import app.main" || fail 17 "could not import the app (see above)"
"$venv_python" -m alembic upgrade head || fail 16 "could not migrate the database (see above)"

cat <<TEXT
[setup] Done. Start the app, then open http://localhost:8001

    .venv/bin/uvicorn app.main:app --reload --port 8001

TEXT
