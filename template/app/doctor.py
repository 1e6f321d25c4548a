"""Looks over an installation: what is as it should be, what is doubtful, what needs mending."""

import os
import platform
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

import app.models  # noqa: F401  (tells which rows are reference rows)
from app.db.engine import parse_url
from app.db.reference import missing_reference_rows
from app.db.revision import migration_state
from app.db.session import Database
from app.settings import ENV_FILE, Settings, unknown_names

NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"}


@dataclass(frozen=True)
class Finding:
    verdict: Literal["ok", "doubt", "mend"]
    sentence: str


async def examine(settings: Settings) -> list[Finding]:
    findings = [
        Finding("ok", f"Python {platform.python_version()}, template {template_version()}"),
        *examine_settings(settings),
    ]
    url = parse_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        findings.append(examine_sqlite_version(sqlite3.sqlite_version_info))
        findings += examine_place(url.database or "")
    try:
        async with Database(settings) as database, database.readers() as session:
            findings += await examine_database(session)
    except SQLAlchemyError as error:
        findings.append(Finding("mend", f"the database: {getattr(error, 'orig', None) or error}"))
    return findings


def examine_settings(settings: Settings) -> list[Finding]:
    findings = [Finding("ok", f"environment: {settings.environment or 'not set, so production'}")]
    findings += [
        Finding("doubt", f".env: {name} is not a setting of this app{hint}")
        for name, hint in unknown_names()
    ]
    if can_be_read_by_all(ENV_FILE, 0o077):
        findings.append(Finding("mend", ".env can be read by others: run `chmod 600 .env`"))
    return findings


def can_be_read_by_all(file: Path, bits: int) -> bool:
    return os.name == "posix" and file.exists() and bool(file.stat().st_mode & bits)


def examine_sqlite_version(version: tuple[int, ...]) -> Finding:
    """Versions with the rare corruption of a write-ahead log that is reset (sqlite.org/wal.html)."""
    is_mended = (
        version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    )
    name = "SQLite " + ".".join(map(str, version))
    if is_mended:
        return Finding("ok", name)
    return Finding(
        "doubt",
        f"{name} can, rarely, corrupt a database in WAL mode (sqlite.org/wal.html, 'WAL-reset bug'): "
        "use a Python with SQLite 3.51.3 or newer",
    )


def examine_place(database: str) -> list[Finding]:
    """Write-ahead logging shares memory between processes, which no network file system can."""
    file, mounts = Path(database).absolute(), Path("/proc/mounts")
    findings = []
    if can_be_read_by_all(file, 0o007):
        findings.append(Finding("doubt", f"{file} can be read by all: run `chmod 600` on it"))
    if not mounts.exists():
        return findings
    kinds = {line.split()[1]: line.split()[2] for line in mounts.read_text("utf-8").splitlines()}
    kind = next((kinds[str(folder)] for folder in file.parents if str(folder) in kinds), "")
    if kind in NETWORK_FILE_SYSTEMS:
        findings.append(Finding("mend", f"{file} is on a network file system ({kind}): move it"))
    return findings


async def examine_database(session: AsyncSession) -> list[Finding]:
    findings = []
    if session.get_bind().dialect.name == "sqlite":
        for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout"):
            answer = await session.scalar(text(f"PRAGMA {pragma}"))
            findings.append(Finding("ok", f"{pragma} = {answer}"))
        orphans = (await session.execute(text("PRAGMA foreign_key_check"))).all()
        if orphans:
            findings.append(Finding("mend", f"{len(orphans)} rows refer to nothing: {orphans[:3]}"))
    state = await migration_state(session)
    findings.append(Finding("ok" if state.at_head else "mend", f"migrations: {state}"))
    if state.at_head:
        missing = await (await session.connection()).run_sync(missing_reference_rows)
        findings += [
            Finding("mend", f"{row} is missing: run `alembic upgrade head`") for row in missing
        ]
    return findings


def template_version() -> str:
    """The version of the template that this project was last updated to."""
    answers = Path(".copier-answers.yml")
    if not answers.exists():
        return "unknown"
    commit = re.search(r"^_commit: (.+)$", answers.read_text("utf-8"), re.MULTILINE)
    return commit[1] if commit else "unknown"
