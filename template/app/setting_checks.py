"""What a setting may look like: each check returns the value, or raises ValueError saying why not."""

import re
from importlib.util import find_spec
from ipaddress import ip_network
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

DRIVERS = ("sqlite", "sqlite+aiosqlite", "postgresql", "postgresql+psycopg")
DEFAULT_PASSWORDS = {"admin", "changeme", "changethis", "password", "postgres", "root", "secret"}
# Bits of the prefix, by IP version: no organisation has more addresses than that.
WIDEST_NETWORK = {4: 8, 6: 16}
# `*.com` would be everybody.
HOST = re.compile(r"[\w-]+(\.[\w-]+)*|\*(\.[\w-]+){2,}|\[[0-9a-fA-F:]+\]")
ORIGIN = re.compile(r"https?://([\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\])(:\d+)?")


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


def check_database_password(url: str) -> None:
    """For production: not one that stands in a tutorial (and nothing to say without any)."""
    if (make_url(url).password or "unknown") in DEFAULT_PASSWORDS:
        raise ValueError("this password of the database is a default one: take another")


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if not all(host == "*" or HOST.fullmatch(host) for host in hosts):
        raise ValueError("write names without scheme or port: api.example.com, *.example.com")
    return hosts


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("write each origin in full: https://www.example.com; no *, no path")
    return origins


def check_proxies(proxies: tuple[str, ...]) -> tuple[str, ...]:
    try:
        networks = [ip_network(proxy) for proxy in proxies]
    except ValueError:
        raise ValueError("write addresses or networks: 10.0.0.5, 10.1.0.0/16") from None
    if any(network.prefixlen < WIDEST_NETWORK[network.version] for network in networks):
        raise ValueError("trusting so many addresses lets anyone claim to be anyone")
    return proxies
