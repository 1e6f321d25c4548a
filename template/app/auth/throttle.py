"""Slows down password guessing. The counters are in the database, for all workers and restarts.

An attempt is recorded before the password is verified, so that parallel guesses are limited too.
It is undone if the password was correct. Existing login sessions are not affected. Names and
addresses are stored as hashes.
"""

import hashlib
import ipaddress
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import NamedTuple

from sqlalchemy import and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import Throttle
from app.core.database import Database, insert_for
from app.core.errors import AppError

# The first five attempts on a name are free. Then the wait doubles with each one.
_FREE_ATTEMPTS = 5
_MAX_WAIT = timedelta(minutes=15)

# From one address, for all names together.
_MAX_ADDRESS_ATTEMPTS = 30
_ADDRESS_WINDOW = timedelta(minutes=5)


class Limit(NamedTuple):
    # After this time without an attempt, the counter starts again from zero.
    reset_after: timedelta
    # A name with this many attempts is locked. Only an administrator can unlock it,
    # with a new password.
    max_attempts: float


# The username and the email address of a user are two names. Each one allows 50 guesses, which is
# 100 in total (NIST SP 800-63B-4, 3.2.2).
LOGIN_LIMIT = Limit(timedelta(days=30), 50)
# Users who try many new names learn which ones are taken. So the wait grows with each one, but no
# number of attempts locks a user: after a day, they can choose a name without waiting.
RENAME_LIMIT = Limit(timedelta(days=1), math.inf)


class TooManyAttempts(AppError):
    status_code = HTTPStatus.TOO_MANY_REQUESTS
    detail = "Too many attempts. Try again later."
    event = "throttled"

    def __init__(self, wait: timedelta) -> None:
        super().__init__()
        self.headers: Mapping[str, str] = {"Retry-After": str(math.ceil(wait.total_seconds()))}


def password_key(user_id: int) -> str:
    """The name under which wrong current passwords are counted, apart from logins."""
    return f"user {user_id}"


def rename_key(user_id: int) -> str:
    """The name under which the new usernames and emails that a user tries are counted."""
    return f"names of user {user_id}"


async def record(database: Database, name: str, address: str, limit: Limit = LOGIN_LIMIT) -> None:
    """Count an attempt and commit. An attempt over a limit raises TooManyAttempts, uncounted.

    Attempts over the limit are rejected before the write lock is taken, so a flood of them cannot
    starve writers.
    """
    keys = hash_name(name), _hash_address(address)
    async with database.readers() as session:
        found = await session.scalars(select(Throttle).where(Throttle.key_hash.in_(keys)))
        rows = {row.key_hash: row for row in found}
        _check(rows.get(keys[0]), rows.get(keys[1]), limit, datetime.now(UTC))
    async with database.writers.begin() as session:
        now = datetime.now(UTC)
        # Names in the order of their hashes and then the address, everywhere in this module.
        # Otherwise two transactions could deadlock.
        by_name, by_address = [await _lock(session, key, now) for key in keys]
        _check(by_name, by_address, limit, now)
        if _age(by_name, now) > limit.reset_after:
            by_name.attempts = 0
        if _age(by_address, now) > _ADDRESS_WINDOW:
            by_address.attempts, by_address.timer_started_at = 0, now
        by_name.attempts, by_name.timer_started_at = by_name.attempts + 1, now
        by_address.attempts += 1
        await _delete_old(session, now)


async def undo(session: AsyncSession, name: str, address: str) -> None:
    """The password was correct: reset the name, and give the address this attempt back."""
    await reset(session, name)
    counted = update(Throttle).where(Throttle.key_hash == _hash_address(address))
    await session.execute(
        counted.where(Throttle.attempts > 0).values(attempts=Throttle.attempts - 1)
    )


async def reset(session: AsyncSession, *names: str) -> None:
    keys = [hash_name(name) for name in names]
    found = select(Throttle.id).where(Throttle.key_hash.in_(keys))
    in_order = found.order_by(Throttle.key_hash).with_for_update()
    await session.execute(delete(Throttle).where(Throttle.id.in_(in_order)))


async def rename(session: AsyncSession, names: Mapping[str, str]) -> None:
    """Count the attempts on each old name under its new one."""
    keys = {hash_name(old): hash_name(new) for old, new in names.items() if old != new}
    now = datetime.now(UTC)
    rows = {key: await _lock(session, key, now) for key in sorted({*keys, *keys.values()})}
    for old_key, new_key in keys.items():
        old, new = rows[old_key], rows[new_key]
        if old.attempts > new.attempts:
            new.attempts, new.timer_started_at = old.attempts, old.timer_started_at
        await session.delete(old)


def _check(
    by_name: Throttle | None, by_address: Throttle | None, limit: Limit, now: datetime
) -> None:
    wait = timedelta()
    if by_name and by_name.attempts >= limit.max_attempts:
        wait = _MAX_WAIT
    elif by_name:
        wait = _wait_after(by_name.attempts) - _age(by_name, now)
    if by_address and by_address.attempts >= _MAX_ADDRESS_ATTEMPTS:
        wait = max(wait, _ADDRESS_WINDOW - _age(by_address, now))
    if wait > timedelta():
        raise TooManyAttempts(wait)


def _wait_after(attempts: int) -> timedelta:
    if attempts < _FREE_ATTEMPTS:
        return timedelta()
    # Ten doublings are already longer than the maximum.
    doublings = min(attempts - _FREE_ATTEMPTS + 1, 10)
    return min(timedelta(seconds=2**doublings), _MAX_WAIT)


def _age(row: Throttle, now: datetime) -> timedelta:
    """Never negative, so that a clock that was set back locks no one out."""
    return abs(now - row.timer_started_at)


async def _lock(session: AsyncSession, key: str, now: datetime) -> Throttle:
    """Lock the counter of a key until the end of the transaction. Creates it if it is missing.

    The upsert changes nothing, but it locks. A row that is only selected could be deleted before
    it is locked.
    """
    table = Throttle.metadata.tables[Throttle.__tablename__]
    insert = insert_for(session.get_bind().dialect.name, table)
    new = insert.values({"key_hash": key, "attempts": 0, "since": now})
    await session.execute(
        new.on_conflict_do_update(index_elements=["key_hash"], set_={"key_hash": key})
    )
    return (await session.scalars(select(Throttle).where(Throttle.key_hash == key))).one()


async def _delete_old(session: AsyncSession, now: datetime) -> None:
    oldest = now - LOGIN_LIMIT.reset_after
    is_old = and_(Throttle.timer_started_at < oldest, Throttle.attempts < LOGIN_LIMIT.max_attempts)
    # Skips those that another attempt has just locked, to avoid a deadlock.
    old = select(Throttle.id).where(is_old).with_for_update(skip_locked=True)
    await session.execute(delete(Throttle).where(Throttle.id.in_(old)))


def hash_name(name: str) -> str:
    # The prefix tells names from addresses. Another one would reset the counters that exist.
    return hashlib.sha256(f"account {name}".encode("utf-8", "surrogatepass")).hexdigest()


def _hash_address(address: str) -> str:
    """Of IPv6, only the first 64 bits count: one household has all the addresses behind them."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        network = address
    else:
        # A proxy may write an IPv4 address as ::ffff:192.0.2.1 (RFC 4291, section 2.5.5.2).
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        bits = 64 if parsed.version == 6 else 32
        network = str(ipaddress.ip_network((parsed, bits), strict=False))
    return hashlib.sha256(f"address {network}".encode()).hexdigest()
