"""Which passwords are refused (NIST SP 800-63B-4): no rules of composition, but no easy guesses."""

import re
import unicodedata

import app
from app.security import in_hashing_thread
from app.settings import Settings

# What the estimate costs grows with the square of the length.
ESTIMATED_CHARACTERS = 72
FEWEST_GUESSES = 10**8


async def refuse_password(settings: Settings, password: str, *names: str) -> str | None:
    """Why this password is refused, in a sentence, or None; `names` are those of its user."""
    if len(password) < settings.password_min_length:
        return f"Use at least {settings.password_min_length} characters; a few words will do."
    personal = [squeeze(name) for name in (*names, app.SLUG, app.TITLE)]
    if any(len(word) >= 3 and word in squeeze(password) for word in personal):
        return "Leave out your username, your e-mail address and the name of this service."
    if await in_hashing_thread(guesses, password[:ESTIMATED_CHARACTERS]) < FEWEST_GUESSES:
        return "This is among the first that would be tried; take a few words nobody expects."
    return None


def squeeze(text: str) -> str:
    """Letters and digits alone, folded: `My App`, `my-app` and `MYAPP` are the same."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).casefold())


def guesses(password: str) -> int:
    """How many it would take, from lists of common passwords, names and words, runs, repeats and keyboard rows."""
    # Loaded with the first password that is set, since no other request needs it.
    from zxcvbn import zxcvbn

    return int(zxcvbn(password)["guesses"])
