"""How passwords are hashed and verified, and which new ones are rejected."""

import asyncio
import logging
import os
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from pwdlib import PasswordHash
from pwdlib.exceptions import PwdlibError
from pwdlib.hashers.argon2 import Argon2Hasher

from app import SLUG, TITLE
from app.core.errors import FieldError, Invalid, ServiceUnavailable
from app.core.telemetry import waiting
from app.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

# OWASP Password Storage cheat sheet: argon2id with 19 MiB, two passes, one lane.
_MEMORY_KIB, _PASSES, _LANES = 19_456, 2, 1
HASHER = PasswordHash(
    (Argon2Hasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES),)
)
# Verified when there is no such user, so that the response takes as long. No password has this
# hash, so users who have not chosen a password have it, too.
DUMMY_HASH = f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}${'A' * 22}${'A' * 43}"

# Hashing takes memory and a processor. This limits how many hashes run at once; others queue.
_MAX_HASHES = min(4, max(1, (os.cpu_count() or 2) // 2))
_HASHING_THREADS = ThreadPoolExecutor(_MAX_HASHES, "hashing")
_MAX_QUEUE_SECONDS = 10
# More than can hash at once, since some wait for the database. Seven workers together stay below
# the attempts that one address has.
_MAX_TURNS = 4


class _Queue:
    """The queue of one event loop: locks of asyncio work in a single loop."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(_MAX_TURNS)
        self.names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


_QUEUES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

# The schemas limit a new password to 256 characters. Some keyboards send accents as separate
# characters, up to four for one. The time to compose them grows with the square of the length, so a
# longer password is rejected without being composed.
_MAX_LENGTH = 1024

# zxcvbn is slow for long passwords: 20 characters take as long as a few hashes, and 30 characters
# ten times that. It has its own thread, so that it does not delay logins.
_ZXCVBN_LENGTH = 20
_ZXCVBN_THREAD = ThreadPoolExecutor(1, "zxcvbn")
# zxcvbn's highest score. It counts a factor of ten for each random character, so a password needs
# fewer guesses where PASSWORD_MIN_LENGTH is below ten.
_MIN_GUESSES_EXPONENT = 10

# zxcvbn knows the words of these phrases, but not the phrases. Attackers try them first.
_KNOWN_PHRASES = (
    "correcthorsebatterystaple",
    "illbebackhastalavista",
    "ihavenopassword",
    "ithinkthereforeiam",
    "letmeinplease",
    "maytheforcebewithyou",
    "nevergonnagiveyouup",
    "onceuponatime",
    "openthedoorplease",
    "thequickbrownfox",
    "thisisaverylong",
    "tobeornottobe",
)


class PasswordCheck(NamedTuple):
    is_correct: bool
    # A hash of the same password, if the stored one was made with other parameters.
    new_hash: str | None


@asynccontextmanager
async def hashing_turn(name: str) -> AsyncIterator[None]:
    """Wait until few others have a turn in this worker, and none of them for this name.

    ServiceUnavailable if the queue is too long.
    """
    queue = _QUEUES.setdefault(asyncio.get_running_loop(), _Queue())
    lock = queue.names.setdefault(name, asyncio.Lock())
    async with AsyncExitStack() as turn:
        try:
            with waiting("password.hashing"):
                async with asyncio.timeout(_MAX_QUEUE_SECONDS):
                    await turn.enter_async_context(lock)
                    await turn.enter_async_context(queue.turns)
        except TimeoutError:
            raise ServiceUnavailable from None
        yield


async def hash_password(password: str) -> str:
    return await _run_in(_HASHING_THREADS, HASHER.hash, _to_bytes(password))


async def verify_password(password: str, stored_hash: str) -> PasswordCheck:
    if len(password) > _MAX_LENGTH:
        password, stored_hash = "", DUMMY_HASH
    verify = HASHER.verify_and_update
    try:
        result = await _run_in(_HASHING_THREADS, verify, _to_bytes(password), stored_hash)
    except PwdlibError:
        logger.error("A stored password hash is invalid")
        return PasswordCheck(False, None)
    return PasswordCheck(*result)


async def hash_new_password(
    settings: Settings, password: str, username: str, email: str, *, field: str = "password"
) -> str:
    """Hash the new password of a user; Invalid if it is too easy to guess.

    NIST SP 800-63B-4: no composition rules, but a minimum length and a blocklist.
    """
    if reason := await _reject(settings, password, username, email):
        raise Invalid([FieldError(["body", field], reason, "password_refused")])
    return await hash_password(password)


async def _reject(settings: Settings, password: str, username: str, email: str) -> str | None:
    """Why this password is rejected, or None."""
    if len(password) < settings.password_min_length:
        return f"Use at least {settings.password_min_length} characters, such as a few words."
    names = username, email.partition("@")[0], SLUG, TITLE
    personal_words = [_letters_and_digits(name) for name in names]
    plain = _letters_and_digits(password)
    if any(len(word) >= 3 and word in plain for word in personal_words):
        return "Leave out your username, your email address and the name of this service."
    context = " ".join((*names, email, *settings.allowed_hosts))
    words = re.findall(r"[^\W_]{3,}", context.casefold())
    needed = 10 ** min(_MIN_GUESSES_EXPONENT, settings.password_min_length)
    guesses = await _run_in(_ZXCVBN_THREAD, count_guesses, password, words)
    if guesses < needed or any(phrase in plain for phrase in _KNOWN_PHRASES):
        return "This password is too easy to guess. Try a few unrelated words."
    return None


def count_guesses(password: str, known_words: Sequence[str] = ()) -> int:
    """Estimate how many guesses an attacker needs who knows common passwords and patterns.

    Of a long password, only the two ends are estimated. The whole is at least as hard to guess as
    the harder end.
    """
    # Imported on first use, since it takes long and few requests need it.
    from zxcvbn import zxcvbn

    # zxcvbn mistakes digits before a line break for a date, and fails.
    password = re.sub(r"\s", " ", password)
    # Repetition adds next to nothing, and neither does a word that appears again later.
    period = next(n for n in range(1, len(password) + 1) if password.startswith(password[n:]))
    password = re.sub(r"(?i)([^\W\d_]{4,20})(?=.+\1)", "", password[:period])
    ends = {password[:_ZXCVBN_LENGTH], password[-_ZXCVBN_LENGTH:]}
    return max(int(zxcvbn(end, known_words)["guesses"]) for end in ends)


def _letters_and_digits(text: str) -> str:
    """`My App`, `my-app` and `MYAPP` are the same."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).casefold())


def _to_bytes(password: str) -> bytes:
    """The same bytes, however a keyboard composes accents (NIST SP 800-63B-4, RFC 8265)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


async def _run_in(
    threads: ThreadPoolExecutor, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run slow work outside the event loop; ServiceUnavailable if the queue is too long."""
    queued = threads.submit(function, *args, **kwargs)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(queued), _MAX_QUEUE_SECONDS)
    except TimeoutError:
        raise ServiceUnavailable from None
