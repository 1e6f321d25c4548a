"""One spelling of each name: what looks the same is the same, and taken once."""

from collections.abc import Iterator
from contextlib import contextmanager

from email_validator import EmailNotValidError, validate_email
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError

from app.db.faults import is_conflict
from app.errors import Conflict, Fault, Invalid
from app.schemas.user import Email, Username

USERNAME: TypeAdapter[str] = TypeAdapter(Username)
EMAIL: TypeAdapter[str] = TypeAdapter(Email)


def fold_email(email: str) -> str:
    """An address as it is stored; Invalid if it can't be one. Nothing is looked up on the network."""
    try:
        found = validate_email(email, check_deliverability=False)
        return EMAIL.validate_python(found.normalized)
    except (EmailNotValidError, ValidationError):
        # Its own sentence quotes the address.
        reason = "Give an address that mail can reach, as in ada@example.com."
        raise Invalid([Fault(["body", "email"], reason, "email")]) from None


def fold_login(login: str) -> str | None:
    """What somebody typed as their username or e-mail, as it is stored; None if it can't be."""
    try:
        return (
            fold_email(EMAIL.validate_python(login))
            if "@" in login
            else USERNAME.validate_python(login)
        )
    except (Invalid, ValidationError):
        return None


@contextmanager
def taken_names() -> Iterator[None]:
    """Around a change of a name: Conflict if somebody else has it."""
    try:
        yield
    except IntegrityError as error:
        if is_conflict(error):
            raise Conflict("This username or e-mail address is taken.") from None
        raise
