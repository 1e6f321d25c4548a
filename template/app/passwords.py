"""Which passwords are refused (NIST SP 800-63B-4): no rules of composition, but no easy guesses."""

import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import app
from app.errors import Fault, Invalid
from app.security import hash_password, in_thread
from app.settings import Settings

# What the estimate costs grows with the square of the length: half a second for so many at worst.
# One at a time, and not in the threads where log-ins wait.
ESTIMATED_CHARACTERS = 32
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
    beginning = password[:ESTIMATED_CHARACTERS]
    if await in_thread(ESTIMATING_THREAD, guesses, beginning) < FEWEST_GUESSES:
        return "This is among the first that would be tried; take a few words nobody expects."
    return None


def squeeze(text: str) -> str:
    """Letters and digits alone, folded: `My App`, `my-app` and `MYAPP` are the same."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).casefold())


def guesses(password: str) -> int:
    """How many it would take, from lists of common passwords, names and words, runs, repeats and keyboard rows."""
    # Loaded with the first password that is set, since no other request needs it.
    from zxcvbn import zxcvbn

    # It takes a number for a date, and fails on one that ends with a line.
    return int(zxcvbn(re.sub(r"\s", " ", password))["guesses"])
