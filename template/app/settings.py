"""Every setting, read from the environment and then from `.env`."""

import difflib
import logging
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ENV_FILE = Path(".env")
THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")

logger = logging.getLogger(__name__)


def split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]


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
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
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
    def _names_a_lasting_database(cls, url: str) -> str:
        if url in {"sqlite://", "sqlite+aiosqlite://"} or ":memory:" in url or "mode=memory" in url:
            raise ValueError("name a file, as in sqlite+aiosqlite:///./app.db: memory is lost")
        return url

    @field_validator("allowed_hosts")
    @classmethod
    def _names_its_hosts(cls, hosts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if any("*" in host.removeprefix("*.") for host in hosts if host != "*"):
            raise ValueError("write a wildcard as *.example.com")
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
        if not all(origin.startswith(("https://", "http://")) for origin in origins):
            raise ValueError("name each origin in full, as in https://www.example.com; no *")
        return origins


def load_settings() -> Settings:
    """Read the settings, or exit with a line for every fault: name and reason, never the value."""
    try:
        settings = Settings()
    except ValidationError as error:
        faults = (
            f"  {str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise SystemExit("\n".join(["These settings need mending:", *faults])) from None
    for name, hint in unknown_names():
        logger.warning(".env: %s is not a setting of this app%s", name, hint)
    return settings


def unknown_names() -> list[tuple[str, str]]:
    """Names in `.env` that no setting has, each with the nearest right one.

    Not an error: other programs read that file too.
    """
    known = [name.upper() for name in Settings.model_fields]
    unknown = [name for name in dotenv_values(ENV_FILE) if name.upper() not in known]
    hints = [difflib.get_close_matches(name.upper(), known, n=1) for name in unknown]
    return [
        (name, f"; did you mean {hint[0]}?" if hint else "")
        for name, hint in zip(unknown, hints, strict=True)
    ]
