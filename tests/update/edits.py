"""What people usually do to a project between two updates: their code, tests, migrations and rows."""

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine, inspect

from tests.support.projects import Project

MODEL = """
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.base import Base
from app.models.user import User


class Book(Base):
    __tablename__ = "books"

    title: Mapped[str] = mapped_column(String(200))
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    owner: Mapped[User] = relationship(lazy="raise")
"""
ROUTER = """
from fastapi import APIRouter
from sqlalchemy import func, select

from app.api.deps import SessionDep, ShelfDep
from app.models.book import Book

router = APIRouter(prefix="/books", tags=["books"])


@router.get("/count")
async def count_books(session: SessionDep) -> int:
    return await session.scalar(select(func.count()).select_from(Book)) or 0


@router.get("/shelf")
async def read_shelf(shelf: ShelfDep) -> str:
    return shelf
"""
DEPENDENCY = """async def get_shelf(request: Request) -> str:
    shelf: str = request.app.state.shelf
    return shelf


ShelfDep = Annotated[str, Depends(get_shelf)]


"""
FIXTURE = """

@pytest.fixture
def shelf() -> str:
    return "oak"
"""
TESTS = """
from fastapi.testclient import TestClient


def test_there_are_no_books_yet(client: TestClient) -> None:
    answer = client.get("/api/v1/books/count")

    assert answer.status_code in {200, 401}


def test_the_shelf_has_a_name(client: TestClient, shelf: str) -> None:
    assert client.get("/api/v1/books/shelf").json() == shelf
"""
COLUMN = '''
"""books: year

Revises: {parent}
"""

import sqlalchemy as sa
from alembic import op

revision = "0002_year"
down_revision = "{parent}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("books") as batch:
        batch.add_column(sa.Column("year", sa.Integer, server_default="0", nullable=False))
    with op.batch_alter_table("users") as batch:
        batch.add_column(sa.Column("nickname", sa.String(50)))


def downgrade() -> None:
    with op.batch_alter_table("users") as batch:
        batch.drop_column("nickname")
    with op.batch_alter_table("books") as batch:
        batch.drop_column("year")
'''


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def commit(project: Project, subject: str) -> None:
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "--allow-empty", "-m", subject)


def replace(project: Project, file: str, before: str, after: str) -> None:
    text = project.read(file)
    assert before in text, (file, before)
    (project.path / file).write_text(text.replace(before, after, 1), "utf-8")


def last_revision(project: Project) -> str:
    (found,) = re.findall(r"^(\w+) \(head\)", project.succeed("alembic", "heads"), re.MULTILINE)
    return str(found)


def live_with(project: Project) -> None:
    """A year of work: begins with the project as it was generated, and ends with a commit."""
    git(project.path, "init", "--quiet")
    commit(project, "Start from the template")
    add_books(project)
    edit_shared_files(project)
    replace(project, "README.md", "--port 8001", "--port 9000")
    replace(project, "README.md", "## Map", "## How we work\n\nTalk to Ada.\n\n## Map")
    (project.path / "setup.bat").unlink()
    home, homepage = "app/api/v1/home_router", "app/api/v1/homepage_router"
    (project.path / f"{home}.py").rename(project.path / f"{homepage}.py")
    replace(project, "app/api/routers.py", "v1.home_router", "v1.homepage_router")
    edit_errors(project)
    commit(project, "A year of work")


def edit_errors(project: Project) -> None:
    if project.has("app/core"):
        with (project.path / "app/errors.py").open("a") as errors:
            errors.write("\n\nclass Gone(AppError):\n    status_code = HTTPStatus.GONE\n")
        line = "from app.core.errors import AppError"
        replace(project, "app/errors.py", line, f"from http import HTTPStatus\n\n{line}")
        return
    replace(project, "app/errors.py", '"There is nothing here."', '"Nothing here, sorry."')
    replace(
        project, "app/errors.py", "clashes with what is already", "clashes with what was already"
    )
    replace(
        project,
        "app/errors.py",
        "def problem(",
        "class Gone(AppError):\n    status_code = HTTPStatus.GONE\n\n\ndef problem(",
    )


