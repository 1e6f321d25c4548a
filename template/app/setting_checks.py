"""What a setting may look like: each check raises ValueError saying why a value is unfit."""

import os
import re
import sys
from importlib.util import find_spec
from ipaddress import IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

DRIVERS = ("sqlite", "sqlite+aiosqlite", "postgresql", "postgresql+psycopg")
DEFAULT_PASSWORDS = {"admin", "changeme", "changethis", "password", "postgres", "root", "secret"}
# Bits of the prefix, by IP version: no organisation has more addresses than that.
WIDEST_NETWORK = {4: 8, 6: 16}
# Every IPv4 address, as a socket for both kinds has it (RFC 4291, 2.5.5.2).
IPV4_MAPPED = IPv6Network("::ffff:0:0/96")
# `*.com` would be everybody.
HOST = re.compile(r"[\w-]+(\.[\w-]+)*|\*(\.[\w-]+){2,}|\[[0-9a-fA-F:]+\]")
ORIGIN = re.compile(r"https?://([\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\])(:\d+)?")


def split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]


def check_database_url(value: str) -> None:
    """For a URL that names a database which this app can use."""
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        # Its own message may quote a piece of the password.
        raise ValueError("write a URL, as in sqlite+aiosqlite:///./app.db") from None
    if url.drivername not in DRIVERS:
        raise ValueError(f"begin with one of {', '.join(DRIVERS)}")
    if "password" in url.query:
        # There it would be shown wherever the URL is, and pass the check of passwords.
        raise ValueError("write the password before the host: postgresql://user:password@host/name")
    if url.get_backend_name() == "postgresql":
        if not find_spec("psycopg"):
            raise ValueError('PostgreSQL needs its driver: pip install -e ".[postgres]"')
    elif not url.database or url.database.startswith((":memory:", "file:")):
        raise ValueError("name a file, as in sqlite+aiosqlite:///./app.db")


def check_database_password(url: str) -> None:
    """Outside of development: not one that stands in a tutorial (and nothing to say without any)."""
    parsed = make_url(url)
    password = (parsed.password or "").casefold()
    if password and password in DEFAULT_PASSWORDS | {(parsed.username or "").casefold()}:
        raise ValueError("this password of the database is easy to guess: take another")


def check_hosts(hosts: tuple[str, ...]) -> None:
    if not all(host == "*" or HOST.fullmatch(host) for host in hosts):
        raise ValueError("write names without scheme or port: api.example.com, *.example.com")


def check_origins(origins: tuple[str, ...]) -> None:
    if not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("write each origin in full: https://www.example.com; no *, no path")


def check_proxies(proxies: tuple[str, ...]) -> None:
    try:
        networks = [ip_network(proxy) for proxy in proxies]
    except ValueError:
        raise ValueError("write addresses or networks: 10.0.0.5, 10.1.0.0/16") from None
    if any(isinstance(n, IPv6Network) and n.overlaps(IPV4_MAPPED) for n in networks):
        raise ValueError("write an IPv4 network as one: 10.1.0.0/16")
    if any(network.prefixlen < WIDEST_NETWORK[network.version] for network in networks):
        raise ValueError("trusting so many addresses lets anyone claim to be anyone")


def check_uvicorn_trusts_nobody() -> None:
    """uvicorn has settings of its own for it, which believe whole addresses before the app is asked."""
    names = {name.upper() for name in os.environ}
    if names & {"FORWARDED_ALLOW_IPS", "UVICORN_FORWARDED_ALLOW_IPS"} or any(
        argument.startswith("--forwarded-allow-ips") for argument in sys.argv
    ):
        raise ValueError("this alone says whom to trust: leave out uvicorn's forwarded-allow-ips")
