"""The limit: an ASGI function over the standard library's sqlite3, on the loop's own thread.

The same work as the generated app does, and nothing else: whose token it is and what they may do,
then the data; a create is committed, FULL, before the answer.
"""

import hashlib
import json
import os
import sqlite3
from typing import Any

WHO = """
SELECT u.id, p.name FROM sessions s JOIN users u ON u.id = s.user_id
LEFT JOIN user_permissions up ON up.user_id = u.id
LEFT JOIN permissions p ON p.id = up.permission_id
WHERE s.token_hash = ? AND s.created_at > ? AND u.is_active
"""
USERS = """
SELECT u.id, u.username, u.email, u.is_active, p.id, p.name, p.description
FROM (SELECT * FROM users WHERE {} ORDER BY id LIMIT ?) u
LEFT JOIN user_permissions up ON up.user_id = u.id
LEFT JOIN permissions p ON p.id = up.permission_id
"""
ONE, PAGE = USERS.format("id = ?"), USERS.format("id > ?")
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON")


class Limit:
    def __init__(self, database: str) -> None:
        self.connection = sqlite3.connect(database, isolation_level=None, cached_statements=256)
        for pragma in PRAGMAS:
            self.connection.execute(f"PRAGMA {pragma}")

    def allowed(self, headers: list[tuple[bytes, bytes]], permission: str) -> int | None:
        """The id of the user, if the user has this permission."""
        token = next(value for name, value in headers if name == b"authorization")[7:].decode()
        rows = self.connection.execute(WHO, (digest(token), "2026")).fetchall()
        return next((key for key, name in rows if name == permission), None)

    def users(self, statement: str, number: int, limit: int) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for key, username, email, active, held, name, text in self.connection.execute(
            statement, (number, limit)
        ):
            user = found.setdefault(
                key,
                {
                    "id": key,
                    "username": username,
                    "email": email,
                    "is_active": bool(active),
                    "permissions": [],
                },
            )
            if held is not None:
                user["permissions"].append({"id": held, "name": name, "description": text})
        return list(found.values())

    def create(self, body: bytes) -> dict[str, Any]:
        data = json.loads(body)
        names = data["username"], data["email"]
        self.connection.execute("BEGIN IMMEDIATE")
        key = self.connection.execute(
            "INSERT INTO users (username, email, password, is_active) VALUES (?, ?, '!', 1)", names
        ).lastrowid
        self.connection.execute("COMMIT")
        return {
            "id": key,
            "username": names[0],
            "email": names[1],
            "is_active": True,
            "permissions": [],
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, method, status = scope["path"], scope["method"], 200
        answer: Any = {"status": "ok"}
        if path != "/health/live":
            needed = "users:write" if method == "POST" else "users:read"
            user_id = self.allowed(scope["headers"], needed)
            if user_id is None:
                status, answer = 403, {}
            elif method == "POST":
                status, answer = 201, self.create((await receive())["body"])
            elif path == "/users":
                after = int(scope["query_string"].partition(b"=")[2])
                items = self.users(PAGE, after, 51)
                answer = {"items": items[:50], "next": items[49]["id"] if len(items) > 50 else None}
            else:
                (answer,) = self.users(ONE, user_id, 1)
        body = json.dumps(answer, separators=(",", ":")).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


app = Limit(os.environ["DATABASE"])