def add_books(project: Project) -> None:
    (project.path / "app/models/book.py").write_text(MODEL.lstrip())
    (project.path / "app/api/v1/books_router.py").write_text(ROUTER.lstrip())
    (project.path / "tests/test_books.py").write_text(TESTS.lstrip())
    project.succeed("alembic", "upgrade", "head")
    project.succeed("alembic", "revision", "-m", "add_book", "--autogenerate", "--rev-id=0001_book")
    column = COLUMN.lstrip().format(parent="0001_book")
    (project.path / "alembic/versions/0002_year.py").write_text(column)
    model = "    title: Mapped[str] = mapped_column(String(200))\n"
    year = '    year: Mapped[int] = mapped_column(server_default="0")\n'
    replace(project, "app/models/book.py", model, model + year)
    active = "    is_active: Mapped[bool] = mapped_column(default=True)\n"
    nickname = "    nickname: Mapped[str | None] = mapped_column(String(50))\n"
    replace(project, "app/models/user.py", active, active + nickname)
    project.succeed("alembic", "upgrade", "head")


def edit_shared_files(project: Project) -> None:
    """Each line where people put theirs: in the order of the alphabet, or at the end."""
    replace(
        project,
        "app/api/routers.py",
        "    v1.include_router(home)\n",
        "    v1.include_router(home)\n    v1.include_router(books)\n",
    )
    replace(project, "pyproject.toml", '    "sqlalchemy', '    "pyyaml>=6",\n    "sqlalchemy')
    state = "    app.state.settings = settings\n"
    replace(project, "app/main.py", state, f"{state}    app.state.shelf = settings.shelf\n")
    for file, text in {
        ".env.example": "SHELF=oak\n",
        ".gitignore": "/covers/\n",
        "tests/conftest.py": FIXTURE,
    }.items():
        with (project.path / file).open("a") as shared:
            shared.write(text)
    if project.has("app/core"):
        edit_files_of_today(project)
    else:
        edit_files_of_old(project)


def edit_files_of_today(project: Project) -> None:
    line = "from app.api.v1.home"
    books = "from app.api.v1.books_router import router as books\n"
    replace(project, "app/api/routers.py", line, books + line)
    line = "\n\nload_settings = "
    replace(project, "app/settings.py", line, f'\n    shelf: str = "oak"\n{line}')
    replace(project, "app/api/deps.py", "import Depends\n", "import Depends, Request\n")
    line = "\nSettingsDep = "
    replace(project, "app/api/deps.py", line, f"\n\n{DEPENDENCY.rstrip()}\n{line}")
    if project.has("app/permissions.py"):
        name_open_routes(project)
        line = '    PERMISSIONS_WRITE = "permissions:write", "Grant and revoke permissions"\n'
        member = '    BOOKS_READ = "books:read", "See books"\n'
        replace(project, "app/permissions.py", line, line + member)


def edit_files_of_old(project: Project) -> None:
    """As the files were until release 0.6.0."""
    replace(
        project,
        "app/api/routers.py",
        "from app.api.v1.health_router",
        "from app.api.v1.books_router import router as books\nfrom app.api.v1.health_router",
    )
    replace(
        project,
        "app/settings.py",
        "\n    @property\n    def in_development",
        '    shelf: str = "oak"\n\n    @property\n    def in_development',
    )
    line = "from app.settings import Settings\n\n\n"
    replace(project, "app/api/deps.py", line, line + DEPENDENCY)
    if project.has("app/permissions.py"):
        name_open_routes(project)
        replace(project, "app/permissions.py", "]\n\nPERM", '    "books:read",\n]\n\nPERM')
        replace(project, "app/permissions.py", "}\n\n", '    "books:read": "See books",\n}\n\n')


