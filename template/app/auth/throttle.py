"""Slows down password guessing. The counters are in the database, for all workers and restarts.

An attempt is recorded before the password is verified, so that parallel guesses are limited too.
It is undone if the password was correct, and if the password could not be verified. A network from
which a user has logged in has a separate counter, so that strangers cannot lock the user out.
Existing login sessions are not affected. Names and addresses are stored as hashes.
"""

import hashlib
import ipaddress
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import NamedTuple

from sqlalchemy import and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import Throttle, delete_oldest
from app.auth.passwords import hashing_turn
from app.core.database import Database, insert_for
from app.core.errors import AppError

# The first five attempts on a name are free. Then the wait doubles with each one. docs/security.md
# says how many guesses that allows.
_FREE_ATTEMPTS = 5
_MAX_WAIT = timedelta(hours=1)
# After this time without an attempt, the counter starts again from zero. It also limits how long a
# flood of attempts on many names fills the table.
_RESET_AFTER = timedelta(days=1)

# From one address, for all names together.
_MAX_ADDRESS_ATTEMPTS = 30
_ADDRESS_WINDOW = timedelta(minutes=5)

# How long the network of a login is known.
_KNOWN_FOR = timedelta(days=30)

# An attempt adds up to two rows and deletes at most this many old ones. So no attempt takes long,
# and old rows are deleted faster than new ones arrive.
_MAX_DELETED = 20


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


class _Counted(NamedTuple):
    """When an attempt was counted, and when the timer of its name had been started before."""

    at: datetime
    timer_started_at: datetime


async def record(database: Database, name: str, address: str) -> None:
    """Count an attempt and commit. An attempt over a limit raises TooManyAttempts, uncounted."""
    await _reject_early(database, name, address)
    await _count(database, name, address)


@asynccontextmanager
async def attempt(
    database: Database, name: str, address: str, rejection: type[AppError]
) -> AsyncIterator[None]:
    """Count an attempt while its password is verified.

    `rejection` says that the password was wrong. After any other error, it was not judged, and the
    attempt is given back. Few attempts are counted at once and the others queue, so that many
    correct passwords at the same time do not look like guesses.
    """
    await _reject_early(database, name, address)
    async with hashing_turn(name):
        counted = await _count(database, name, address)
        try:
            yield
        except rejection:
            raise
        except Exception:
            await _give_back(database, name, address, counted)
            raise


async def _reject_early(database: Database, name: str, address: str) -> None:
    """Before the queue and the write lock, so that a flood of attempts starves no one there."""
    keys = hash_name(name), _hash_address(address)
    async with database.readers.begin() as session:
        found = await session.scalars(select(Throttle).where(Throttle.key_hash.in_(keys)))
        rows = {row.key_hash: row for row in found}
    _check(rows.get(keys[0]), rows.get(keys[1]), datetime.now(UTC))


async def _count(database: Database, name: str, address: str) -> _Counted:
    async with database.writers.begin() as session:
        now = datetime.now(UTC)
        by_name, by_address = await _lock_both(session, name, address, now)
        _check(by_name, by_address, now)
        if _age(by_name, now) > _RESET_AFTER:
            by_name.attempts = 0
        if _age(by_address, now) > _ADDRESS_WINDOW:
            by_address.attempts, by_address.timer_started_at = 0, now
        counted = _Counted(now, by_name.timer_started_at)
        by_name.attempts, by_name.timer_started_at = by_name.attempts + 1, now
        by_address.attempts += 1
        await delete_oldest(session, Throttle.timer_started_at, now - _RESET_AFTER, _MAX_DELETED)
        return counted


async def _give_back(database: Database, name: str, address: str, counted: _Counted) -> None:
    async with database.writers.begin() as session:
        by_name, by_address = await _lock_both(session, name, address, datetime.now(UTC))
        for row in (by_name, by_address):
            row.attempts = max(row.attempts - 1, 0)
        if by_name.timer_started_at == counted.at:
            by_name.timer_started_at = counted.timer_started_at


