"""Guards: they fail for a route that is open to everybody by mistake.

Each message names the route, the rule and the line to add.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from starlette.routing import BaseRoute, Host, Mount, WebSocketRoute

from app.api.deps import require
from app.auth.dependencies import get_auth_context, get_optional_auth_context
from app.core.database import READ_METHODS
from app.main import create_app
from app.permissions import PUBLIC_ROUTES, PermissionName
from tests.auth.conftest import LogIn, MakeUser, execute, set_permissions
from tests.conftest import MakeSettings

ANY_ID = "1"
ANY_UUID = "00000000-0000-4000-8000-000000000000"
# The session of these reads, so only a route that is meant to change something has to be listed.
MAY_BE_OPTIONAL = {*READ_METHODS, "WEBSOCKET"}
EARLIER = (
    "Something before its login decides the answer. Put the check first: "
    'dependencies=[require("...")].'
)


@dataclass(frozen=True)
class Route:
    """A route, and what its dependencies ask of the user."""

    # Or WEBSOCKET; or MOUNT for a folder of static files, or another application.
    method: str
    path: str
    # The path with values for its parameters.
    url: str
    needs_login: bool
    login_is_optional: bool
    # Those that `require` checks, and those that OpenAPI shows.
    permissions: frozenset[str]
    scopes: frozenset[str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.path

    @property
    def is_http(self) -> bool:
        return self.method not in {"WEBSOCKET", "MOUNT"}


@pytest.fixture
def routes(make_settings: MakeSettings) -> list[Route]:
    """Every route in production: development adds the welcome page and the documentation."""
    unused = "sqlite+aiosqlite:///unused.db"
    app = create_app(make_settings(environment="production", database_url=unused))
    return [*find_routes(app.routes), *find_frontends(app)]


def find_routes(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[Route]:
    """Also those of included routers and mounted apps, and those that OpenAPI does not show."""
    for route in iter_route_contexts(routes):
        if isinstance(route.original_route, Mount | Host) and route.routes:
            yield from find_routes(route.routes, prefix + (route.path or ""))
            continue
        dependant = getattr(route, "dependant", None)
        if isinstance(route.original_route, Mount):
            yield make_route("MOUNT", prefix + (route.path or ""), dependant)
            continue
        if isinstance(route.original_route, WebSocketRoute):
            methods = {"WEBSOCKET"}
        else:
            # A GET route of Starlette answers HEAD, too.
            methods = (route.methods or {"MOUNT"}) - {"HEAD"}
        url = path = prefix + (route.path_format or "")
        for name, convertor in getattr(route, "param_convertors", {}).items():
            value = ANY_ID if re.fullmatch(convertor.regex, ANY_ID) else ANY_UUID
            url = url.replace(f"{{{name}}}", value)
        for method in sorted(methods):
            yield make_route(method, path, dependant, url)


def find_frontends(app: FastAPI) -> Iterator[Route]:
    """The folders of `frontend(...)`, which FastAPI keeps apart from its routes."""
    for group in getattr(app.router, "_iter_low_priority_routes", list)():
        prefix = getattr(group, "frontend_prefix", "")
        for route in getattr(group, "original_route", group).routes:
            yield make_route("MOUNT", prefix + route.path, group.dependant)


def make_route(method: str, path: str, dependant: Dependant | None, url: str = "") -> Route:
    dependencies = [*walk(dependant)]
    calls = [dependency.call for dependency in dependencies]
    return Route(
        method,
        path,
        url or path,
        needs_login=get_auth_context in calls,
        login_is_optional=method in MAY_BE_OPTIONAL and get_optional_auth_context in calls,
        permissions=scopes_of(d for d in dependencies if is_check(d)),
        scopes=scopes_of(dependencies) & {*PermissionName},
    )


def walk(dependant: Dependant | None) -> Iterator[Dependant]:
    """The dependencies of a route, and theirs."""
    for dependency in dependant.dependencies if dependant else ():
        yield dependency
        yield from walk(dependency)


def is_check(dependency: Dependant) -> bool:
    name = getattr(dependency.call, "__qualname__", "")
    return name.startswith(f"{require.__qualname__}.")


def scopes_of(dependencies: Iterable[Dependant]) -> frozenset[str]:
    return frozenset(scope for found in dependencies for scope in found.own_oauth_scopes or ())


def literal(route: Route) -> str:
    return f'("{route.method}", "{route.path}")'


def fail_if_any(problems: Sequence[str]) -> None:
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    """A line for each request would hide the message of a guard that fails."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_every_route_needs_a_login_unless_it_is_public(routes: list[Route]) -> None:
    fail_if_any(
        [
            f"{route} needs no login. "
            'Add dependencies=[require("...")] or a CurrentUser parameter. If everyone may call '
            f"it, list {literal(route)} in PUBLIC_ROUTES of app/permissions.py."
            for route in routes
            if not (route.needs_login or route.login_is_optional or route.key in PUBLIC_ROUTES)
        ]
    )


def test_every_public_route_exists_and_needs_no_login(routes: list[Route]) -> None:
    found = {route.key: route for route in routes}
    fail_if_any(
        [
            f"PUBLIC_ROUTES of app/permissions.py lists {method} {path}, but "
            f"{'it needs a login' if key in found else 'there is no such route'}. Remove that line."
            for key in sorted(PUBLIC_ROUTES)
            for method, path in [key]
            if key not in found or found[key].needs_login
        ]
    )


def test_every_permission_that_a_route_shows_is_checked(routes: list[Route]) -> None:
    fail_if_any(
        [
            f"{route} shows the permission {name}, but does not check it. Use "
            f'dependencies=[require("{name}")] in place of Security.'
            for route in routes
            for name in sorted(route.scopes - route.permissions)
        ]
    )


def test_without_a_login_the_answer_is_401(client: TestClient, routes: list[Route]) -> None:
    problems = []
    for route in routes:
        if route.needs_login and route.is_http:
            response = client.request(route.method, route.url)
            if response.status_code != 401 or "WWW-Authenticate" not in response.headers:
                problems.append(
                    f"{route} answers {response.status_code} without a login, not 401. {EARLIER}"
                )
    fail_if_any(problems)


def test_without_its_permission_the_answer_is_403(
    client: TestClient, routes: list[Route], make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    """One user, who lacks one permission at a time. So no endpoint runs."""
    user_id = make_user("ada")
    headers = log_in("ada")
    problems = []
    for name in {name for route in routes for name in route.permissions}:
        set_permissions(rows, user_id, *({*PermissionName} - {name}))
        for route in routes:
            if name in route.permissions and route.is_http:
                status = client.request(route.method, route.url, headers=headers).status_code
                if status != 403:
                    problems.append(
                        f"{route} answers {status} without the permission {name}, not 403. "
                        f"{EARLIER}"
                    )
    fail_if_any(problems)


def test_every_permission_has_a_description_and_a_row(rows: Engine) -> None:
    found = {name for (name,) in execute(rows, "SELECT name FROM permissions")}

    assert all(name.description for name in PermissionName)
    assert {*PermissionName} <= found, "does alembic/env.py still import app.models?"