def name_open_routes(project: Project) -> None:
    """Tell the test of the guards that these are meant for everybody."""
    public = '    ("GET", "/api/v1/books/count"),\n    ("GET", "/api/v1/books/shelf"),\n'
    if project.has("app/core"):
        line = "PUBLIC_ROUTES = {\n"
        replace(project, "app/permissions.py", line, line + public)
    else:
        line = "PUBLIC = {\n"
        replace(project, "tests/auth/test_users.py", line, line + public)


def fill(project: Project) -> None:
    """Rows of a living application, in its own database."""
    with closing(sqlite3.connect(project.path / "app.db")) as connection, connection:
        users = [(n, f"user-{n}", f"u{n}@example.com", "hash", n % 2) for n in range(1, 301)]
        columns = "id, username, email, password, is_active"
        connection.executemany(f"INSERT INTO users ({columns}) VALUES (?, ?, ?, ?, ?)", users)
        connection.execute("INSERT INTO permissions VALUES (1001, 'pens:read', '')")
        links = [(n, 1001) for n in range(1, 301, 3)]
        connection.executemany("INSERT INTO user_permissions VALUES (?, ?)", links)
        books = [(f"Book {n}", n) for n in range(1, 301)]
        connection.executemany("INSERT INTO books (title, owner_id) VALUES (?, ?)", books)


def rows(project: Project) -> dict[str, list[tuple[object, ...]]]:
    """Every row that an owner would miss."""
    with closing(sqlite3.connect(project.path / "app.db")) as connection:
        return {
            "users": connection.execute(
                "SELECT id, username, email, password, is_active FROM users ORDER BY id"
            ).fetchall(),
            "permissions": connection.execute(
                "SELECT id, name FROM permissions WHERE name LIKE 'pens%'"
            ).fetchall(),
            "links": connection.execute("SELECT * FROM user_permissions ORDER BY 1, 2").fetchall(),
            "books": connection.execute("SELECT * FROM books ORDER BY id").fetchall(),
        }


def schema(database: Path) -> dict[str, list[str]]:
    """Everything in every table, in no order: a table that was replaced may have another one."""
    engine = create_engine(f"sqlite:///{database}")
    look = inspect(engine)
    questions = (
        look.get_columns,
        look.get_indexes,
        look.get_foreign_keys,
        look.get_unique_constraints,
        look.get_check_constraints,
    )
    found = {
        table: sorted(str(answer) for question in questions for answer in question(table))
        for table in look.get_table_names()
    }
    engine.dispose()
    return found


def owners_lines(project: Project) -> dict[str, set[str]]:
    """The lines that the owner added, by file: what the last commit has and the first has not.

    A file that was only renamed has none.
    """
    first = git(project.path, "rev-list", "--max-parents=0", "HEAD").strip()
    found: dict[str, set[str]] = {}
    file = ""
    for line in git(project.path, "diff", "--find-renames", "-U0", first, "HEAD").splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ b/")
        elif line.startswith("+") and file != ".copier-answers.yml":
            found.setdefault(file, set()).add(line[1:])
    return found


# Where the template of today has what releases until 0.6.0 had elsewhere, or wrote otherwise.
MOVED_LINES = {
    "app/errors.py": "app/core/errors.py",
    "tests/auth/test_users.py": "app/permissions.py",
}
REWRITTEN_LINES = {
    '    "books:read",': '    BOOKS_READ = "books:read", "See books"',
    '    "books:read": "See books",': '    BOOKS_READ = "books:read", "See books"',
}


def is_kept(project: Project, file: str, line: str) -> bool:
    """Whether a line of the owner's is in its file, or where the template has moved its neighbors."""
    files = [name for name in (file, MOVED_LINES.get(file, file)) if project.has(name)]
    texts = [project.read(name).splitlines() for name in files]
    return any(line in text or REWRITTEN_LINES.get(line) in text for text in texts)
