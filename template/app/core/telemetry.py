"""Metrics and traces by OpenTelemetry, if its standard variable names a collector.

FastAPI measures requests. This adds SQL statements, connection pools and queues, and exports all of
it. Names follow OpenTelemetry's semantic conventions, except for `sqlite.lock` and
`password.hashing`.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from threading import Thread
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import metrics, trace
from sqlalchemy import Connection, Engine, event
from starlette.types import Scope

from app.core.clients import peer_address, trusted_peers

logger = logging.getLogger(__name__)

_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_STOP_SECONDS = 5.0
# The exporters log every failed attempt. One line a minute of each is enough.
_SECONDS_BETWEEN_ERRORS = 60.0
_TRACE_HEADERS = {b"traceparent", b"tracestate", b"baggage"}
_QUEUES = ("db.client.connection", "sqlite.lock", "password.hashing")
# The boundaries that the conventions give for the duration of a statement.
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_STRING = re.compile(r"'[^']*'")

# The instruments of each queue. Empty while telemetry is off.
_queues: dict[str, tuple[metrics.UpDownCounter, metrics.Histogram]] = {}


def request_telemetry(proxies: tuple[str, ...]) -> TelemetryConfig:
    """What FastAPI records of requests: no text of exceptions, and no span for each function.

    Only a trusted proxy can say which trace a request belongs to. Others could force the sampling
    of their requests, and put them into the traces of other clients.
    """
    trusted = trusted_peers(proxies)

    def start_own_trace(scope: MutableMapping[str, Any]) -> bool:
        """FastAPI asks this first, to leave out requests. None is left out."""
        if peer_address(scope) not in trusted:
            scope["headers"] = [item for item in scope["headers"] if item[0] not in _TRACE_HEADERS]
        return False

    return {
        "auto_configure": False,
        "exclude": start_own_trace,
        "logs": False,
        "operation_spans": False,
    }


def enter_request(scope: Scope) -> str | None:
    """The id of this request's trace. Its span hides the query, which may have a secret."""
    if "fastapi.telemetry" not in scope:
        return None
    span = trace.get_current_span()
    if scope.get("query_string"):
        span.set_attribute("url.query", "REDACTED")
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def waiting(queue: str, **attributes: str) -> AbstractContextManager[None]:
    """Measure how long the block waits, and how many do."""
    return _measure_wait(queue, attributes) if queue in _queues else nullcontext()


@contextmanager
def _measure_wait(queue: str, attributes: Mapping[str, str]) -> Iterator[None]:
    pending, seconds = _queues[queue]
    named = {f"{queue}.{key}": value for key, value in attributes.items()}
    pending.add(1, named)
    started_at = time.perf_counter()
    try:
        yield
    finally:
        pending.add(-1, named)
        seconds.record(time.perf_counter() - started_at, named)


def missing_library() -> str | None:
    """Why nothing can be exported although a collector is named, or None."""
    try:
        if os.environ.get(_VARIABLE):
            import_module("opentelemetry.exporter.otlp.proto.http")
    except ImportError:
        return f'{_VARIABLE} is set, but its libraries are missing: pip install ".[telemetry]"'
    return None


@asynccontextmanager
async def exporting(service: str, engines: Mapping[str, Engine]) -> AsyncIterator[None]:
    """Measure these engines, and export everything while the app runs."""
    if reason := missing_library():
        logger.warning(reason)
    elif os.environ.get(_VARIABLE):
        stops = _start(service)
        for engine in engines.values():
            _measure_statements(engine)
        _measure_pools({name: engine.pool for name, engine in engines.items()})
        try:
            yield
        finally:
            await asyncio.to_thread(_stop_in_time, stops)
        return
    yield


def _start(service: str) -> list[Callable[[], None]]:
    """Set the global providers, so that spans and figures of owners are exported, too."""
    resource = import_module("opentelemetry.sdk.resources").Resource.create()
    if resource.attributes["service.name"].startswith("unknown_service"):
        resource = resource.merge(type(resource)({"service.name": service}))
    options: dict[str, Any] = {"resource": resource, "shutdown_on_exit": False}
    exporters = "opentelemetry.exporter.otlp.proto.http"
    sdk = import_module("opentelemetry.sdk.trace")
    exporter = import_module(f"{exporters}.trace_exporter").OTLPSpanExporter()
    tracers = sdk.TracerProvider(**options)
    tracers.add_span_processor(sdk.export.BatchSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)
    sdk = import_module("opentelemetry.sdk.metrics")
    exporter = import_module(f"{exporters}.metric_exporter").OTLPMetricExporter()
    meters = sdk.MeterProvider([sdk.export.PeriodicExportingMetricReader(exporter)], **options)
    metrics.set_meter_provider(meters)
    meter = metrics.get_meter("app")
    for name in _QUEUES:
        pending = meter.create_up_down_counter(f"{name}.pending_requests", "{request}")
        _queues[name] = pending, _create_histogram(f"{name}.wait_time")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_limit_errors())
    return [tracers.shutdown, meters.shutdown]


def _create_histogram(name: str) -> metrics.Histogram:
    meter = metrics.get_meter("app")
    return meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=_BUCKETS)


def _measure_statements(engine: Engine) -> None:
    """A span and a duration for each statement: its text without strings, never its parameters."""
    tracer, duration = trace.get_tracer("app"), _create_histogram("db.client.operation.duration")

    def begin(connection: Connection, _: object, statement: str, *__: object) -> None:
        operation = statement.split(None, 1)[0].upper()
        attributes = {"db.system.name": engine.dialect.name, "db.operation.name": operation}
        span = tracer.start_span(operation, kind=trace.SpanKind.CLIENT, attributes=attributes)
        span.set_attribute("db.query.text", _STRING.sub("?", statement))
        connection.info["telemetry"] = span, attributes, time.perf_counter()

    def end(connection: Connection | None, error: BaseException | None) -> None:
        if connection is None or "telemetry" not in connection.info:
            return
        span, attributes, started_at = connection.info.pop("telemetry")
        if error is not None:
            attributes["error.type"] = type(error).__name__
            span.set_status(trace.StatusCode.ERROR)
        span.set_attributes(attributes)
        duration.record(time.perf_counter() - started_at, attributes)
        span.end()

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", lambda connection, *_: end(connection, None))
    event.listen(engine, "handle_error", lambda e: end(e.connection, e.original_exception))


def _measure_pools(pools: Mapping[str, Any]) -> None:
    prefix = "db.client.connection"

    def connect_in_turn(name: str, connect: Callable[[], Any]) -> Any:
        with waiting(prefix, **{"pool.name": name}):
            return connect()

    def count(_: object) -> Iterator[metrics.Observation]:
        for name, pool in pools.items():
            named = {f"{prefix}.pool.name": name, f"{prefix}.state": "used"}
            yield metrics.Observation(pool.checkedout(), named)

    for name, pool in pools.items():
        pool.connect = partial(connect_in_turn, name, pool.connect)
    meter = metrics.get_meter("app")
    meter.create_observable_up_down_counter(f"{prefix}.count", [count], "{connection}")


def _limit_errors() -> Callable[[logging.LogRecord], bool]:
    last: dict[str, float] = {}

    def passes(record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry."):
            return True
        if record.created - last.get(record.name, 0) < _SECONDS_BETWEEN_ERRORS:
            return False
        last[record.name] = record.created
        return True

    return passes


def _stop_in_time(stops: list[Callable[[], None]]) -> None:
    """Export the rest, or lose it: a collector that does not answer must not delay the stop."""
    threads = [Thread(target=stop, daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _STOP_SECONDS
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
