#!/bin/sh
# Sets up this project: environment, dependencies, .env and database. Safe to run again at any time.
# It finds Python and creates .venv; app/core/setup.py does the rest. setup.bat does so on Windows.
set -u
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH CDPATH

say() { printf '[setup] %s\n' "$1"; }
fail() {
    printf '[setup] ERROR: %s\n' "$2" >&2
    exit "$1"
}

cd -- "$(dirname -- "$0")" || fail 1 "could not change to the folder of setup.sh"
[ -f constraints.txt ] && [ -f app/core/setup.py ] ||
    fail 1 "setup.sh is not in a project folder. If this is a symbolic link, run the original"
venv_python=.venv/bin/python
set_up=app/core/setup.py

say "1/4 Python environment"
if ! "$venv_python" -P $set_up --is-usable 2>/dev/null; then
    python=
    too_old=
    for candidate in python3 python python3.15 python3.14 python3.13 python3.12 python3.11; do
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

# -P: a file in app/core must not replace a module of the standard library.
exec "$venv_python" -P $set_up "$@"
