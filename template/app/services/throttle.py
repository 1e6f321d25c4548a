"""Slows down whoever guesses passwords, in the database: for all workers, and past a restart.

An attempt is counted before the password is looked at and given back if it was right, so that
fifty guesses at once are not fifty guesses. Sessions that exist are not affected.
"""

import hashlib
import ipaddress
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from sqlalchemy import and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.reference import insert_missing
from app.errors import AppError
from app.models.session import Throttle

# An account (its username and its e-mail apart): five attempts, then a wait that doubles. Nobody is locked out for longer than the
# longest wait, until fifty in a row have failed: a hundred for both (NIST SP 800-63B-4, 3.2.2).
FREE_ATTEMPTS = 5
LONGEST_WAIT = timedelta(minutes=15)
MOST_ATTEMPTS = 50
FORGOTTEN_AFTER = timedelta(days=1)

# An address, whichever accounts it tries.
ADDRESS_ATTEMPTS = 30
ADDRESS_WINDOW = timedelta(minutes=5)


class TooManyAttempts(AppError):
    status_code = HTTPStatus.TOO_MANY_REQUESTS
    detail = "Too many attempts. Try again later."
    event = "throttled"

    def __init__(self, wait: timedelta) -> None:
        super().__init__()
        self.headers: Mapping[str, str] = {"Retry-After": str(math.ceil(wait.total_seconds()))}


async def reserve(session: AsyncSession, account: str, address: str) -> None:
    """Count an attempt, in a transaction that commits before the password is checked.

    Raises TooManyAttempts, counting nothing, if there were too many before.
    """
    now = datetime.now(UTC)
    # Always in this order, or two attempts could wait for each other.
    of_account = await lock(session, account_key(account), now)
    of_address = await lock(session, address_key(address), now)
    # Taken without its sign, so that a clock that was set back locks nobody out.
    since_last, since_first = abs(now - of_account.since), abs(now - of_address.since)
    if of_account.attempts < MOST_ATTEMPTS and since_last > FORGOTTEN_AFTER:
        of_account.attempts = 0
    if since_first > ADDRESS_WINDOW:
        of_address.attempts, of_address.since = 0, now
    wait = wait_after(of_account.attempts) - since_last
    if of_account.attempts >= MOST_ATTEMPTS:
        wait = LONGEST_WAIT
    if of_address.attempts >= ADDRESS_ATTEMPTS:
        wait = max(wait, ADDRESS_WINDOW - since_first)
    if wait > timedelta():
        raise TooManyAttempts(wait)
    of_account.attempts, of_account.since = of_account.attempts + 1, now
    of_address.attempts += 1
    await forget_old(session, now)


def wait_after(attempts: int) -> timedelta:
    if attempts < FREE_ATTEMPTS:
        return timedelta()
    # After ten doublings it is the longest one anyway.
    doublings = min(attempts - FREE_ATTEMPTS + 1, 10)
    return min(timedelta(seconds=2**doublings), LONGEST_WAIT)


async def lock(session: AsyncSession, key: str, now: datetime) -> Throttle:
    """The row of a key, from now on only for this transaction."""
    row = {"key_hash": key, "attempts": 0, "since": now}
    table = Throttle.metadata.tables[Throttle.__tablename__]
    await session.execute(insert_missing(session.get_bind().dialect.name, table, [row]))
    query = select(Throttle).where(Throttle.key_hash == key).with_for_update()
    return (await session.scalars(query)).one()


async def forget_old(session: AsyncSession, now: datetime) -> None:
    is_old = and_(Throttle.since < now - FORGOTTEN_AFTER, Throttle.attempts < MOST_ATTEMPTS)
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
    await session.execute(delete(Throttle).where(Throttle.key_hash.in_(keys)))


async def rename(session: AsyncSession, before: str, after: str) -> None:
    """What was counted under one name counts under another one from now on."""
    if before == after:
        return
    now = datetime.now(UTC)
    old = await lock(session, account_key(before), now)
    new = await lock(session, account_key(after), now)
    if old.attempts > new.attempts:
        new.attempts, new.since = old.attempts, old.since
    await session.delete(old)


def own_account(user_id: int) -> str:
    """Under which wrong current passwords are counted, apart from log-ins."""
    return f"user {user_id}"


def own_names(user_id: int) -> str:
    """Under which new names for oneself are counted."""
    return f"names of user {user_id}"


def account_key(name: str) -> str:
    return hashlib.sha256(f"account {name}".encode("utf-8", "surrogatepass")).hexdigest()


def address_key(address: str) -> str:
    """Of IPv6, the first 64 bits: a household has all the rest."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        network = address
    else:
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        bits = 64 if mapped.version == 6 else 32
        network = str(ipaddress.ip_network((mapped, bits), strict=False))
    return hashlib.sha256(f"address {network}".encode()).hexdigest()
