"""Emails: queued with a change, sent by a real SMTP server, and read in development."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html import unescape
from pathlib import Path
from string import Template
from typing import Any, ClassVar, TypeVar

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import Engine, event, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app import TITLE
from app.auth import mail, mail_sender
from app.auth.mail import queue_mail, write_mail
from app.auth.mail_sender import Outcome, check_mail, send_next
from app.auth.models import OutgoingMail
from app.cli import cli
from app.core.database import Database
from app.main import create_app
from app.settings import Settings
from tests.conftest import ROOT, MakeSettings

Found = TypeVar("Found")
RunCommand = Callable[..., Result]

SENT, FAILED, UNAVAILABLE = Outcome.SENT, Outcome.FAILED, Outcome.UNAVAILABLE
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
OWN_FOLDER = mail._FOLDER
GREETING = "Subject: Hello $name\n\nDear $name, open $link\n"


class Inbox:
    """What a mail server has accepted, and what it answers to each recipient."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        # By the recipient: the answer to RCPT and DATA, and the seconds before that to DATA.
        self.refusals: dict[str, str] = {}
        self.late_refusals: dict[str, str] = {}
        self.delays: dict[str, float] = {}
        self.lost: set[str] = set()
        # Where the first emails wait for each other.
        self.meeting: asyncio.Barrier | None = None
        self.logins: list[str] = []

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        [address] = envelope.rcpt_tos
        if address in self.lost:
            assert server.transport is not None
            server.transport.abort()  # type: ignore[attr-defined]
        await asyncio.sleep(self.delays.get(address, 0))
        if self.meeting and not self.recipients:
            await self.meeting.wait()
        if address in self.late_refusals:
            return self.late_refusals[address]
        self.recipients.append(address)
        content = envelope.content.replace(b"\r\n", b"\n")
        self.mails.append(message_from_bytes(content, policy=default))
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, kind: str, data: Any) -> Any:
        self.logins.append(data.login.decode())
        return AuthResult(success=data.password == b"pa/ss@word", handled=False)


Serve = Callable[..., Inbox]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def serve(port: int) -> Iterator[Serve]:
    """Start an SMTP server on `port`."""
    with contextlib.ExitStack() as running:

        def start(host: str = "127.0.0.1", **options: Any) -> Inbox:
            inbox = Inbox()
            if options.pop("auth", False):
                options |= {"authenticator": inbox.authenticate, "auth_required": True}
            options["ready_timeout"] = 60
            controller = Controller(inbox, hostname=host, port=port, **options)
            controller.start()
            running.callback(controller.stop)
            return inbox

        yield start


@pytest.fixture
def settings(make_settings: MakeSettings, port: int) -> Settings:
    return make_settings(
        environment=None,
        smtp_url=f"smtp://127.0.0.1:{port}",
        mail_from="Book Shelf <shelf@example.com>",
    )


@pytest.fixture(autouse=True)
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mails"
    folder.mkdir()
    (folder / "greeting.txt").write_text(GREETING, "utf-8")
    monkeypatch.setattr(mail, "_FOLDER", folder)
    return folder


def queue(settings: Settings, *recipients: str, template: str = "greeting", **values: str) -> None:
    async def add() -> None:
        async with Database(settings) as database, database.writers.begin() as session:
            for to in recipients:
                texts = {"name": "Ada", "link": "https://example.com/x", **values}
                await queue_mail(session, to=to, template=template, **texts)

    asyncio.run(add())


def send(settings: Settings) -> list[Outcome]:
    async def send_all() -> list[Outcome]:
        outcomes: list[Outcome] = []
        async with Database(settings) as database:
            while outcome := await send_next(database, settings):
                outcomes.append(outcome)
                if outcome is UNAVAILABLE:
                    break
        return outcomes

    return run_until_closed(send_all())


def run_until_closed(work: Awaitable[Found]) -> Found:
    async def run() -> Found:
        found = await work
        # The event loop closes an encrypted connection a moment later. If it ended before that, the
        # socket would be found open by some test.
        await asyncio.sleep(0.05)
        return found

    return asyncio.run(run())


def waiting(rows: Engine) -> list[OutgoingMail]:
    with Session(rows) as session:
        return [*session.scalars(select(OutgoingMail).order_by(OutgoingMail.id))]


def change(rows: Engine, **values: object) -> None:
    with rows.begin() as connection:
        connection.execute(update(OutgoingMail).values(**values))


def make_due(rows: Engine) -> None:
    change(rows, next_attempt_at=datetime.now(UTC))


# ---- in the queue


def test_m1_a_mail_exists_only_if_its_change_is_committed(settings: Settings, rows: Engine) -> None:
    async def fail() -> None:
        async with Database(settings) as database, database.writers.begin() as session:
            await queue_mail(session, to="ada@example.com", template="greeting", name="Ada")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())

    assert waiting(rows) == []


