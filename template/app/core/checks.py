"""The checks of `check`: settings, database and migrations of this installation."""

import os
import platform
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

from sqlalchemy import MetaData, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database, parse_url
from app.core.health import migration_state
from app.core.lock import find_other_versions, find_stale_pins
from app.core.postgresql import MAX_CONNECTIONS
from app.core.seed_data import missing_seed_rows
from app.core.settings import ENV_FILE, PROJECT_FOLDER, CoreSettings
from app.core.telemetry import missing_library

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"}

# The write-ahead log shrinks to 64 MiB after it was larger.
MIN_FREE_BYTES = 2**27


@dataclass(frozen=True)
class CheckResult:
    level: Literal["ok", "warning", "error"]
    message: str


async def run_checks(
    settings: CoreSettings, metadata: MetaData, environment: str | None
) -> list[CheckResult]:
    """Judge the installation by these settings. `environment` is the one that it will run in."""
    version = f"Python {platform.python_version()}, template {_template_version()}"
    results = [CheckResult("ok", version), *_check_settings(settings, environment)]
    results += _check_proxies(settings)
    results += _check_libraries()
    url = parse_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        results.append(check_sqlite_version(sqlite3.sqlite_version_info))
        results += _check_file(Path(url.database or ""))
    try:
        async with Database(settings) as database, database.readers() as session:
            results += await _check_database(session, metadata)
    except SQLAlchemyError as error:
        results.append(CheckResult("error", f"database: {getattr(error, 'orig', None) or error}"))
    for name in settings.further_checks:
        results += await resolve_name(name)(settings)
    return results


def _check_settings(settings: CoreSettings, environment: str | None) -> Iterator[CheckResult]:
    message = f"environment: {environment or 'not set'}"
    if settings.environment == environment:
        yield CheckResult("ok", message)
    else:
        yield CheckResult("error", f"{message}: set ENVIRONMENT=production")
    source = ENV_FILE if ENV_FILE.exists() else f"environment only, as {ENV_FILE} does not exist"
    yield CheckResult("ok", f"settings: {source}")
    for name in settings.unknown_names():
        yield CheckResult("warning", f".env: unknown setting {name}")
    if has_mode_bits(ENV_FILE, 0o077):
        yield CheckResult("error", "other users can read .env: run `chmod 600 .env`")


def default_workers() -> int:
    """How many `serve` starts by default."""
    number = os.environ.get("WEB_CONCURRENCY", "")
    return int(number) if number.isdecimal() else 1


def _check_proxies(settings: CoreSettings) -> Iterator[CheckResult]:
    if settings.environment == "production" and not settings.trusted_proxies:
        message = (
            "TRUSTED_PROXIES is not set: behind a proxy, all clients appear to have its address, "
            "so one client can use up the limits of all"
        )
        yield CheckResult("warning", message)
    if "FORWARDED_ALLOW_IPS" in os.environ:
        message = (
            "uvicorn reads FORWARDED_ALLOW_IPS, and then believes other proxies than "
            "TRUSTED_PROXIES: unset it, or use `serve`, which ignores it"
        )
        yield CheckResult("warning", message)


def _check_libraries() -> Iterator[CheckResult]:
    for problem in find_stale_pins(PROJECT_FOLDER):
        yield CheckResult("error", f"{problem}: run `python -m app lock`, and install again")
    for problem in find_other_versions(PROJECT_FOLDER):
        yield CheckResult("warning", problem)
    if reason := missing_library():
        yield CheckResult("error", f"telemetry: {reason}")


def has_mode_bits(file: Path, bits: int) -> bool:
    # Not `exists`: before Python 3.14, it fails in a folder that this user may not enter.
    is_there = os.name == "posix" and os.access(file, os.F_OK)
    return is_there and bool(file.stat().st_mode & bits)


def check_sqlite_version(version: tuple[int, ...]) -> CheckResult:
    """Warn of versions whose write-ahead log can corrupt a database (sqlite.org/wal.html)."""
    is_fixed = (
        version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    )
    name = "SQLite " + ".".join(map(str, version))
    if is_fixed:
        return CheckResult("ok", name)
    return CheckResult(
        "warning",
        f"{name} can, rarely, corrupt a database in WAL mode (sqlite.org/wal.html, "
        "'WAL-reset bug'): use a Python with SQLite 3.51.3 or newer",
    )


