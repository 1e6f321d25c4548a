"""Slows down whoever guesses passwords, in the database: for all workers, and past a restart.

An attempt is counted before the password is looked at and given back if it was right, so that
fifty guesses at once are not fifty guesses. Sessions that exist are not affected.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from sqlalchemy import and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.reference import insert_into
from app.db.session import Database
from app.errors import AppError
from app.models.session import Throttle
from app.services.throttle_rules import (
    ADDRESS_ATTEMPTS,
    ADDRESS_WINDOW,
    GUESSES,
    LONGEST_WAIT,
    Limit,
    account_key,
    address_key,
    wait_after,
)


class TooManyAttempts(AppError):
    status_code = HTTPStatus.TOO_MANY_REQUESTS
    detail = "Too many attempts. Try again later."
    event = "throttled"

    def __init__(self, wait: timedelta) -> None:
        super().__init__()
        self.headers: Mapping[str, str] = {"Retry-After": str(math.ceil(wait.total_seconds()))}


async def reserve(database: Database, account: str, address: str, limit: Limit = GUESSES) -> None:
    """Count an attempt; TooManyAttempts, counting nothing, if there were too many before.

    It is committed before the password is checked. Whoever is to be refused is so without a lock:
    otherwise a flood of refused attempts would keep the writers waiting.
    """
    async with database.readers() as session:
        keys = account_key(account), address_key(address)
        found = await session.scalars(select(Throttle).where(Throttle.key_hash.in_(keys)))
        rows = {row.key_hash: row for row in found}
        refuse(rows.get(keys[0]), rows.get(keys[1]), limit, datetime.now(UTC))
    async with database.writers.begin() as session:
        await count(session, account, address, limit)


async def count(session: AsyncSession, account: str, address: str, limit: Limit) -> None:
    now = datetime.now(UTC)
    # Accounts in the order of their keys and then the address, here and below, or two transactions
    # could wait for each other.
    of_account = await lock(session, account_key(account), now)
    of_address = await lock(session, address_key(address), now)
    refuse(of_account, of_address, limit, now)
    if age(of_account, now) > limit.forgotten_after:
        of_account.attempts = 0
    if age(of_address, now) > ADDRESS_WINDOW:
        of_address.attempts, of_address.since = 0, now
    of_account.attempts, of_account.since = of_account.attempts + 1, now
    of_address.attempts += 1
    await forget_old(session, now)


def refuse(
    of_account: Throttle | None, of_address: Throttle | None, limit: Limit, now: datetime
) -> None:
    """TooManyAttempts if one of the two has to wait."""
    wait = timedelta()
    if of_account and of_account.attempts >= limit.most_attempts:
        wait = LONGEST_WAIT
    elif of_account:
        wait = wait_after(of_account.attempts) - age(of_account, now)
    if of_address and of_address.attempts >= ADDRESS_ATTEMPTS:
        wait = max(wait, ADDRESS_WINDOW - age(of_address, now))
    if wait > timedelta():
        raise TooManyAttempts(wait)


def age(row: Throttle, now: datetime) -> timedelta:
    """Taken without its sign, so that a clock that was set back locks nobody out."""
    return abs(now - row.since)


async def lock(session: AsyncSession, key: str, now: datetime) -> Throttle:
    """The row of a key, from now on only for this transaction; a new one if there is none.

    An update of nothing, because a row that is only looked for could be deleted before it is locked.
    """
    row = {"key_hash": key, "attempts": 0, "since": now}
    table = Throttle.metadata.tables[Throttle.__tablename__]
    insert = insert_into(session.get_bind().dialect.name, table).values(row)
    await session.execute(
        insert.on_conflict_do_update(index_elements=["key_hash"], set_={"key_hash": key})
    )
    return (await session.scalars(select(Throttle).where(Throttle.key_hash == key))).one()


async def forget_old(session: AsyncSession, now: datetime) -> None:
    longest_ago = now - GUESSES.forgotten_after
    is_old = and_(Throttle.since < longest_ago, Throttle.attempts < GUESSES.most_attempts)
    # Not those that another attempt has just locked: each could wait for the other.
    old = select(Throttle.id).where(is_old).with_for_update(skip_locked=True)
    await session.execute(delete(Throttle).where(Throttle.id.in_(old)))


async def refund(session: AsyncSession, account: str, address: str) -> None:
    """The password was right: the account starts anew, the address gets this attempt back."""
    await forget(session, account)
    counted = update(Throttle).where(Throttle.key_hash == address_key(address))
    await session.execute(
        counted.where(Throttle.attempts > 0).values(attempts=Throttle.attempts - 1)
    )


async def forget(session: AsyncSession, *accounts: str) -> None:
    keys = [account_key(account) for account in accounts]
    found = select(Throttle.id).where(Throttle.key_hash.in_(keys))
    in_order = found.order_by(Throttle.key_hash).with_for_update()
    await session.execute(delete(Throttle).where(Throttle.id.in_(in_order)))


async def rename(session: AsyncSession, names: Mapping[str, str]) -> None:
    """What was counted under these names counts under other ones from now on."""
    keys = {
        account_key(before): account_key(after)
        for before, after in names.items()
        if before != after
    }
    now = datetime.now(UTC)
    rows = {key: await lock(session, key, now) for key in sorted({*keys, *keys.values()})}
    for before, after in keys.items():
        old, new = rows[before], rows[after]
        if old.attempts > new.attempts:
            new.attempts, new.since = old.attempts, old.since
        await session.delete(old)