def test_a_new_mail_deletes_few_old_mails(
    settings: Settings, rows: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "_MAX_DELETED", 2)
    queue(settings, *["ada@example.com"] * 5)
    change(rows, queued_at=datetime.now(UTC) - timedelta(days=31))

    queue(settings, "eve@example.com")

    assert [row.recipient[:3] for row in waiting(rows)] == ["ada", "ada", "ada", "eve"]


# ---- sending


def test_a_mail_is_sent_and_its_row_deleted(settings: Settings, rows: Engine, serve: Serve) -> None:
    inbox = serve()
    queue(settings, "ada@example.com")
    [row] = waiting(rows)

    assert send(settings) == [SENT]

    [received] = inbox.mails
    assert received["From"] == "Book Shelf <shelf@example.com>"
    assert received["To"] == "ada@example.com"
    assert received["Subject"] == "Hello Ada"
    assert received["Message-ID"].endswith("@example.com>")
    assert received["Auto-Submitted"] == "auto-generated"
    assert received["Date"].datetime == row.queued_at.replace(microsecond=0)
    assert received.get_content() == "Dear Ada, open https://example.com/x\n"
    assert waiting(rows) == []


def parts(message: EmailMessage) -> tuple[str, str]:
    text, html = message.get_body(["plain"]), message.get_body(["html"])
    assert text is not None
    assert html is not None
    return text.get_content(), html.get_content()


def test_the_html_version_has_the_paragraphs_of_the_text_and_escapes_all_of_it(
    settings: Settings, serve: Serve, templates: Path
) -> None:
    inbox = serve()
    (templates / "layout.html").write_text("<title>$subject</title>$content", "utf-8")
    text = "Subject: From $name\n\nMe & $name\nsay:\n\n$link\n\n$$5\n\n$other\n"
    (templates / "greeting.txt").write_text(text, "utf-8")
    values = {"name": '<i>"Ada"', "link": "https://x.org/?a=1&b=2", "other": "javascript:alert(1)"}
    queue(settings, "ada@example.com", **values)

    assert send(settings) == [SENT]

    plain, html = parts(inbox.mails[0])
    assert plain == 'Me & <i>"Ada"\nsay:\n\nhttps://x.org/?a=1&b=2\n\n$5\n\njavascript:alert(1)\n'
    name, link = "&lt;i&gt;&quot;Ada&quot;", "https://x.org/?a=1&amp;b=2"
    assert html.splitlines() == [
        f"<title>From {name}</title><p>Me &amp; {name}",
        "say:</p>",
        f'<p><a href="{link}">{link}</a></p>',
        "<p>$5</p>",
        "<p>javascript:alert(1)</p>",
    ]


def test_an_html_template_takes_the_place_of_the_paragraphs(
    settings: Settings, serve: Serve, templates: Path
) -> None:
    inbox = serve()
    (templates / "layout.html").write_text("<main>$content</main>$app", "utf-8")
    (templates / "greeting.html").write_text("<b>$name</b>", "utf-8")
    queue(settings, "ada@example.com", name="<i>Ada & Co</i>")

    assert send(settings) == [SENT]

    plain, html = parts(inbox.mails[0])
    assert html == f"<main><b>&lt;i&gt;Ada &amp; Co&lt;/i&gt;</b></main>{TITLE}\n"
    assert "<i>Ada & Co</i>" in plain


TEMPLATES = sorted(file.stem for file in Path(mail.__file__).parents[1].glob("mails/*.txt"))


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_mail_is_the_same_as_text_and_as_html_and_loads_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.undo()
    file = mail._FOLDER.joinpath(f"{template}.txt")
    names = Template(file.read_text("utf-8")).get_identifiers()
    values = {name: f"the-{name}" for name in names if name != "app"}
    if "link" in values:
        values["link"] = "https://www.example.com/account/register?token=x"
    row = OutgoingMail(
        id=1, recipient="ada@example.com", template=template, variables=values, queued_at=NOON
    )

    message = write_mail(row, settings)

    plain, html = parts(message)
    body = html.partition("<body>")[2].partition("<footer>")[0]
    assert unescape(re.sub("<[^>]*>", "", body)).split() == plain.split()
    assert all(f"the-{name}" in plain + message["Subject"] for name in values if name != "link")
    # Neither pictures nor scripts, and no other address than that of the link.
    assert {*re.findall("</?([a-z0-9]+)", body)} <= {"p", "a"}
    assert html.count("://") == plain.count("://") * 2 == len(values.keys() & {"link"}) * 2
    assert html.count("<a href=") == plain.count("://")
    assert "url(" not in html
    assert "@import" not in html
    assert f"<title>{message['Subject']}</title>" in html


