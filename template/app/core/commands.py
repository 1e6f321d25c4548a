"""The commands that every project has, and what further commands need to talk to a person."""

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, TypeVar

import typer

from app.core.generators import ANY_ARGUMENTS, generate
from app.core.settings import PROJECT_FOLDER, CoreSettings

_Result = TypeVar("_Result")

# Returns the settings and the metadata of the project, while one of its commands runs.
_project: ContextVar[Callable[[], tuple[CoreSettings, Any]] | None]
_project = ContextVar("project", default=None)


def create_cli(
    description: str, load_settings: Callable[[], CoreSettings], *, app: str, metadata: str
) -> typer.Typer:
    """The command line of the project, to which it adds its own commands.

    `app` and `metadata` are import strings, such as "app.main:app". Each command only imports what
    it needs, so that --help stays fast.
    """

    def prepare() -> None:
        _prepare()
        _project.set(lambda: (load_settings(), resolve_name(metadata)))

    cli = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        # Typer's tracebacks show the values of variables, passwords among them.
        pretty_exceptions_enable=False,
        help=description,
        callback=prepare,
    )
    _add_server_commands(cli, load_settings, app, metadata)
    cli.command(context_settings=ANY_ARGUMENTS)(generate)
    cli.add_typer(_create_database_commands(load_settings, metadata), name="db")
    return cli


def _add_server_commands(
    cli: typer.Typer, load_settings: Callable[..., CoreSettings], app: str, metadata: str
) -> None:
    @cli.command()
    def serve(
        host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8001,
        socket: Annotated[Path | None, typer.Option(help="A Unix socket instead.")] = None,
        workers: Annotated[
            int, typer.Option(min=1, envvar="WEB_CONCURRENCY", help="The number of processes.")
        ] = 1,
        root_path: Annotated[str, typer.Option(help="The path that the proxy removes.")] = "",
        graceful_timeout: Annotated[
            int, typer.Option(min=1, help="Seconds for requests in progress, on SIGTERM.")
        ] = 30,
        keep_alive: Annotated[int, typer.Option(min=1, help="Seconds for idle connections.")] = 130,
    ) -> None:
        """Serve the app as in production. Trusts only the proxies in TRUSTED_PROXIES."""
        from app.core.server import ListenError, serve_app

        # So that an error that every worker would raise is reported once. Also sets up the log.
        settings = load_settings()
        resolve_name(app)
        listens_at = socket or (host, port)
        options = {"workers": workers, "root_path": root_path, "timeout_keep_alive": keep_alive}
        options["timeout_graceful_shutdown"] = graceful_timeout
        with _explaining(ListenError):
            code = serve_app(app, settings, listens_at, **options)
        raise typer.Exit(code)

    @cli.command()
    def check(
        deploy: Annotated[bool, typer.Option(help="Apply the rules for production.")] = False,
    ) -> None:
        """Check the settings, the database and the migrations. Exits with 1 on an error."""
        from app.core.checks import run_checks
        from app.core.production_checks import check_production

        settings = load_settings(for_production=True) if deploy else load_settings()
        try:
            resolve_name(app)
        except (Exception, SystemExit) as error:
            raise fail(f"cannot import the app: {error!r}") from None
        results = run(run_checks(settings, resolve_name(metadata), load_settings().environment))
        results += check_production(settings)
        for result in results:
            typer.echo(f"{result.level:7} {result.message}")
        if any(result.level == "error" for result in results):
            raise typer.Exit(1)

    @cli.command()
    def lock(
        upgrade: Annotated[bool, typer.Option(help="Use the newest versions that fit.")] = False,
    ) -> None:
        """Pin exact versions of all libraries. Run it after you change the dependencies."""
        from app.core.lock import LockError, lock

        with _explaining(LockError):
            lock(PROJECT_FOLDER, upgrade=upgrade)

    @cli.command()
    def openapi() -> None:
        """Print the OpenAPI schema as JSON."""
        typer.echo(json.dumps(resolve_name(app).openapi(), indent=2))


