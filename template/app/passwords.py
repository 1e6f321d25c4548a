"""Which passwords are refused (NIST SP 800-63B-4): no rules of composition, but no easy guesses."""

import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import app
from app.errors import Fault, Invalid
from app.security import hash_password, in_thread
from app.settings import Settings

# zxcvbn's time grows fast with the length: so many characters take as long as a few hashes at
# worst, thirty take ten times that. It has one thread of its own, so that no log-in waits behind it.
ESTIMATED_CHARACTERS = 20
ESTIMATING_THREAD = ThreadPoolExecutor(1, "estimating")
FEWEST_GUESSES = 10**8


async def hash_new_password(
    settings: Settings, password: str, username: str, email: str, *, field: str = "password"
) -> str:
    """The hash to store; Invalid, naming this field, if the password is refused."""
    if reason := await refuse_password(settings, password, username, email.partition("@")[0]):
        raise Invalid([Fault(["body", field], reason, "password_refused")])
    return await hash_password(password)


async def refuse_password(settings: Settings, password: str, *names: str) -> str | None:
    """Why this password is refused, in a sentence, or None; `names` are those of its user."""
    if len(password) < settings.password_min_length:
        return f"Use at least {settings.password_min_length} characters; a few words will do."
    personal = [squeeze(name) for name in (*names, app.SLUG, app.TITLE)]
    if any(len(word) >= 3 and word in squeeze(password) for word in personal):
        return "Leave out your username, your e-mail address and the name of this service."
    if await in_thread(ESTIMATING_THREAD, guesses, password) < FEWEST_GUESSES:
        return "This is among the first that would be tried; take a few words nobody expects."
    return None


def squeeze(text: str) -> str:
    """Letters and digits alone, folded: `My App`, `my-app` and `MYAPP` are the same."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).casefold())


def guesses(password: str) -> int:
    """How many it would take, from lists of common passwords, names and words, runs, repeats and rows of keys.

    Of a long one, both ends are looked at: the whole is no easier than the harder of them.
    """
    # Loaded with the first password that is set, since no other request needs it.
    from zxcvbn import zxcvbn

    # zxcvbn fails on digits before a line break, which it takes for a date.
    plain = re.sub(r"\s", " ", password)
    # What repeats itself is cut to twice what it repeats, which zxcvbn finds.
    period = next(n for n in range(1, len(plain) + 1) if plain.startswith(plain[n:]))
    plain = plain[: 2 * period]
    ends = {plain[:ESTIMATED_CHARACTERS], plain[-ESTIMATED_CHARACTERS:]}
    return max(int(zxcvbn(end)["guesses"]) for end in ends)