def test_the_running_app_sends_mails(
    settings: Settings, rows: Engine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = serve()
    monkeypatch.setattr(mail_sender, "_POLL_SECONDS", 0.05)
    # An empty queue must not start this pause, which is longer than the test waits.
    monkeypatch.setattr(mail_sender, "_PAUSE_SECONDS", 60)
    queue(settings, "ada@example.com", "eve@example.com")

    with TestClient(create_app(settings)):
        wait_for(lambda: len(inbox.mails) == 2)
        wait_for(lambda: waiting(rows) == [])
        queue(settings, "bob@example.com")
        wait_for(lambda: len(inbox.mails) == 3)


def test_the_app_stops_while_the_mail_server_hangs(
    settings: Settings, rows: Engine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = serve()
    inbox.delays["ada@example.com"] = 60
    monkeypatch.setattr(mail_sender, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(mail_sender, "_STOP_SECONDS", 0.2)
    queue(settings, "ada@example.com")

    with TestClient(create_app(settings)):
        wait_for(lambda: waiting(rows)[0].attempts == 1)
        started = time.monotonic()

    assert time.monotonic() - started < 20
    assert len(waiting(rows)) == 1


def test_a_missing_table_stops_neither_the_app_nor_later_mails(
    settings: Settings,
    rows: Engine,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox = serve()
    for name in ("_POLL_SECONDS", "_PAUSE_SECONDS"):
        monkeypatch.setattr(mail_sender, name, 0.05)
    queue(settings, "ada@example.com")
    with rows.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE outgoing_mails RENAME TO away")

    with TestClient(create_app(settings)) as client:
        wait_for(lambda: "Cannot read the emails to send" in caplog.text)
        assert client.get("/health/live").status_code == 200
        with rows.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO outgoing_mails")
        wait_for(lambda: len(inbox.mails) == 1)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_m2_several_senders_send_each_mail_once(
    settings: Settings, rows: Engine, serve: Serve
) -> None:
    inbox = serve()
    recipients = [f"user{number}@example.com" for number in range(30)]
    queue(settings, *recipients)

    async def send_all(database: Database) -> None:
        while await send_next(database, settings):
            pass

    async def race() -> None:
        async with Database(settings) as one, Database(settings) as other:
            await asyncio.gather(*(send_all(database) for database in (one, other) * 3))

    asyncio.run(race())

    assert sorted(inbox.recipients) == sorted(recipients)
    assert waiting(rows) == []


def test_check_deploy_connects_to_the_mail_server(serve: Serve, run_command: RunCommand) -> None:
    settled = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "api.example.com"}

    failed = run_command("check", "--deploy", **settled)
    assert failed.exit_code == 1
    assert "error   mail: cannot use 127.0.0.1: SMTPConnectError" in failed.stdout
    inbox = serve()
    passed = run_command("check", "--deploy", **settled)
    assert "ok      mail: 127.0.0.1 accepts the connection" in passed.stdout
    assert passed.exit_code == 0
    assert inbox.mails == []


def test_m2_two_processes_send_each_mail_once(
    settings: Settings, rows: Engine, serve: Serve, database_url: str
) -> None:
    inbox = serve()
    inbox.meeting = asyncio.Barrier(2)
    recipients = [f"user{number}@example.com" for number in range(20)]
    queue(settings, *recipients, template="password_reset", username="Ada")
    command = [sys.executable, "-m", "app", "mail", "send"]
    env = {**os.environ, **variables(settings, database_url)}

    processes = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]

    sent = [int(found) for line in said for found in re.findall(r"Sent (\d+); 0 failed", line)]
    assert sum(sent) == 20
    assert min(sent) > 0
    assert sorted(inbox.recipients) == sorted(recipients)
    assert waiting(rows) == []


def test_m2_a_killed_process_loses_nothing_and_repeats_only_the_mail_in_hand(
    settings: Settings, rows: Engine, serve: Serve, database_url: str, run_command: RunCommand
) -> None:
    inbox = serve()
    recipients = [f"{name}@example.com" for name in ("ada", "bob", "cyd")]
    queue(settings, *recipients, template="password_reset", username="Ada")
    inbox.delays["bob@example.com"] = 60
    command = [sys.executable, "-m", "app", "mail", "send"]
    env = {**os.environ, **variables(settings, database_url)}

    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE)
    wait_for(lambda: [row.attempts for row in waiting(rows)] == [1, 0])
    wait_for(lambda: inbox.recipients == recipients[:1])
    process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    process.communicate()
    inbox.delays.clear()

    # The others do not wait for the email that was in hand.
    assert run_command("mail", "send").exit_code == 0
    assert inbox.recipients == ["ada@example.com", "cyd@example.com"]
    make_due(rows)
    assert run_command("mail", "send").exit_code == 0
    assert inbox.recipients == ["ada@example.com", "cyd@example.com", "bob@example.com"]
    assert waiting(rows) == []


def test_commands_list_the_mails_and_queue_those_again_that_were_given_up(
    settings: Settings, rows: Engine, serve: Serve, run_command: RunCommand
) -> None:
    inbox = serve()
    inbox.refusals["bob@example.com"] = "550 No such user"
    names = {"username": "Ada", "template": "password_reset"}
    queue(settings, "bob@example.com", "ada@example.com", link="https://x.org", **names)

    assert run_command("mail", "send").stdout == "Sent 1; 1 failed.\n"

    listed = run_command("mail", "list").stdout
    assert listed.startswith("1\tbob@example.com\tpassword_reset\t1\tgiven up\t")
    assert "No such user" in listed
    assert "https://x.org" not in listed
    inbox.refusals.clear()
    assert run_command("mail", "retry").stdout == "Queued 1 again.\n"
    assert run_command("mail", "send").stdout == "Sent 1; 0 failed.\n"
    assert inbox.recipients == ["ada@example.com", "bob@example.com"]
    assert waiting(rows) == []


def test_the_list_does_not_call_an_email_of_development_given_up(
    settings: Settings, run_command: RunCommand
) -> None:
    names = {"username": "Ada", "template": "password_reset"}
    queue(settings, "ada@example.com", link="https://x.org", **names)
    assert run_command("mail", "send", ENVIRONMENT="development").exit_code == 0

    assert "\tshown\t" in run_command("mail", "list").stdout
    assert run_command("mail", "retry").stdout == "Queued 0 again.\n"


def test_other_writers_need_not_wait_until_all_mails_are_queued_again(
    settings: Settings, rows: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    queue(settings, *[f"user-{number}@example.com" for number in range(250)])
    change(rows, next_attempt_at=None, last_error="550 No such user", attempts=1)
    statements: list[str] = []
    listen_to_all = (
        (Engine, "before_cursor_execute", lambda *all: statements.append(all[2])),
        (Engine, "commit", lambda _: statements.append("COMMIT")),
    )
    for arguments in listen_to_all:
        event.listen(*arguments)
    try:
        said = CliRunner().invoke(cli, ["mail", "retry"]).stdout
    finally:
        for arguments in listen_to_all:
            event.remove(*arguments)

    assert said == "Queued 250 again.\n"
    assert {mail.next_attempt_at is None for mail in waiting(rows)} == {False}
    transactions = "\n".join(statements).split("COMMIT")
    events = [transaction.count("INSERT INTO audit_events") for transaction in transactions]
    assert sum(events) == 250
    assert max(events) <= 100


def test_the_command_says_that_the_server_fails(
    settings: Settings, run_command: RunCommand
) -> None:
    queue(settings, "ada@example.com", username="Ada", template="password_reset")

    failed = run_command("mail", "send")

    assert failed.exit_code == 1
    assert "Error: sent 0; the mail server failed, see `mail list`" in failed.stderr
    failed = run_command("mail", "send", SMTP_URL="")
    assert failed.exit_code == 1
    assert "Error: set SMTP_URL first" in failed.stderr


@pytest.fixture
def run_command(
    settings: Settings, database_url: str, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> RunCommand:
    """Run a command of the app with its own templates and the mail server of `settings`."""
    monkeypatch.setattr(mail, "_FOLDER", OWN_FOLDER)

    def run(*arguments: str, **more: str) -> Result:
        env = {**variables(settings, database_url), **more}
        return CliRunner().invoke(cli, arguments, env=env)

    return run


def variables(settings: Settings, database_url: str) -> dict[str, str]:
    assert settings.smtp_url is not None
    return {
        "ENVIRONMENT": "",
        "ALLOWED_HOSTS": "",
        "DATABASE_URL": database_url,
        "MAIL_FROM": "shelf@example.com",
        "SMTP_URL": settings.smtp_url.get_secret_value(),
    }


# ---- TLS


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate for 127.0.0.2, which is not one of the names that need no TLS."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=mail", "-addext", "subjectAltName=IP:127.0.0.2"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return context


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_m5_a_mail_and_the_password_are_encrypted(
    make_settings: MakeSettings, port: int, serve: Serve, tls: ssl.SSLContext, scheme: str
) -> None:
    if scheme == "smtps":
        # The server believes that it must see STARTTLS before a password.
        inbox = serve("127.0.0.2", ssl_context=tls, auth=True, auth_require_tls=False)
    else:
        inbox = serve("127.0.0.2", tls_context=tls, require_starttls=True, auth=True)
    url = f"{scheme}://shelf:pa%2Fss%40word@127.0.0.2:{port}"
    settings = make_settings(environment=None, smtp_url=url, mail_from="shelf@example.com")
    queue(settings, "ada@example.com")

    assert run_until_closed(check_mail(settings))[0].level == "ok"
    assert send(settings) == [SENT]
    assert inbox.recipients == ["ada@example.com"]
    assert set(inbox.logins) == {"shelf"}


def test_m5_without_starttls_nothing_is_sent(
    make_settings: MakeSettings, port: int, serve: Serve, rows: Engine
) -> None:
    inbox = serve("127.0.0.2")
    settings = make_settings(
        environment=None, smtp_url=f"smtp://127.0.0.2:{port}", mail_from="shelf@example.com"
    )
    queue(settings, "ada@example.com")

    assert send(settings) == [UNAVAILABLE]
    assert inbox.mails == []
    assert len(waiting(rows)) == 1


def test_m5_an_unknown_certificate_is_rejected(
    make_settings: MakeSettings,
    port: int,
    serve: Serve,
    tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    inbox = serve("127.0.0.2", tls_context=tls)
    settings = make_settings(
        environment=None, smtp_url=f"smtp://127.0.0.2:{port}", mail_from="shelf@example.com"
    )
    queue(settings, "ada@example.com")

    assert send(settings) == [UNAVAILABLE]
    assert inbox.mails == []


def test_a_private_network_may_do_without_tls(
    make_settings: MakeSettings, port: int, serve: Serve
) -> None:
    inbox = serve("127.0.0.2")
    settings = make_settings(
        environment=None,
        smtp_url=f"smtp://127.0.0.2:{port}?tls=none",
        mail_from="shelf@example.com",
    )
    queue(settings, "ada@example.com")

    assert send(settings) == [SENT]
    assert len(inbox.mails) == 1


def test_a_wrong_password_gives_no_mail_up_and_is_in_no_log(
    make_settings: MakeSettings,
    port: int,
    serve: Serve,
    rows: Engine,
    caplog: pytest.LogCaptureFixture,
    tls: ssl.SSLContext,
) -> None:
    caplog.set_level(logging.INFO)
    serve("127.0.0.2", tls_context=tls, auth=True)
    url = f"smtp://shelf:hunter2hunter2@127.0.0.2:{port}"
    settings = make_settings(environment=None, smtp_url=url, mail_from="shelf@example.com")
    queue(settings, "ada@example.com")

    assert send(settings) == [UNAVAILABLE]

    [row] = waiting(rows)
    assert row.next_attempt_at is not None
    [result] = run_until_closed(check_mail(settings))
    assert result.level == "error"
    seen = caplog.text + repr([vars(record) for record in caplog.records]) + result.message
    assert "hunter2" not in f"{seen} {row.last_error} {settings!r}"
    assert "ada@example.com" not in seen


# ---- rejections and failures: none stops the other emails


@pytest.mark.parametrize("answer", ["451 4.7.1 Greylisted", "452 4.2.2 Mailbox full"])
@pytest.mark.parametrize("at_data", [False, True])
def test_m3_a_mail_that_is_rejected_for_now_is_sent_later(
    settings: Settings, rows: Engine, serve: Serve, answer: str, at_data: bool
) -> None:
    inbox = serve()
    refusals = inbox.late_refusals if at_data else inbox.refusals
    refusals["bob@example.com"] = answer
    queue(settings, "bob@example.com", "ada@example.com")

    assert send(settings) == [FAILED, SENT]

    [row] = waiting(rows)
    assert (row.recipient, row.attempts) == ("bob@example.com", 1)
    assert answer[:3] in (row.last_error or "")
    assert send(settings) == []
    refusals.clear()
    make_due(rows)
    assert send(settings) == [SENT]
    assert inbox.recipients == ["ada@example.com", "bob@example.com"]
    assert waiting(rows) == []


@pytest.mark.parametrize("at_data", [False, True])
def test_a_server_that_closes_the_connection_gets_no_other_mail_at_once(
    settings: Settings, rows: Engine, serve: Serve, at_data: bool
) -> None:
    inbox = serve()
    refusals = inbox.late_refusals if at_data else inbox.refusals
    refusals["bob@example.com"] = "421 Too many connections"
    queue(settings, "bob@example.com", "ada@example.com")

    assert send(settings) == [UNAVAILABLE]
    assert send(settings) == [SENT]
    assert [row.attempts for row in waiting(rows)] == [1]


@pytest.mark.parametrize("at_data", [False, True])
def test_m3_a_mail_that_is_rejected_for_good_is_given_up(
    settings: Settings, rows: Engine, serve: Serve, at_data: bool
) -> None:
    inbox = serve()
    refusals = inbox.late_refusals if at_data else inbox.refusals
    refusals["bob@example.com"] = "550 5.1.1 No such user"
    queue(settings, "bob@example.com", "ada@example.com")

    assert send(settings) == [FAILED, SENT]

    [row] = waiting(rows)
    assert row.next_attempt_at is None
    assert "No such user" in (row.last_error or "")


def test_the_wait_doubles_and_ends_after_three_days(settings: Settings, rows: Engine) -> None:
    """No server answers. The time goes on only in the table."""
    queue(settings, "ada@example.com")
    waits, started = [], datetime.now(UTC)
    while True:
        assert send(settings) == [UNAVAILABLE]
        [row] = waiting(rows)
        if row.next_attempt_at is None:
            break
        wait = row.next_attempt_at - datetime.now(UTC)
        waits.append(round(wait / timedelta(minutes=1)))
        change(rows, next_attempt_at=datetime.now(UTC), queued_at=row.queued_at - wait)

    assert waits == [2**exponent for exponent in range(1, len(waits) + 1)]
    assert timedelta(days=1) < timedelta(minutes=sum(waits)) < timedelta(days=3)
    assert datetime.now(UTC) - started < timedelta(minutes=5)


def test_a_mail_that_waited_for_too_long_is_not_sent(
    settings: Settings, rows: Engine, serve: Serve
) -> None:
    inbox = serve()
    queue(settings, "ada@example.com")
    change(rows, queued_at=datetime.now(UTC) - timedelta(days=4))

    assert send(settings) == [FAILED]
    assert inbox.mails == []
    assert waiting(rows)[0].next_attempt_at is None


def test_without_a_mail_server_mails_wait(make_settings: MakeSettings, rows: Engine) -> None:
    settings = make_settings(environment=None)
    queue(settings, "ada@example.com")

    assert send(settings) == []

    assert waiting(rows)[0].attempts == 0
    [result] = run_until_closed(check_mail(settings))
    assert (result.level, "SMTP_URL" in result.message) == ("warning", True)


def test_a_lost_connection_pauses_and_loses_nothing(
    settings: Settings, rows: Engine, serve: Serve
) -> None:
    inbox = serve()
    inbox.lost.add("ada@example.com")
    queue(settings, "ada@example.com", "bob@example.com")

    assert send(settings) == [UNAVAILABLE]
    assert send(settings) == [SENT]
    inbox.lost.clear()
    make_due(rows)
    assert send(settings) == [SENT]
    assert inbox.recipients[-2:] == ["bob@example.com", "ada@example.com"]


# What a mail server says, in order, and how often it reads a line before.
CONVERSATION = {
    "greeting": ("220 ready", 0),
    "EHLO": ("250 ok", 1),
    "MAIL": ("250 ok", 1),
    "RCPT": ("250 ok", 1),
    "DATA": ("354 go on", 1),
    "text": ("250 accepted", None),
}


class Faulty(socketserver.StreamRequestHandler):
    """A mail server that says nothing more from some point on, or closes the connection."""

    stops_at, stalls = "", False
    texts: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        for name, (reply, lines) in CONVERSATION.items():
            if lines is None:
                self.texts.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            elif lines:
                self.rfile.readline()
            if name == self.stops_at:
                if self.stalls:
                    self.rfile.read(1)
                return
            self.wfile.write(f"{reply}\r\n".encode())


@pytest.mark.parametrize("stalls", [True, False], ids=["stalls", "closes"])
@pytest.mark.parametrize("stops_at", CONVERSATION)
def test_m3_a_server_that_fails_at_any_point_loses_no_mail(
    settings: Settings,
    rows: Engine,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    stops_at: str,
    stalls: bool,
) -> None:
    monkeypatch.setattr(mail_sender, "_ATTEMPT_SECONDS", 0.3)
    handler = type("Handler", (Faulty,), {"stops_at": stops_at, "stalls": stalls, "texts": []})
    queue(settings, "ada@example.com")

    with socketserver.ThreadingTCPServer(("127.0.0.1", port), handler) as server:
        # It looks this often whether to end.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert send(settings) == [UNAVAILABLE]
        server.shutdown()

    [row] = waiting(rows)
    assert (row.attempts, row.next_attempt_at is None) == (1, False)
    assert row.last_error


def test_an_accepted_mail_is_not_given_up_when_its_row_cannot_be_deleted(
    settings: Settings, rows: Engine, serve: Serve
) -> None:
    inbox = serve()
    queue(settings, "ada@example.com")
    with rows.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE kept (id BIGINT REFERENCES outgoing_mails (id))")
        connection.exec_driver_sql("INSERT INTO kept SELECT id FROM outgoing_mails")

    with pytest.raises(IntegrityError):
        send(settings)

    [row] = waiting(rows)
    assert len(inbox.mails) == 1
    assert row.next_attempt_at is not None
    assert row.last_error is None


def test_m3_m4_a_slow_server_is_cut_off_and_holds_no_lock(
    settings: Settings, rows: Engine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_sender, "_ATTEMPT_SECONDS", 3)
    inbox = serve()
    inbox.delays["ada@example.com"] = 60
    queue(settings, "ada@example.com", "bob@example.com")

    async def send_and_write() -> tuple[Outcome | None, float]:
        async with Database(settings) as database:
            sending = asyncio.create_task(send_next(database, settings))
            while not await attempts(database):  # noqa: ASYNC110  (a change of the database)
                await asyncio.sleep(0.02)
            started = time.monotonic()
            async with database.writers.begin() as session:
                await queue_mail(session, to="cyd@example.com", template="greeting", name="Cyd")
            seconds = time.monotonic() - started
            assert not sending.done()
            return await sending, seconds

    async def attempts(database: Database) -> int:
        async with database.readers() as session:
            newest = select(OutgoingMail.attempts).order_by(OutgoingMail.id).limit(1)
            return await session.scalar(newest) or 0

    outcome, seconds = asyncio.run(send_and_write())

    assert outcome is UNAVAILABLE
    assert seconds < 2
    assert "TimeoutError" in (waiting(rows)[0].last_error or "")


def test_m3_an_answer_that_is_no_text_stops_no_other_mail(
    make_settings: MakeSettings, rows: Engine
) -> None:
    """Also one that no database could store."""
    answers = {b"RCPT": b"550 caf\xe9 \x00 " + b"x" * 300, b"QUIT": b"221 Bye"}

    def serve(server: socket.socket) -> None:
        for _ in range(2):
            client, _address = server.accept()
            with client, client.makefile("rb") as lines:
                client.sendall(b"220 hello\r\n")
                for line in lines:
                    client.sendall(answers.get(line[:4].strip(), b"250 OK") + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        settings = make_settings(
            environment=None,
            smtp_url=f"smtp://127.0.0.1:{server.getsockname()[1]}",
            mail_from="shelf@example.com",
        )
        queue(settings, "ada@example.com", "bob@example.com")
        assert send(settings) == [FAILED, FAILED]
        thread.join()

    for row in waiting(rows):
        assert row.next_attempt_at is None
        assert (row.last_error or "").startswith("SMTPRecipientsRefused")


def test_m3_a_template_that_fails_stops_no_other_mail(
    settings: Settings, rows: Engine, serve: Serve, templates: Path
) -> None:
    inbox = serve()
    (templates / "broken.txt").write_text("Subject: $nobody ${\n\n", "utf-8")
    (templates / "latin.txt").write_bytes(b"Subject: \xe9\n\n")
    for template in ("missing", "broken", "latin"):
        queue(settings, f"{template}@example.com", template=template)
    queue(settings, "ada@example.com")

    assert send(settings) == [FAILED, FAILED, FAILED, SENT]

    assert inbox.recipients == ["ada@example.com"]
    assert [row.next_attempt_at is None for row in waiting(rows)] == [False] * 3
    for template in ("missing", "broken", "latin"):
        (templates / f"{template}.txt").write_text(GREETING, "utf-8")
    make_due(rows)
    assert send(settings) == [SENT] * 3


def test_m6_a_value_forges_no_header_and_no_line(settings: Settings, serve: Serve) -> None:
    inbox = serve()
    name = "Ada\r\nBcc: eve@example.com\r\n\r\nClick here\x0b\u2028now\x00"
    queue(settings, "ada@example.com", name=name)

    assert send(settings) == [SENT]

    [received] = inbox.mails
    assert received["Bcc"] is None
    assert received["Subject"] == "Hello Ada Bcc: eve@example.com Click here now"
    assert received.get_content().count("\n") == 1


@pytest.mark.parametrize(
    "address", ["a\r\nBcc: eve@example.com", "a@b\r\nRCPT TO:<eve@example.com>", "", "a@b, c@d.com"]
)
def test_m3_an_invalid_address_reaches_nobody_and_stops_no_other_mail(
    settings: Settings, serve: Serve, address: str
) -> None:
    inbox = serve()
    queue(settings, address, "ada@example.com")

    assert send(settings) == [FAILED, SENT]
    assert inbox.recipients == ["ada@example.com"]


def test_m3_a_name_of_10000_characters_is_cut(settings: Settings, serve: Serve) -> None:
    inbox = serve()
    queue(settings, "ada@example.com", name="é" * 10_000)

    assert send(settings) == [SENT]

    [received] = inbox.mails
    assert len(received["Subject"]) == 200
    assert len(received.get_content()) < 1100
    assert "https://example.com/x" in received.get_content()


def test_addresses_with_other_letters_than_ascii(
    settings: Settings, rows: Engine, serve: Serve
) -> None:
    inbox = serve(enable_SMTPUTF8=True)
    queue(settings, "jörg@example.com", "ada@straße.de")

    assert send(settings) == [SENT, SENT]
    assert inbox.recipients == ["jörg@example.com", "ada@xn--strae-oqa.de"]
    assert inbox.mails[0]["To"] == "jörg@example.com"


def test_a_server_without_smtputf8_gets_only_the_other_mails(
    settings: Settings, rows: Engine, serve: Serve
) -> None:
    inbox = serve(enable_SMTPUTF8=False)
    queue(settings, "jörg@example.com", "ada@straße.de")

    assert send(settings) == [FAILED, SENT]

    assert inbox.recipients == ["ada@xn--strae-oqa.de"]
    [row] = waiting(rows)
    assert row.next_attempt_at is None
    assert "SMTPUTF8" in (row.last_error or "")


# ---- development


def test_m7_development_sends_nothing_and_shows_everything(
    make_settings: MakeSettings,
    port: int,
    serve: Serve,
    rows: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    inbox = serve()
    monkeypatch.setattr(mail_sender, "_POLL_SECONDS", 0.05)
    settings = make_settings(smtp_url=f"smtp://127.0.0.1:{port}", mail_from="shelf@example.com")
    queue(settings, "ada@example.com")

    with TestClient(create_app(settings)) as client:
        wait_for(lambda: "Dear Ada, open https://example.com/x" in caplog.text)
        page = client.get("/dev/mail")
        [row] = waiting(rows)
        message = client.get(f"/dev/mail/{row.id}")

    assert inbox.mails == []
    assert "Hello Ada" in page.text
    assert f'href="/dev/mail/{row.id}"' in page.text
    assert '<a href="https://example.com/x">https://example.com/x</a>' in message.text
    # It is not logged again, either.
    assert waiting(rows)[0].next_attempt_at is None


def test_the_pages_escape_what_they_show_and_run_no_script(
    client: TestClient, make_settings: MakeSettings, templates: Path
) -> None:
    (templates / "layout.html").write_text("$content", "utf-8")
    (templates / "greeting.html").write_text("<p style='color: red'>$name</p>", "utf-8")
    attack = "<script>alert(1)</script> javascript:alert(1) https://x\"onclick='alert(1)'"
    queue(make_settings(), "ada@example.com", name=attack, link="https://e.com/?a=1&b=2")

    pages = [client.get(f"/dev/mail{path}") for path in ("", "/1", "/1/html")]

    for page in pages:
        assert page.status_code == 200
        assert "<script" not in page.text
        assert 'href="javascript' not in page.text
        assert "onclick=&#x27;" in page.text or "onclick='" not in page.text
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'")
        assert "script-src" not in policy
        assert page.headers["Cache-Control"] == "no-store"
    assert '<a href="https://e.com/?a=1&amp;b=2">' in pages[1].text
    assert pages[2].headers["Content-Security-Policy"].endswith("sandbox")
    assert "unsafe-inline" not in pages[0].headers["Content-Security-Policy"]
    assert pages[1].headers["Referrer-Policy"] == "no-referrer"


def test_a_broken_template_is_shown_with_its_reason(
    client: TestClient, make_settings: MakeSettings
) -> None:
    queue(make_settings(), "ada@example.com", template="<missing>")

    for path in ("", "/1"):
        page = client.get(f"/dev/mail{path}")
        assert page.status_code == 200
        assert "The template &lt;missing&gt; is invalid: FileNotFoundError" in page.text


def test_a_mail_that_does_not_exist_is_not_found(client: TestClient) -> None:
    assert client.get("/dev/mail").text.count("none yet") == 1
    for path in ("/1", "/1/html", "/x", "/99999999999999999999"):
        assert client.get(f"/dev/mail{path}").status_code in (404, 422)


@pytest.mark.parametrize("environment", [None, "production"])
def test_m7_the_pages_exist_only_in_development(
    make_settings: MakeSettings, environment: str | None
) -> None:
    settings = make_settings(environment=environment)
    queue(settings, "ada@example.com")

    with TestClient(create_app(settings)) as client:
        for path in ("/dev/mail", "/dev/mail/1", "/dev/mail/1/html"):
            assert client.get(path).status_code == 404


# ---- settings


@pytest.mark.parametrize(
    "url",
    [
        "smtp://localhost",
        "smtp://mail:25?tls=none",
        "smtps://user:p%40ss@smtp.example.com",
        "smtp://user:pass@[2001:db8::1]:587",
    ],
)
def test_a_mail_server_is_a_url(make_settings: MakeSettings, url: str) -> None:
    settings = make_settings(smtp_url=url, mail_from="shelf@example.com")

    assert settings.smtp_url is not None
    assert settings.smtp_url.get_secret_value() == url
    assert url not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.com",
        "http://user:hunter2@example.com",
        "smtp://",
        "smtp://user:hunter2@example.com:port",
        "smtp://user:hunter2@example.com:0",
        "smtp://user:hun/ter2@example.com",
        "smtp://user:hun#ter2@example.com",
        "smtp://user:hun?ter2@example.com",
        "smtp://user@example.com",
        "smtp://user:hunter2@example.com?tls=none",
        "smtp://example.com?tls=maybe",
        "smtps://example.com?tls=none",
        "smtps://[::1",
        "smtps://user:hunter2@mail..example.com",
        f"smtps://user:hunter2@{'m' * 64}.example.com",
    ],
)
def test_an_invalid_url_is_rejected_without_its_password(
    make_settings: MakeSettings, url: str
) -> None:
    with pytest.raises(ValidationError) as error:
        make_settings(smtp_url=url, mail_from="shelf@example.com")

    assert "hun" not in str(error.value)
    assert "smtp_url" in str(error.value)


@pytest.mark.parametrize("sender", ["shelf@example.com", "Bücher <shelf@example.com>"])
def test_a_sender_is_an_address_with_or_without_a_name(
    make_settings: MakeSettings, sender: str
) -> None:
    assert make_settings(mail_from=sender).mail_from == sender


@pytest.mark.parametrize(
    "sender",
    [
        "shelf",
        "shelf@",
        "@example.com",
        "Book Shelf",
        "a@example.com, b@example.com",
        "Shelf <shelf@example.com>\r\nBcc: eve@example.com",
        "Shelf <shelf@example.com> and more",
        f"{'x' * 10_000} <shelf@example.com>",
        "jörg@example.com",
        "<>",
    ],
)
def test_an_invalid_sender_is_rejected(make_settings: MakeSettings, sender: str) -> None:
    with pytest.raises(ValidationError, match="mail_from"):
        make_settings(mail_from=sender)


def test_a_mail_server_needs_a_sender(make_settings: MakeSettings) -> None:
    with pytest.raises(ValidationError, match="since SMTP_URL is set"):
        make_settings(smtp_url="smtp://localhost")
