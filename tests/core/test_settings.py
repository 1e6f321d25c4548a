"""Settings: what each may be, and how invalid ones are reported."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError, model_validator
from typer.testing import CliRunner

from app.cli import cli
from app.core.commands import create_cli
from app.core.production_checks import check_backups
from app.main import create_app
from app.settings import Settings, load_settings
from tests.conftest import SERVER, MakeSettings

SECRET = "s3cr3t"
PROJECT = Path(__file__).parents[2]
# Windows opens no socket without it.
SYSTEM = {"SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `.env` that the settings are read from."""
    file = tmp_path / ".env"
    monkeypatch.setattr("app.core.settings.ENV_FILE", file)
    monkeypatch.setitem(Settings.model_config, "env_file", file)
    return file


def test_g6_without_settings_the_app_only_serves_this_machine() -> None:
    settings = load_settings()

    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert not settings.in_development
    assert not settings.docs_are_on


def test_the_environment_wins_over_the_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("LOG_LEVEL=DEBUG\nCORS_ORIGINS=https://a.example, capacitor://localhost\n")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")

    settings = load_settings()

    assert settings.log_level == "ERROR"
    assert settings.cors_origins == ("https://a.example", "capacitor://localhost")


def test_an_empty_variable_means_unset(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker Compose, for example, passes `NAME=${NAME}` as an empty variable."""
    env_file.write_text("LOG_LEVEL=DEBUG\nDOCS=\n")
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")

    settings = load_settings()

    assert settings.model_copy(update={"log_level": "INFO"}) == Settings.model_construct()
    assert settings.log_level == "DEBUG"


def test_g5_all_invalid_settings_are_named_at_once_without_their_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///:memory:?{SECRET}")
    monkeypatch.setenv("CORS_ORIGINS", f"*,{SECRET}")
    monkeypatch.setenv("LOG_LEVEL", SECRET)

    with pytest.raises(SystemExit) as stopped:
        load_settings()

    message = str(stopped.value)
    for name in ("ALLOWED_HOSTS", "DATABASE_URL", "CORS_ORIGINS", "LOG_LEVEL"):
        assert f"  {name}: " in message
    assert SECRET not in message


@pytest.mark.parametrize("hosts", ["", "*", "[::1],localhost", "api.example.com,*", "*.com"])
def test_production_needs_its_host_names(hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("ALLOWED_HOSTS", hosts)

    with pytest.raises(SystemExit, match="ALLOWED_HOSTS"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "https://api.example.com"),
        ("ALLOWED_HOSTS", "api.example.com:443"),
        ("ALLOWED_HOSTS", "*example.com"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "www.example.com"),
        ("CORS_ORIGINS", "https://www.example.com/"),
        ("CORS_ORIGINS", "https://*.example.com"),
        ("DATABASE_URL", "foo"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite+aiosqlite:///:memory:"),
        ("DATABASE_URL", "mysql://localhost/shelf"),
        ("DATABASE_URL", "sqlite:///file:app.db?uri=true"),
        ("DATABASE_URL", "sqlite:///~/app.db"),
        ("DATABASE_URL", f"postgresql://u:p@ss:{SECRET}@host/shelf"),
        ("DATABASE_URL", f"postgresql://host/shelf?user=me&password={SECRET}"),
        ("DATABASE_URL", "postgresql://shelf:Shelf@host/shelf"),
        ("DATABASE_URL", "postgresql://me:Postgres@host/shelf"),
        ("ENVIRONMENT", "developement"),
        ("MAX_BODY_BYTES", "1023"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "proxy.example.com"),
        ("TRUSTED_PROXIES", "0.0.0.0/1"),
        ("TRUSTED_PROXIES", "::/8"),
        ("TRUSTED_PROXIES", "::ffff:0:0/96"),
        ("TRUSTED_PROXIES", "::/16"),
    ],
)
def test_an_invalid_value_is_rejected(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as stopped:
        load_settings()

    assert f"  {name}: " in str(stopped.value)
    assert SECRET not in str(stopped.value)


def test_g4_the_example_is_not_enough_for_production(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text((PROJECT / ".env.example").read_text("utf-8"), "utf-8")
    assert load_settings().in_development
    monkeypatch.setenv("ENVIRONMENT", "production")

    with pytest.raises(SystemExit, match="ALLOWED_HOSTS"):
        load_settings()


def test_a_file_in_another_encoding_is_reported(env_file: Path) -> None:
    env_file.write_text("LOG_LEVEL=DEBUG\n", "utf-16")

    with pytest.raises(SystemExit, match=r"save \.env as UTF-8"):
        load_settings()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a file that root cannot read")
def test_a_file_that_cannot_be_read_is_reported(env_file: Path) -> None:
    env_file.symlink_to("/proc/self/mem")

    with pytest.raises(SystemExit, match="Cannot read the settings: "):
        load_settings()


@pytest.mark.parametrize("environment", ["production", None])
def test_the_app_only_starts_without_a_database_in_development(
    make_settings: MakeSettings, database: Path, environment: str | None
) -> None:
    database.unlink()

    with TestClient(create_app(make_settings())) as client:
        assert client.get("/health/live").status_code == 200
    with (
        pytest.raises(RuntimeError, match="does not exist"),
        TestClient(create_app(make_settings(environment=environment))),
    ):
        pass


def test_g8_a_misspelled_name_is_reported_with_the_right_one(
    env_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env_file.write_text("ALOWED_HOSTS=x\nCOMPOSE_PROJECT_NAME=shelf\nKEY='\nc2VjcmV0\nC2VjcmV0==\n")

    create_app()

    assert "unknown setting ALOWED_HOSTS (did you mean ALLOWED_HOSTS?)" in caplog.text
    assert "unknown setting COMPOSE_PROJECT_NAME" in caplog.text
    assert "c2VjcmV0" not in caplog.text


def test_g5_the_server_stops_with_a_message_instead_of_a_traceback(tmp_path: Path) -> None:
    stopped = subprocess.run(
        [sys.executable, "-m", "uvicorn", "app.main:app", "--app-dir", str(PROJECT)],
        cwd=tmp_path,
        env={"ENVIRONMENT": "production", **SYSTEM},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert stopped.returncode != 0
    assert "ALLOWED_HOSTS: list the host names" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def run_check(monkeypatch: pytest.MonkeyPatch, database_url: str, *options: str) -> tuple[int, str]:
    """The exit code and the output of `check`."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    result = CliRunner().invoke(cli, ["check", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, f"{result.output}{result.exception}"


def test_check_finds_no_error_in_a_migrated_project(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = run_check(monkeypatch, database_url)

    assert code == 0, output
    assert "migrations: database at" in output


def test_check_shows_the_pragmas(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run_check(monkeypatch, f"sqlite:///{database}")

    assert code == 0, output
    assert "journal_mode = wal" in output


def test_g7_check_applies_the_rules_for_production(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = run_check(monkeypatch, database_url, "--deploy")

    assert code == 1
    assert "  ALLOWED_HOSTS: " in output
    assert "  ENVIRONMENT: set it to production" in output
    monkeypatch.setenv("ENVIRONMENT", "production")
    assert "ENVIRONMENT" not in run_check(monkeypatch, database_url, "--deploy")[1]


def test_x9_check_warns_of_a_proxy_that_is_not_trusted_or_trusted_by_the_server_alone(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", "api.example.com")
    assert "PROXIES" not in run_check(monkeypatch, database_url)[1]
    assert (
        "warning TRUSTED_PROXIES is not set" in run_check(monkeypatch, database_url, "--deploy")[1]
    )

    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.5")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    code, output = run_check(monkeypatch, database_url, "--deploy")

    assert code == 0, output
    assert "TRUSTED_PROXIES is not set" not in output
    assert "warning uvicorn reads FORWARDED_ALLOW_IPS" in output


@pytest.mark.parametrize("names", ["*", "traceparent, a b", "X:A", "ü"])
def test_x6_a_header_that_is_no_name_is_rejected(make_settings: MakeSettings, names: str) -> None:
    with pytest.raises(ValidationError, match="use names of headers"):
        make_settings(cors_headers=names)


def test_check_warns_of_what_is_open_overridden_or_too_much_in_production(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tmp_path / "project.env"
    env.write_text("LOG_LEVEL=DEBUG\nSQLITE_SYNCHRONOUS=NORMAL\n")
    env.chmod(0o600)
    monkeypatch.setattr("app.core.production_checks.ENV_FILE", env)
    (tmp_path / ".env").touch()
    monkeypatch.chdir(tmp_path)
    production = {"ALLOWED_HOSTS": "api.example.com", "LOG_LEVEL": "ERROR", "DOCS": "true"}
    workers = {"WEB_CONCURRENCY": "5000"}
    for name, value in (production | workers).items():
        monkeypatch.setenv(name, value)

    in_development = run_check(monkeypatch, database_url)[1]
    output = run_check(monkeypatch, database_url, "--deploy")[1]

    found = [line for line in output.splitlines() if line.startswith("warning")]
    for said in (
        "LOG_LEVEL of the environment overrides .env: remove one of them",
        f"{tmp_path / '.env'} is not read: move its lines to {env}",
        "everybody can read /docs and /openapi.json: unset DOCS",
        "5000 workers share",
    ):
        assert [line for line in found if said in line], (said, output)
        assert said not in in_development
    assert "SQLITE_SYNCHRONOUS of" not in output
    if SERVER:
        assert "not 5000: raise max_connections, or put PgBouncer in front" in output


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_check_knows_how_old_the_newest_backup_is_and_who_can_read_it(tmp_path: Path) -> None:
    def levels() -> list[str]:
        return [result.level for result in check_backups(tmp_path)]

    assert levels() == ["warning"]
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old.touch(0o600)
    os.utime(old, (0, time.time() - 3 * 86400))
    assert "3.0 days old: run `db backup` each day" in check_backups(tmp_path)[0].message
    new.touch(0o600)
    assert levels() == ["ok"]
    tmp_path.chmod(0o755)
    new.chmod(0o644)
    assert levels() == ["ok", "error"]
    tmp_path.chmod(0o700)
    assert levels() == ["ok"]


def test_check_reports_a_missing_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run_check(monkeypatch, f"sqlite:///{tmp_path / 'none.db'}")

    assert code == 1
    assert f"error   database: {tmp_path / 'none.db'} does not exist: `alembic" in output
    assert "`db restore` restores a backup" in output


def test_check_escapes_what_the_terminal_cannot_print(tmp_path: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "app", "check"],
        cwd=PROJECT,
        env={
            "DATABASE_URL": f"sqlite:///{tmp_path / '名.db'}",
            "PYTHONIOENCODING": "cp437",
            **SYSTEM,
        },
        capture_output=True,
        encoding="cp437",
        timeout=60,
        check=False,
    )

    assert checked.returncode == 1
    assert f"{tmp_path}{os.sep}\\u540d.db does not exist" in checked.stdout


def test_a_validator_of_all_settings_is_reported_like_one_of_a_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shelves(Settings):
        @model_validator(mode="after")
        def fail(self) -> "Shelves":
            raise ValueError("too few shelves")

    monkeypatch.setenv("ENVIRONMENT", "development")

    with pytest.raises(SystemExit, match="Invalid settings:\n  SETTINGS: too few shelves"):
        Shelves.load()


def test_a_list_that_is_no_json_is_reported_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shelves(Settings):
        shelves: list[str]

    monkeypatch.setenv("SHELVES", f"oak,{SECRET}")

    with pytest.raises(SystemExit, match=r'"shelves" .* as JSON, or declare it') as stopped:
        Shelves.load()
    assert SECRET not in str(stopped.value)


def test_an_origin_is_compared_as_browsers_send_it(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(cors_origins="https://Front.Example.com"))
    headers = {"Origin": "https://front.example.com"}

    with TestClient(app) as client:
        response = client.get("/health/live", headers=headers)

    assert response.headers["Access-Control-Allow-Origin"] == headers["Origin"]


def test_check_reports_an_app_that_cannot_be_imported() -> None:
    broken = create_cli("", load_settings, app="app.nowhere:app", metadata="app.models:metadata")

    result = CliRunner().invoke(broken, ["check"])

    assert result.exit_code == 1
    assert "cannot import the app" in result.output


@pytest.mark.parametrize(
    ("database", "replica", "reason"),
    [
        ("sqlite:///app.db", f"postgresql://ada:{SECRET}@host/name", "only PostgreSQL has"),
        ("postgresql://host/name", "sqlite:///app.db", "only PostgreSQL has"),
        (
            "postgresql://host/name",
            "postgresql://ada:ada@host/name",
            "the database password is easy to guess",
        ),
    ],
)
def test_a_replica_needs_postgresql_and_a_password_as_good_as_that_of_the_database(
    monkeypatch: pytest.MonkeyPatch, database: str, replica: str, reason: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("DATABASE_REPLICA_URL", replica)

    with pytest.raises(SystemExit) as stopped:
        load_settings()

    assert f"DATABASE_REPLICA_URL: {reason}" in str(stopped.value)
    assert SECRET not in str(stopped.value)
