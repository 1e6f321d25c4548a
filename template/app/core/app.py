"""Builds the FastAPI application that `app/main.py` adds its routes to."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from fastapi import Depends, FastAPI
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette

from app.core.database import Database
from app.core.errors import add_error_handlers
from app.core.logging import configure_logging
from app.core.middleware import add_middleware
from app.core.openapi import describe_errors
from app.core.routing import StrictRoute, check_request
from app.core.settings import CoreSettings
from app.core.telemetry import exporting, request_telemetry

logger = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_app(
    settings: CoreSettings,
    *,
    title: str,
    description: str,
    version: str,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """An application without routes: logging, middleware, error responses and the database.

    Your `lifespan` begins after the database is open, and ends before it is closed.
    """
    configure_logging(settings)
    for name in settings.unknown_names():
        logger.warning(".env: unknown setting %s", name)
    app = FastAPI(
        title=title,
        description=description,
        version=version,
        lifespan=_with_database(lifespan),
        dependencies=[Depends(check_request)],
        # app/core/pages.py serves the documentation under a strict content security policy.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A client that follows a redirect would send its password again, perhaps without TLS.
        redirect_slashes=False,
        telemetry=request_telemetry(settings.trusted_proxies),
    )
    # For routes of the app itself, such as `@app.get`.
    app.router.route_class = StrictRoute
    add_middleware(app, settings)
    add_error_handlers(app)
    describe_errors(app)
    return app


def _with_database(lifespan: Lifespan | None) -> Lifespan:
    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        settings: CoreSettings = app.state.settings
        async with Database(settings) as database:
            app.state.database = database
            _share_with_mounted_apps(app)
            if not settings.in_development:
                await database.probe()
            async with (
                exporting(app.title, database.engines),
                lifespan(app) if lifespan else nullcontext(),
            ):
                yield

    return run


# Every FastAPI application has these.
_DEFAULT_HANDLERS = {http_exception_handler, request_validation_exception_handler}


def _share_with_mounted_apps(app: Starlette) -> None:
    """Give apps under `app.mount(...)` the database, the settings and the error responses."""
    for route in iter_route_contexts(app.routes):
        mounted = getattr(route.original_route, "app", None)
        if not isinstance(mounted, Starlette):
            continue
        mounted.state.database = app.state.database
        if isinstance(getattr(mounted.state, "settings", None), CoreSettings | None):
            mounted.state.settings = app.state.settings
        for kind, handler in app.exception_handlers.items():
            own = mounted.exception_handlers.get(kind)
            if own is None or own in _DEFAULT_HANDLERS:
                mounted.exception_handlers[kind] = handler
        _share_with_mounted_apps(mounted)
