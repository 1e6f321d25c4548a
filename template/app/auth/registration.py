"""Registration without an administrator: an address is verified before there is a user with it."""

from sqlalchemy import select

from app.auth import links, throttle, users
from app.auth.links import LinksUnavailable, Purpose
from app.auth.mail import queue_mail
from app.core.database import Database
from app.models.user import User
from app.schemas.user import UserCreate
from app.settings import Settings


def _check_open(settings: Settings) -> None:
    if settings.registration != "open":
        raise LinksUnavailable("Registration is closed.")


async def request_registration(
    database: Database, settings: Settings, email: str, address: str
) -> None:
    """Send a link for a new account to an address, or tell its user that there is one already.

    Either way, there is one email, from the same statements.
    """
    _check_open(settings)
    await throttle.record(database, links.mailbox_key(email), address)
    async with links.hiding_duration(), database.writers.begin() as session:
        user = await session.scalar(select(User).where(User.email == email))
        template = "registration_known" if user else "registration"
        token = await links.create(session, Purpose.REGISTER, user, email)
        link = links.url(settings, Purpose.REGISTER, token)
        # A user who exists gets no link. The token is created so that the statements are the same.
        values = {"username": user.username} if user else {"link": link}
        await queue_mail(session, to=email, template=template, **values)


async def register(
    database: Database,
    settings: Settings,
    token: str,
    username: str,
    password: str,
    address: str,
) -> None:
    """Create the user of a link. It has no permissions."""
    _check_open(settings)
    async with database.readers.begin() as session:
        row = await links.find(session, token, Purpose.REGISTER)
    # Limited, since hashing is slow, and a 409 reveals that another user has this name.
    await throttle.record(database, links.use_key(row.token_hash), address)
    data = UserCreate(username=username, email=row.email, password=password)
    user = await users.new_user(settings, data)
    async with database.writers.begin() as session:
        await links.take(session, row)
        await users.add_user(session, user)
        await throttle.reset(session, links.use_key(row.token_hash))


async def count_invitation(database: Database, sender_id: int, email: str) -> None:
    """Count an invitation by its address, and by its sender in place of a network."""
    name = f"invitation, {links.mailbox_key(email)}"
    await throttle.record(database, name, f"invitations by user {sender_id}")
