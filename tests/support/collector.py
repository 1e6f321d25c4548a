"""A small OpenTelemetry collector: it decodes what a project exports, and can stay silent."""

import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

T = TypeVar("T")

KINDS: dict[str, Any] = {
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/traces": ExportTraceServiceRequest,
}

Attributes = dict[str, Any]


def attributes_of(message: Any) -> Attributes:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in message.attributes
    }


class Collector:
    """`silent` takes the connection and the data, and never answers."""

    def __init__(self, *, silent: bool = False) -> None:
        self.requests: list[Message] = []
        # What is not OpenTelemetry's.
        self.bodies: list[bytes] = []
        self.silent = silent
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if kind := KINDS.get(self.path):
                    collector.requests.append(kind.FromString(body))
                else:
                    collector.bodies.append(body)
                if collector.silent:
                    collector.stopped.wait()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep the output of the tests clean."""

        self.stopped = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def text(self) -> str:
        """All that arrived, to search for what should not have."""
        return "\n".join(map(str, self.requests))

    @property
    def instances(self) -> set[str]:
        """The ids of the processes that export."""
        return {attributes_of(group.resource)["service.instance.id"] for group in self._groups()}

    @property
    def services(self) -> set[str]:
        return {attributes_of(group.resource)["service.name"] for group in self._groups()}

    @property
    def spans(self) -> list[Any]:
        groups = [group for group in self._groups() if hasattr(group, "scope_spans")]
        return [span for group in groups for part in group.scope_spans for span in part.spans]

    def points(self, name: str) -> list[tuple[Attributes, Any]]:
        """The data points of a metric, in the order in which they arrived."""
        return [
            (attributes_of(point), point)
            for metric in self._metrics()
            if metric.name == name
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    @property
    def metric_names(self) -> set[str]:
        return {metric.name for metric in self._metrics()}

    def _groups(self) -> list[Any]:
        requests: list[Any] = list(self.requests)
        return [
            group
            for request in requests
            for group in getattr(request, "resource_spans", None) or request.resource_metrics
        ]

    def _metrics(self) -> list[Any]:
        groups = [group for group in self._groups() if hasattr(group, "scope_metrics")]
        return [
            metric for group in groups for part in group.scope_metrics for metric in part.metrics
        ]

    def wait_for(self, find: Callable[[], T], seconds: float = 20) -> T:
        """What `find` returns as soon as it returns something."""
        deadline = time.monotonic() + seconds
        while not (found := find()):
            assert time.monotonic() < deadline, f"not exported in {seconds} s:\n{self.metric_names}"
            time.sleep(0.1)
        return found