async def choose_name(session: AsyncSession, name: str, stored_hash: str, address: str) -> str:
    """The name under which a login from this address is counted.

    `stored_hash` stands for the user, so a new password makes all networks unknown again.
    """
    key = _hash_known_network(stored_hash, address)
    is_known = and_(Throttle.key_hash == key, Throttle.timer_started_at > datetime.now(UTC))
    if await session.scalar(select(Throttle.id).where(is_known)) is None:
        return name
    return f"{_network_of(address)}, known to {stored_hash}"


async def remember(session: AsyncSession, stored_hash: str, address: str) -> bool:
    """Make the network of a login known. True if it is new. The caller has locked the user."""
    now = datetime.now(UTC)
    row = await lock(session, _hash_known_network(stored_hash, address), now)
    was_known = row.timer_started_at > now
    row.timer_started_at = now + _KNOWN_FOR
    return not was_known


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
    rows = {key: await lock(session, key, now) for key in sorted({*keys, *keys.values()})}
    for old_key, new_key in keys.items():
        old, new = rows[old_key], rows[new_key]
        if old.attempts > new.attempts:
            new.attempts, new.timer_started_at = old.attempts, old.timer_started_at
        await session.delete(old)


def _check(by_name: Throttle | None, by_address: Throttle | None, now: datetime) -> None:
    wait = timedelta()
    if by_name:
        wait = _wait_after(by_name.attempts) - _age(by_name, now)
    if by_address and by_address.attempts >= _MAX_ADDRESS_ATTEMPTS:
        wait = max(wait, _ADDRESS_WINDOW - _age(by_address, now))
    if wait > timedelta():
        raise TooManyAttempts(wait)


def _wait_after(attempts: int) -> timedelta:
    if attempts < _FREE_ATTEMPTS:
        return timedelta()
    # Twelve doublings are already longer than the maximum.
    doublings = min(attempts - _FREE_ATTEMPTS + 1, 12)
    return min(timedelta(seconds=2**doublings), _MAX_WAIT)


def _age(row: Throttle, now: datetime) -> timedelta:
    """Never negative, so that a clock that was set back locks no one out."""
    return abs(now - row.timer_started_at)


async def _lock_both(
    session: AsyncSession, name: str, address: str, now: datetime
) -> tuple[Throttle, Throttle]:
    """The name and then the address, as everywhere here: otherwise two could deadlock."""
    by_name = await lock(session, hash_name(name), now)
    return by_name, await lock(session, _hash_address(address), now)


async def lock(session: AsyncSession, key: str, now: datetime) -> Throttle:
    """Lock the counter of a key until the end of the transaction. Creates it if it is missing.

    The upsert changes nothing, but it locks. A row that is only selected could be deleted before
    it is locked.
    """
    table = Throttle.metadata.tables[Throttle.__tablename__]
    insert = insert_for(session.get_bind().dialect.name, table)
    new = insert.values({"key_hash": key, "attempts": 0, "since": now})
    upsert = new.on_conflict_do_update(index_elements=["key_hash"], set_={"key_hash": key})
    statement = select(Throttle).from_statement(upsert.returning(table))
    row: Throttle = (await session.scalars(statement)).one()
    return row


def hash_name(name: str) -> str:
    # The prefix tells names from addresses. Another one would reset the counters that exist.
    return hashlib.sha256(f"account {name}".encode("utf-8", "surrogatepass")).hexdigest()


def _hash_address(address: str) -> str:
    return hashlib.sha256(f"address {_network_of(address)}".encode()).hexdigest()


def _hash_known_network(stored_hash: str, address: str) -> str:
    return hashlib.sha256(f"known {_network_of(address)} {stored_hash}".encode()).hexdigest()


def _network_of(address: str) -> str:
    """Of an IPv6 address, only 64 bits count: one household has all the addresses behind them."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    bits = 64 if parsed.version == 6 else 32
    return str(ipaddress.ip_network((parsed, bits), strict=False))
