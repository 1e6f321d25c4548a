import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings, load_settings
from tests.conftest import MakeSettings

SECRET = "s3cr3t"
PROJECT = Path(__file__).parents[1]
# Windows opens no socket without it.
SYSTEM = {"SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.env` that the settings read."""
    file = tmp_path / ".env"
    monkeypatch.setattr("app.settings.ENV_FILE", file)
    monkeypatch.setitem(Settings.model_config, "env_file", file)
    return file


def test_g6_without_any_setting_the_app_serves_this_machine_alone() -> None:
    settings = load_settings()

    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert not settings.docs_are_on


def test_the_environment_wins_over_the_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("LOG_LEVEL=DEBUG\nCORS_ORIGINS=https://a.example, https://b.example\n")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")

    settings = load_settings()

    assert settings.log_level == "ERROR"
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_g5_unfit_settings_are_all_named_at_once_without_their_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///:memory:?{SECRET}")
    monkeypatch.setenv("CORS_ORIGINS", f"*,{SECRET}")
    monkeypatch.setenv("LOG_LEVEL", SECRET)

    with pytest.raises(SystemExit) as refusal:
        load_settings()

    sentence = str(refusal.value)
    for name in ("ALLOWED_HOSTS", "DATABASE_URL", "CORS_ORIGINS", "LOG_LEVEL"):
        assert name in sentence
    assert SECRET not in sentence


@pytest.mark.parametrize("hosts", ["", "*", "[::1],localhost", "api.example.com,*", "*.com"])
def test_production_names_its_hosts(hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("ALLOWED_HOSTS", hosts)

    with pytest.raises(SystemExit, match="ALLOWED_HOSTS"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
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
        ("DATABASE_URL", f"postgresql://u:p@ss:{SECRET}@host/shelf"),
        ("ENVIRONMENT", "developement"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "proxy.example.com"),
        ("TRUSTED_PROXIES", "0.0.0.0/1"),
        ("TRUSTED_PROXIES", "::/8"),
        ("TRUSTED_PROXIES", "::ffff:0:0/96"),
        ("TRUSTED_PROXIES", "::/16"),
        ("DATABASE_URL", f"postgresql://host/shelf?user=me&password={SECRET}"),
        ("DATABASE_URL", "postgresql://shelf:Shelf@host/shelf"),
        ("DATABASE_URL", "postgresql://me:Postgres@host/shelf"),
        ("ALLOWED_HOSTS", "*"),
        ("FORWARDED_ALLOW_IPS", "*"),
        ("UVICORN_FORWARDED_ALLOW_IPS", "*"),
    ],
)
def test_a_value_that_cannot_work_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as refusal:
        load_settings()

    named = "TRUSTED_PROXIES" if name.endswith("FORWARDED_ALLOW_IPS") else name
    assert f"  {named}: " in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_g4_the_example_becomes_production_only_with_what_production_needs(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text((PROJECT / ".env.example").read_text("utf-8"), "utf-8")
    assert load_settings().in_development
    monkeypatch.setenv("ENVIRONMENT", "production")

    with pytest.raises(SystemExit, match="ALLOWED_HOSTS"):
        load_settings()


def test_a_file_that_is_no_utf_8_is_told_so(env_file: Path) -> None:
    env_file.write_text("LOG_LEVEL=DEBUG\n", "utf-16")

    with pytest.raises(SystemExit, match=r"save \.env as UTF-8"):
        load_settings()


UNREADABLE = Path("/proc/self/mem")


@pytest.mark.skipif(sys.platform != "linux", reason="a file that even root can't read is Linux's")
def test_a_file_that_cannot_be_read_is_told_so(env_file: Path) -> None:
    env_file.symlink_to(UNREADABLE)

    with pytest.raises(SystemExit, match="The settings can't be read: "):
        load_settings()


def test_x9_uvicorn_is_not_told_on_its_command_line_whom_to_trust(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["uvicorn", "app.main:app", "--forwarded-allow-ips=*"])

    with pytest.raises(SystemExit, match="TRUSTED_PROXIES"):
        load_settings()


@pytest.mark.parametrize("environment", ["production", None])
def test_outside_of_development_nothing_starts_without_a_database(
    make_settings: MakeSettings, database: Path, environment: str | None
) -> None:
    database.unlink()
    app = create_app(make_settings(environment=environment))

    with pytest.raises(RuntimeError, match="does not exist"), TestClient(app):
        pass


def test_g8_a_misspelt_name_is_reported_with_the_right_one(
    env_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env_file.write_text("ALOWED_HOSTS=x\nCOMPOSE_PROJECT_NAME=shelf\nKEY='\nc2VjcmV0\nC2VjcmV0==\n")

    create_app()

    assert "ALOWED_HOSTS is not a setting of this app; did you mean ALLOWED_HOSTS?" in caplog.text
    assert "COMPOSE_PROJECT_NAME is not a setting of this app" in caplog.text
    assert "c2VjcmV0" not in caplog.text


def test_the_server_stops_with_a_sentence_instead_of_a_traceback(tmp_path: Path) -> None:
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
    assert "ALLOWED_HOSTS: name the hosts" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def run_check(
    database: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "check", *options],
        cwd=PROJECT,
        env={"DATABASE_URL": f"sqlite:///{database}", **SYSTEM, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_a_code_page_lacks_is_escaped(tmp_path: Path) -> None:
    checked = run_check(tmp_path / "名.db", PYTHONIOENCODING="cp437")

    assert checked.returncode == 1
    assert f"{tmp_path}{os.sep}\\u540d.db does not exist" in checked.stdout


def test_check_finds_a_sound_project_sound(database: Path) -> None:
    checked = run_check(database)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "journal_mode = wal" in checked.stdout


def test_g7_check_says_what_production_would_refuse(database: Path) -> None:
    checked = run_check(database, "--deploy")

    assert checked.returncode == 1
    assert "ALLOWED_HOSTS" in checked.stderr


def test_check_says_what_to_mend(tmp_path: Path) -> None:
    checked = run_check(tmp_path / "none.db")

    assert checked.returncode == 1
    assert f"mend  the database: {tmp_path / 'none.db'} does not exist" in checked.stdout
