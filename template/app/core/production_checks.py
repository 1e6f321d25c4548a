"""What `check` also looks at in production: what is open, overridden, old or too much."""

import os
import time
from pathlib import Path

from dotenv import dotenv_values

from app.core.checks import CheckResult, default_workers, has_mode_bits
from app.core.database import parse_url
from app.core.settings import ENV_FILE, CoreSettings

# Of the newest backup, if one is made each day.
_MAX_BACKUP_DAYS = 2


def check_production(settings: CoreSettings) -> list[CheckResult]:
    if settings.environment != "production":
        return []
    results = _check_settings(settings)
    url = parse_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        results += check_backups(Path(url.database).parent / "backups")
    return results


def _check_settings(settings: CoreSettings) -> list[CheckResult]:
    messages = []
    given = {name: value for name, value in dotenv_values(ENV_FILE).items() if value is not None}
    for name in sorted(given):
        if os.environ.get(name, given[name]) != given[name]:
            messages.append(f"{name} of the environment overrides .env: remove one of them")
    nearest = Path(".env").resolve()
    if os.access(nearest, os.F_OK) and nearest != ENV_FILE.resolve():
        messages.append(f"{nearest} is not read: move its lines to {ENV_FILE}")
    if settings.docs:
        message = "everybody can read /docs and /openapi.json: unset DOCS, unless you want that"
        messages.append(message)
    workers, cores = default_workers(), os.cpu_count() or 1
    if workers > 2 * cores:
        messages.append(f"{workers} workers share {cores} cores: set WEB_CONCURRENCY to {cores}")
    return [CheckResult("warning", message) for message in messages]


def check_backups(folder: Path) -> list[CheckResult]:
    """Judge the backups next to the database, where migrations put theirs."""
    backups = list(folder.glob("*.db"))
    if not backups:
        message = f"no backup in {folder}: run `db backup` to a file in it each day, unless "
        return [CheckResult("warning", f"{message}something else copies the database")]
    days = (time.time() - max(file.stat().st_mtime for file in backups)) / 86400
    message = f"the newest backup in {folder} is {days:.1f} days old"
    results = [CheckResult("ok", message)]
    if days > _MAX_BACKUP_DAYS:
        results = [CheckResult("warning", f"{message}: run `db backup` each day")]
    if has_mode_bits(folder, 0o007) and any(has_mode_bits(file, 0o007) for file in backups):
        message = f"everybody can read the backups in {folder}: run `chmod 700` on it"
        results.append(CheckResult("error", message))
    return results