def _check_file(file: Path) -> Iterator[CheckResult]:
    """Write-ahead logging shares memory between processes, which no network file system can."""
    yield CheckResult("ok", f"database: {file}")
    if has_mode_bits(file, 0o007):
        yield CheckResult("warning", f"everybody can read {file}: run `chmod 600` on it")
    yield from check_folder(file, MIN_FREE_BYTES)
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return
    kinds = {line.split()[1]: line.split()[2] for line in mounts.read_text("utf-8").splitlines()}
    kind = next((kinds[str(folder)] for folder in file.parents if str(folder) in kinds), "")
    if kind in _NETWORK_FILE_SYSTEMS:
        yield CheckResult("error", f"{file} is on a network file system ({kind}): move it")


def check_folder(file: Path, min_free: int) -> Iterator[CheckResult]:
    """SQLite creates files next to the database, and a migration copies it first."""
    folder = file.parent
    if not os.access(folder, os.X_OK):
        message = f"{folder} does not exist, or this user may not enter it: create it, fix "
        message += "DATABASE_URL, or run this as the user of the app"
        yield CheckResult("error", message)
        return
    if not os.access(folder, os.W_OK):
        message = f"{folder} is not writable: SQLite creates files in it. Change its owner or mode"
        yield CheckResult("error", message)
    needed = max(min_free, file.stat().st_size if file.exists() else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = (
            f"{folder} has {free // 2**20} MiB of free space, and a backup or a full write-ahead "
            f"log may need {needed // 2**20} MiB: make room"
        )
        yield CheckResult("warning", message)


async def _check_database(session: AsyncSession, metadata: MetaData) -> list[CheckResult]:
    results = []
    if session.get_bind().dialect.name == "sqlite":
        for pragma in ("journal_mode", "synchronous", "foreign_keys"):
            value = await session.scalar(text(f"PRAGMA {pragma}"))
            results.append(CheckResult("ok", f"{pragma} = {value}"))
        orphans = (await session.execute(text("PRAGMA foreign_key_check"))).all()
        if orphans:
            message = f"{len(orphans)} rows have references to missing rows: {orphans[:3]}"
            results.append(CheckResult("error", message))
    else:
        results.append(await _check_connections(session))
    return results + await _check_migrations(session, metadata)


async def _check_connections(session: AsyncSession) -> CheckResult:
    """Compare what the workers may open with what the server accepts."""
    limit = "SELECT CAST(current_setting(:name) AS integer)"
    names = ("max_connections", "superuser_reserved_connections")
    most, reserved = [await session.scalar(text(limit), {"name": name}) or 0 for name in names]
    accepted, needed = most - reserved, default_workers() * MAX_CONNECTIONS
    message = f"PostgreSQL accepts {accepted} connections, and each worker can open "
    message += f"{MAX_CONNECTIONS}: {accepted // MAX_CONNECTIONS} workers on all machines"
    if needed <= accepted:
        return CheckResult("ok", message)
    advice = f"not {default_workers()}: raise max_connections, or put PgBouncer in front"
    return CheckResult("warning", f"{message}, {advice}")


async def _check_migrations(session: AsyncSession, metadata: MetaData) -> list[CheckResult]:
    state = await migration_state(session)
    if not state.is_ready:
        return [CheckResult("error", f"migrations: {state}")]
    connection = await session.connection()
    missing = await connection.run_sync(missing_seed_rows, metadata)
    messages = [f"missing row {row}: run `alembic upgrade head`" for row in missing]
    results = [CheckResult("error", message) for message in messages]
    level: Literal["ok", "warning"] = "ok" if state.at_head else "warning"
    return [CheckResult(level, f"migrations: {state}"), *results]


async def find_migration_problem(settings: CoreSettings, metadata: MetaData) -> str | None:
    """Why a command could not find its tables or rows, and what to run; None if they are there."""
    async with Database(settings) as database:
        try:
            await database.probe()
            async with database.readers() as session:
                results = await _check_migrations(session, metadata)
        except (RuntimeError, SQLAlchemyError) as error:
            return str(error)
    return next((result.message for result in results if result.level == "error"), None)


def _template_version() -> str:
    """The version of the template that this project was last updated to."""
    answers = PROJECT_FOLDER / ".copier-answers.yml"
    if not answers.exists():
        return "unknown"
    commit = re.search(r"^_commit: '?([^\s']+)", answers.read_text("utf-8"), re.MULTILINE)
    return commit[1] if commit else "unknown"
