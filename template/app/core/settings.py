"""The settings that every project has, read from the environment and then from `.env`."""

import difflib
import os
import re
from importlib.util import find_spec
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Interval
from dotenv import dotenv_values
from pydantic import BeforeValidator, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

_CODE_FOLDER = Path(__file__).parents[2]
# Where `.env`, the migrations and a relative database file are, whatever the current folder is. An
# installed package has none of them next to it, so there the current folder is the project's.
PROJECT_FOLDER = _CODE_FOLDER if (_CODE_FOLDER / "alembic.ini").exists() else Path.cwd()
ENV_FILE = PROJECT_FOLDER / ".env"

_SETTING_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_DRIVERS = ("sqlite", "sqlite+aiosqlite", "postgresql", "postgresql+psycopg")
_COMMON_PASSWORDS = {"admin", "changeme", "changethis", "password", "postgres", "root", "secret"}
# `*.com` would match everybody.
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*|\*(\.[\w-]+){2,}|\[[0-9a-fA-F:]+\]")
# Apps have schemes like capacitor and tauri.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\])(:\d+)?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# The shortest prefix of a trusted network, by IP version: no organization is larger.
_MIN_PREFIX_LENGTH = {4: 8, 6: 16}
# IPv4 addresses as a dual-stack socket writes them (RFC 4291, section 2.5.5.2).
_IPV4_MAPPED = IPv6Network("::ffff:0:0/96")


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


class CoreSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        # A default that suits development may be invalid in production.
        validate_default=True,
    )

    # What `check` calls with the settings after its own checks, as import strings.
    further_checks: ClassVar[tuple[str, ...]] = ()

    # Unset is as strict as production, but only serves this machine.
    environment: Literal["development", "production"] | None = None
    database_url: str = "sqlite+aiosqlite:///./app.db"
    # PostgreSQL: a streaming standby for the routes that read from `ReplicaSessionDep`.
    database_replica_url: str | None = None
    allowed_hosts: CommaSeparated = _LOCAL_HOSTS
    cors_origins: CommaSeparated = ()
    # Request headers that these pages may send, in addition to Authorization and Content-Type.
    cors_headers: CommaSeparated = ()
    # Unset: only in development.
    docs: bool | None = None
    # Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, or
    # `unix` for everyone who can connect to the Unix socket of `serve`.
    trusted_proxies: CommaSeparated = ()
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
    # FULL keeps every acknowledged commit through a power cut; NORMAL may lose the last ones.
    sqlite_synchronous: Literal["FULL", "NORMAL"] = "FULL"
    # PostgreSQL: a statement that takes longer fails, and its connection is closed.
    database_timeout_seconds: Annotated[int, Interval(ge=1, le=3600)] = 30
    # How long the app keeps serving after SIGTERM, while `/health/ready` answers 503.
    drain_seconds: Annotated[int, Interval(ge=0, le=300)] = 0
    # A router that accepts uploads sets a higher `max_body_size`.
    max_body_bytes: Annotated[int, Ge(1024)] = 2**20
    # In each worker. More are answered with 503 at once.
    max_concurrent_requests: Annotated[int, Ge(1)] = 500

    @property
    def in_development(self) -> bool:
        return self.environment == "development"

    @property
    def docs_are_on(self) -> bool:
        return self.in_development if self.docs is None else self.docs

    @classmethod
    def load(cls, *, for_production: bool = False) -> Self:
        """Read the settings, or exit with one line per invalid setting, without its value."""
        try:
            return cls(environment="production") if for_production else cls()
        except ValidationError as error:
            # A validator of the whole model names no setting.
            lines = [
                f"  {'.'.join(map(str, e['loc'])).upper() or 'SETTINGS'}: "
                f"{e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
            given = os.environ.get("ENVIRONMENT") or dotenv_values(ENV_FILE).get("ENVIRONMENT")
            if for_production and given != "production":
                lines.insert(0, "  ENVIRONMENT: set it to production")
            raise SystemExit("\n".join(["Invalid settings:", *lines])) from None
        except SettingsError as error:
            # One of the project, such as a `list[str]`.
            message = f"Invalid settings: {error}: write it as JSON, or declare it CommaSeparated"
            raise SystemExit(message) from None
        except OSError as error:
            raise SystemExit(f"Cannot read the settings: {error}") from None
        except UnicodeDecodeError:
            raise SystemExit("Cannot read the settings: save .env as UTF-8.") from None

    @classmethod
    def unknown_names(cls) -> list[str]:
        """Unknown names in `.env`, each with the most similar setting.

        They are allowed, because other programs read that file, too.
        """
        known = [name.upper() for name in cls.model_fields]
        unknown = []
        for name, value in dotenv_values(ENV_FILE).items():
            # Anything else, such as a line of a key that lost its quotes, may be a secret.
            if value is not None and _SETTING_NAME.fullmatch(name) and name not in known:
                similar = difflib.get_close_matches(name, known, n=1)
                unknown.append(f"{name} (did you mean {similar[0]}?)" if similar else name)
        return unknown

    @field_validator("database_url", "database_replica_url")
    @classmethod
    def _validate_database_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        validate_database_url(url)
        urls = url, info.data.get("database_url", url)
        is_replica = info.field_name == "database_replica_url"
        if is_replica and not all(one.startswith("postgresql") for one in urls):
            raise ValueError("only PostgreSQL has replicas: set DATABASE_URL first, or unset this")
        if info.data.get("environment") != "development":
            _validate_database_password(url)
        return url

    @field_validator("allowed_hosts")
    @classmethod
    def _validate_allowed_hosts(
        cls, hosts: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        environment = info.data.get("environment")
        serves_nobody = environment == "production" and set(hosts) <= set(_LOCAL_HOSTS)
        if serves_nobody or (environment != "development" and "*" in hosts):
            raise ValueError("list the host names of this service, such as api.example.com")
        if not all(host == "*" or _HOST.fullmatch(host) for host in hosts):
            raise ValueError("use names without scheme or port: api.example.com, *.example.com")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _validate_cors_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_ORIGIN.fullmatch(origin) for origin in origins):
            raise ValueError("use full origins: https://www.example.com, without * and path")
        # As browsers send them.
        return tuple(origin.lower() for origin in origins)

    @field_validator("cors_headers")
    @classmethod
    def _validate_cors_headers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HEADER_NAME.fullmatch(name) for name in names):
            raise ValueError("use names of headers, without *: traceparent, Idempotency-Key")
        return names

    @field_validator("trusted_proxies")
    @classmethod
    def _validate_trusted_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        try:
            networks = [ip_network(proxy) for proxy in proxies if proxy != "unix"]
        except ValueError:
            raise ValueError("use addresses or networks: 10.0.0.5, 10.1.0.0/16, unix") from None
        if any(isinstance(n, IPv6Network) and n.overlaps(_IPV4_MAPPED) for n in networks):
            raise ValueError("write an IPv4 network as IPv4: 10.1.0.0/16")
        if any(network.prefixlen < _MIN_PREFIX_LENGTH[network.version] for network in networks):
            raise ValueError("this network is too large: anyone in it could claim any address")
        return proxies


def validate_database_url(value: str, example: str = "sqlite+aiosqlite:///./app.db") -> None:
    """Raise ValueError unless the URL names a database that this app can use."""
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        # SQLAlchemy's own message may quote a part of the password.
        raise ValueError(f"use a URL, such as {example}") from None
    if url.drivername not in _DRIVERS:
        raise ValueError(f"start with one of {', '.join(_DRIVERS)}")
    if "password" in url.query:
        # The query is shown wherever the URL is, and the check of passwords ignores it.
        raise ValueError("put the password before the host: postgresql://user:password@host/name")
    if url.get_backend_name() == "postgresql":
        if not find_spec("psycopg"):
            raise ValueError('PostgreSQL needs its driver: pip install -e ".[postgres]"')
    elif not url.database or url.database.startswith((":memory:", "file:")):
        raise ValueError("name a file, such as sqlite+aiosqlite:///./app.db")
    elif url.database.startswith("~"):
        raise ValueError("write the path in full: only a shell replaces ~")


def _validate_database_password(value: str) -> None:
    url = make_url(value)
    password = (url.password or "").casefold()
    if password and password in _COMMON_PASSWORDS | {(url.username or "").casefold()}:
        raise ValueError("the database password is easy to guess: choose another one")
