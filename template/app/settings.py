"""Every setting, read from the environment and then from `.env`."""

import difflib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

ENV_FILE = Path(".env")
THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")

DRIVERS = ("sqlite", "sqlite+aiosqlite", "postgresql", "postgresql+psycopg")
HOST = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\]")
ORIGIN = re.compile(r"https?://([\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\])(:\d+)?")
NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]


def check_database_url(value: str) -> str:
    """The URL itself, if it names a database that this app can use; ValueError says why not."""
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        # Its own message may quote a piece of the password.
        raise ValueError("write a URL, as in sqlite+aiosqlite:///./app.db") from None
    if url.drivername not in DRIVERS:
        raise ValueError(f"begin with one of {', '.join(DRIVERS)}")
    if url.get_backend_name() == "postgresql":
        if not find_spec("psycopg"):
            raise ValueError('PostgreSQL needs its driver: pip install -e ".[postgres]"')
    elif not url.database or url.database.startswith((":memory:", "file:")):
        raise ValueError("name a file, as in sqlite+aiosqlite:///./app.db")
    return value


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        hide_input_in_errors=True,
        # Defaults are checked too: what is fit for development may be unfit for production.
        validate_default=True,
    )

    # Unset is as careful as production, but serves this machine only and asks for nothing.
    environment: Literal["development", "production"] | None = None
    database_url: str = "sqlite+aiosqlite:///./app.db"
    allowed_hosts: CommaSeparated = THIS_MACHINE
    cors_origins: CommaSeparated = ()
    # Unset means: in development only.
    docs: bool | None = None
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
    # FULL survives a power cut with every acknowledged commit; NORMAL may lose the last ones.
    sqlite_synchronous: Literal["FULL", "NORMAL"] = "FULL"

    @property
    def in_development(self) -> bool:
        return self.environment == "development"

    @property
    def docs_are_on(self) -> bool:
        return self.in_development if self.docs is None else self.docs

    @field_validator("database_url")
    @classmethod
    def _names_a_lasting_database(cls, value: str) -> str:
        return check_database_url(value)

    @field_validator("allowed_hosts")
    @classmethod
    def _names_its_hosts(cls, hosts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not all(host == "*" or HOST.fullmatch(host) for host in hosts):
            raise ValueError("write names without scheme or port: api.example.com, *.example.com")
        if info.data.get("environment") == "production" and (
            not hosts or "*" in hosts or hosts == THIS_MACHINE
        ):
            raise ValueError(
                "name the hosts that this service is reached by, as in api.example.com"
            )
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _names_its_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if not all(ORIGIN.fullmatch(origin) for origin in origins):
            raise ValueError(
                "write each origin in full, as in https://www.example.com; no *, no path"
            )
        return origins


def load_settings(*, for_production: bool = False) -> Settings:
    """Read the settings, or exit with a line for every fault: name and reason, never the value."""
    try:
        return Settings(environment="production") if for_production else Settings()
    except ValidationError as error:
        faults = (
            f"  {str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise SystemExit("\n".join(["These settings need mending:", *faults])) from None


def unknown_names() -> list[tuple[str, str]]:
    """Names in `.env` that no setting has, each with the nearest right one.

    Not an error: other programs read that file too.
    """
    known = [name.upper() for name in Settings.model_fields]
    # Anything else, such as a line of a key that lost its quotes, may be a secret.
    unknown = [
        name
        for name, value in dotenv_values(ENV_FILE).items()
        if value is not None and NAME.fullmatch(name) and name not in known
    ]
    hints = [difflib.get_close_matches(name.upper(), known, n=1) for name in unknown]
    return [
        (name, f"; did you mean {hint[0]}?" if hint else "")
        for name, hint in zip(unknown, hints, strict=True)
    ]
