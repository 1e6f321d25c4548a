"""Passwords and tokens: how they are made, checked and stored. Nothing here reads a database."""

import asyncio
import hashlib
import logging
import os
import re
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple, ParamSpec, TypeVar

from pwdlib import PasswordHash
from pwdlib.exceptions import PwdlibError
from pwdlib.hashers.argon2 import Argon2Hasher

import app
from app.errors import AppError, ServiceUnavailable

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

# OWASP Password Storage cheat sheet: argon2id with 19 MiB, two passes, one lane.
MEMORY_KIB, PASSES, LANES = 19_456, 2, 1
HASHING = PasswordHash((Argon2Hasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES),))
# Checked for a user who does not exist, at the cost of one who does; no password has this hash.
DECOY = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${'A' * 22}${'A' * 43}"

# Hashing takes memory and a processor: so many at a time, beside the event loop, the others queue.
HASHING_THREADS = ThreadPoolExecutor(min(4, max(1, (os.cpu_count() or 2) // 2)), "hashing")
LONGEST_QUEUE_SECONDS = 10

# A new password has 256 characters at most, and four times as many with its accents taken apart.
# To put those together takes the square of their number, so what is longer is simply wrong.
LONGEST_PASSWORD = 1024

TOKEN = re.compile(re.escape(app.SLUG) + r"_[\w-]{43}", re.ASCII)


class Unauthenticated(AppError):
    status_code = HTTPStatus.UNAUTHORIZED
    detail = "Log in first."
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class LoginTooOld(Unauthenticated):
    """Step-up authentication (RFC 9470): the session is good, but not for this."""

    detail = "This is sensitive, and your log-in is too old: log in again."
    headers = MappingProxyType(
        {"WWW-Authenticate": 'Bearer error="insufficient_user_authentication"'}
    )


class PermissionDenied(AppError):
    status_code = HTTPStatus.FORBIDDEN
    detail = "You may not do this."
    event = "denied"


class Verdict(NamedTuple):
    is_right: bool
    # Of the same password, when the parameters above are no longer those of the stored hash.
    new_hash: str | None


def password_bytes(password: str) -> bytes:
    """One encoding, however a keyboard composes its accents (NIST SP 800-63B-4, RFC 8265)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


async def in_thread(
    threads: ThreadPoolExecutor, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run slow work beside the event loop; ServiceUnavailable if its turn does not come."""
    queued = threads.submit(function, *args, **kwargs)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(queued), LONGEST_QUEUE_SECONDS)
    except TimeoutError:
        raise ServiceUnavailable from None


async def hash_password(password: str) -> str:
    return await in_thread(HASHING_THREADS, HASHING.hash, password_bytes(password))


async def verify_password(password: str, stored: str) -> Verdict:
    if len(password) > LONGEST_PASSWORD:
        password, stored = "", DECOY
    check = HASHING.verify_and_update
    try:
        return Verdict(*await in_thread(HASHING_THREADS, check, password_bytes(password), stored))
    except PwdlibError:
        logger.error("A stored password hash can't be read")
        return Verdict(False, None)


def new_token() -> str:
    """256 random bits, behind a prefix by which secret scanners know it."""
    return f"{app.SLUG}_{secrets.token_urlsafe(32)}"


def is_token(text: str) -> bool:
    return TOKEN.fullmatch(text) is not None


def digest(token: str) -> str:
    """What is stored of a token; it is random, so nothing slow is needed against guessing."""
    return hashlib.sha256(token.encode()).hexdigest()
