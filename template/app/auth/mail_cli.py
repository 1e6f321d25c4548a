"""The emails that wait to be sent, on the command line."""

from collections import Counter
from typing import TYPE_CHECKING

import typer

from app.auth.cli import run_command
from app.core.commands import fail
from app.settings import load_settings

if TYPE_CHECKING:
    from app.core.database import Database

_RETRIED_AT_ONCE = 100

# Each command imports what it needs, so that --help stays fast.
mail = typer.Typer(no_args_is_help=True, help="Send queued emails, and list them.")


@mail.command()
def send() -> None:
    """Send the emails that are due, as a running app does. Exits with 1 if the server fails."""
    run_command("mail send", _send_mails())


@mail.command(name="list")
def list_mails() -> None:
    """List the emails that are not sent: id, recipient, template, attempts, next one, error."""
    run_command("mail list", _list_mails())


@mail.command()
def retry() -> None:
    """Queue again all emails that were given up, after you have fixed the reason."""
    run_command("mail retry", _retry_mails())


async def _send_mails() -> None:
    from app.auth.mail_sender import Outcome, send_next
    from app.core.database import Database

    settings, counts = load_settings(), Counter[Outcome]()
    if settings.smtp_url is None and not settings.in_development:
        raise fail("set SMTP_URL first, such as smtps://user:password@smtp.example.com")
    async with Database(settings) as database:
        while outcome := await send_next(database, settings):
            counts[outcome] += 1
            if outcome is Outcome.UNAVAILABLE:
                raise fail(f"sent {counts[Outcome.SENT]}; the mail server failed, see `mail list`")
    typer.echo(f"Sent {counts[Outcome.SENT]}; {counts[Outcome.FAILED]} failed.")


async def _list_mails() -> None:
    from sqlalchemy import select

    from app.auth.models import OutgoingMail
    from app.core.database import Database

    statement = select(OutgoingMail).order_by(OutgoingMail.id)
    async with Database(load_settings()) as database, database.readers() as session:
        rows = await session.stream_scalars(statement.execution_options(yield_per=500))
        async for row in rows:
            # In development, an email is only shown.
            state = "given up" if row.last_error else "shown"
            if row.next_attempt_at:
                state = f"{row.next_attempt_at:%Y-%m-%d %H:%M}"
            columns = (row.id, row.recipient, row.template, row.attempts, state, row.last_error)
            typer.echo("\t".join(str("-" if value is None else value) for value in columns))


async def _retry_mails() -> None:
    from app.core.database import Database

    queued, last_id = 0, 0
    async with Database(load_settings()) as database:
        # In several transactions, since other writers of SQLite wait for each.
        while ids := await _retry_next(database, last_id):
            queued, last_id = queued + len(ids), max(ids)
    typer.echo(f"Queued {queued} again.")


async def _retry_next(database: "Database", last_id: int) -> list[int]:
    """Queue the next given-up emails again; returns their ids."""
    from datetime import UTC, datetime

    from sqlalchemy import select, update

    from app.auth import audit
    from app.auth.models import OutgoingMail

    now = datetime.now(UTC)
    given_up = select(OutgoingMail.id).where(
        OutgoingMail.id > last_id,
        OutgoingMail.next_attempt_at.is_(None),
        OutgoingMail.last_error.is_not(None),
    )
    oldest = given_up.order_by(OutgoingMail.id).limit(_RETRIED_AT_ONCE).with_for_update()
    again = update(OutgoingMail).where(OutgoingMail.id.in_(oldest))
    again = again.values(queued_at=now, next_attempt_at=now, attempts=0)
    async with database.writers.begin() as session:
        found = await session.execute(again.returning(OutgoingMail.id, OutgoingMail.template))
        mails = found.all()
        for mail_id, template in mails:
            target = audit.Target("outgoing_mails", mail_id, template)
            await audit.record(session, None, "mail_queued", target)
    return [mail_id for mail_id, _ in mails]