def _create_database_commands(
    load_settings: Callable[[], CoreSettings], metadata: str
) -> typer.Typer:
    db = typer.Typer(no_args_is_help=True, help="Migrate, back up, restore and copy the database.")

    @db.command()
    def upgrade() -> None:
        """Migrate the database to the newest revision, like `alembic upgrade head`."""
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        file = PROJECT_FOLDER / "alembic.ini"
        if not file.exists():
            raise fail(f"{file} not found: run this in the folder of the project")
        config = Config(file)
        # The file format gives "%" a meaning.
        config.set_main_option("script_location", str(file.with_suffix("")).replace("%", "%%"))
        with _explaining(CommandError):
            command.upgrade(config, "head")

    @db.command()
    def backup(path: Annotated[Path, typer.Argument(help="The file to create.")]) -> None:
        """Copy the SQLite database to a new file. The app can keep running."""
        from app.core.backup import BackupError, back_up, database_file

        with _explaining(BackupError):
            source = database_file(load_settings().database_url)
            back_up(source, path)
        typer.echo(f"Backed up {source} to {path}")

    @db.command("restore")
    def restore_backup(path: Annotated[Path, typer.Argument(help="The backup.")]) -> None:
        """Restore a backup. The SQLite database must be empty or missing, and the app stopped."""
        from app.core.backup import BackupError, database_file, restore

        with _explaining(BackupError):
            target = database_file(load_settings().database_url)
            restore(path, target, resolve_name(metadata))
        typer.echo(f"Restored {path} to {target}. Login sessions and rows are those of that time.")

    @db.command()
    def copy_to(url: Annotated[str, typer.Argument(help="The URL of that database.")]) -> None:
        """Copy every row to a database that is migrated and empty, such as postgresql://..."""
        from sqlalchemy.exc import DBAPIError

        from app.core.copy_database import CopyError, copy_database
        from app.core.settings import validate_database_url

        try:
            validate_database_url(url, "postgresql://user@host/name")
        except ValueError as error:
            raise fail(f"URL of the target: {error}") from None
        source = load_settings().database_url
        with _explaining(CopyError, DBAPIError), progress_bars() as show:
            copied = copy_database(source, url, resolve_name(metadata), show)
        typer.echo(f"Copied and compared {sum(copied.values())} rows in {len(copied)} tables.")

    return db


def _prepare() -> None:
    # What the terminal cannot print is escaped: on Windows a pipe has a legacy code page.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    current = Path.cwd()
    for folder in (current, *current.parents):
        # Not `exists`: before Python 3.14, it fails in a folder that this user may not enter.
        if os.access(folder / "app/core/commands.py", os.F_OK):
            if not folder.samefile(PROJECT_FOLDER):
                raise fail(f"this command belongs to {PROJECT_FOLDER}, but you are in {folder}")
            return


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Like `asyncio.run`, but with a loop that psycopg can use on Windows, too.

    If the work fails in a database that is not migrated, that is the error of the command.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        try:
            return runner.run(work)
        except Exception as error:
            if problem := runner.run(_find_migration_problem(error)):
                raise fail(problem) from None
            raise


async def _find_migration_problem(error: Exception) -> str | None:
    from sqlalchemy.exc import DBAPIError

    from app.core.checks import find_migration_problem
    from app.core.errors import AppError

    project = _project.get()
    if project is None or not isinstance(error, AppError | DBAPIError):
        return None
    return await find_migration_problem(*project())


@contextmanager
def _explaining(*errors: type[Exception]) -> Iterator[None]:
    """End the command with the reason of such an error, without a traceback."""
    try:
        yield
    except errors as error:
        # That of a driver is shorter than SQLAlchemy's, which has the statement.
        raise fail(getattr(error, "orig", error)) from None


def fail(reason: object) -> typer.Exit:
    """Print the reason to standard error; `raise fail("...")` exits with 1."""
    typer.echo(f"Error: {reason}", err=True)
    return typer.Exit(1)


def prompt_secret(name: str, rule: str = "") -> str:
    """Ask twice on a terminal; otherwise read one line of standard input, never an argument."""
    if sys.stdin.isatty():
        prompt = f"{rule}\n{name}" if rule else name
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar for each name that is reported, with the number done and the total."""
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress() as bars:

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done if total else 1, total=total or 1)

        yield show
