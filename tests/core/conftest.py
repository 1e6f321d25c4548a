from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.core.routes import add_database_routes, add_failing_routes


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """The app, with routes that fail and routes that write."""
    add_failing_routes(app)
    add_database_routes(app)
    with TestClient(app) as client:
        yield client
