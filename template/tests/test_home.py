from fastapi.testclient import TestClient

import app


def test_home_shows_name_and_version(client: TestClient) -> None:
    response = client.get("/api/v1/")

    assert response.status_code == 200
    assert response.json() == {"name": app.TITLE, "version": app.VERSION, "docs": "/docs"}


def test_service_is_ready(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ok"}
