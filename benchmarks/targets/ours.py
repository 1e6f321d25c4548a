"""The generated app: every middleware and a real login. Only hashing in a create is left out."""

import importlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.client import App
from benchmarks.databases import add_session

# `serve` as a user starts it. Hashing would be all that is measured. Under callgrind, every read
# would take too long for the event loop.
SERVE = """
import app.auth.users
import app.cli
import app.core.sqlite_driver

async def without_hashing(*_, **__):
    return "!"

app.auth.users.hash_new_password = without_hashing
vars(app.core.sqlite_driver)["_LOOP_SECONDS"] *= 50
app.cli.main()
"""


@asynccontextmanager
async def opened(project: Path, database: Path) -> AsyncIterator[tuple[App, str]]:
    """The app in this process, and a token."""
    os.environ.update({"DATABASE_URL": f"sqlite:///{database}", "LOG_LEVEL": "WARNING"})
    os.chdir(project)
    sys.path.insert(0, str(project))
    app: Any = importlib.import_module("app.main").app
    async with app.router.lifespan_context(app):
        authentication: Any = importlib.import_module("app.auth.authentication")
        yield app, add_session(database, authentication.TOKEN_PREFIX + "0" * 43)
