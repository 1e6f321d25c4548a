"""The image, built with buildah, and run as compose.yaml says.

No engine is on the machines of the tests: Compose's own program reads the file, and each service
runs in a mount namespace with the image as its root. The images of Litestream and PostgreSQL, the
network and the restarts are Docker's and not tested.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.containers import Container, Images, compose_config
from tests.support.projects import Generate

pytestmark = [
    pytest.mark.slow,
    # The port of the health check.
    pytest.mark.alone,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no chroot"),
]

SECRET = "correct-horse-battery-staple"
ENV = f"ALLOWED_HOSTS=api.example.com\nTRUSTED_PROXIES=172.30.0.1\nPGPASSWORD={SECRET}\n"
PASSWORD = "seven wet otters on a raft"


@pytest.fixture(scope="module")
def developed(generate: Generate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a `.env` and a database, as on the machine of a developer."""
    folder = tmp_path_factory.mktemp("image") / "project"
    shutil.copytree(generate().path, folder)
    (folder / ".env").write_text(ENV)
    for file in ("app.db", "app/app.db-wal", "app/.env.old"):
        (folder / file).write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def images(developed: Path) -> Iterator[Images]:
    images = Images(developed.parent / "store")
    images.add_base()
    images.build(developed, "my-app")
    yield images
    images.buildah("rm", "--all")
    shutil.rmtree(images.store)


@pytest.fixture(scope="module")
def root(images: Images) -> Path:
    return images.mount("my-app")


@pytest.fixture
def container(
    images: Images, root: Path, developed: Path, tmp_path: Path
) -> Callable[[str], Container]:
    """One for each service, all with the same volume, which has the owner of the image's folder."""
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    os.chown(volume, (root / "data").stat().st_uid, (root / "data").stat().st_gid)
    services = compose_config(developed)["services"]
    image = images.inspect("my-app")["Docker"]["config"]
    return lambda name: Container(root, image, services[name], volume)


def test_compose_accepts_the_file_with_every_profile(developed: Path) -> None:
    usual = compose_config(developed)["services"]
    with_both = ("--profile", "litestream", "--profile", "postgres")
    every = compose_config(developed, *with_both)["services"]

    assert set(usual) == {"migrate", "app"}
    assert set(every) == {"migrate", "app", "litestream", "restore", "postgres"}
    assert every["postgres"]["environment"]["POSTGRES_PASSWORD"] == SECRET
    conditions = {name: on["condition"] for name, on in every["app"]["depends_on"].items()}
    condition = "service_completed_successfully"
    assert conditions == {"migrate": condition}
    assert every["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    # A storage that does not answer must not lead to a new, empty database.
    assert every["migrate"]["depends_on"]["restore"]["condition"] == condition


def test_the_image_has_no_secret_no_pip_and_no_root(
    images: Images, root: Path, report: Callable[[str], None]
) -> None:
    found = subprocess.run(
        ["grep", "-rl", SECRET, images.store / "root"], capture_output=True, check=False
    )
    config = images.inspect("my-app")["Docker"]["config"]
    code = Path(root, "srv/app")
    size = sum(f.lstat().st_size for f in code.rglob("*") if f.is_file() and not f.is_symlink())
    report(f"the image adds {size / 2**20:.0f} MB to its base")

    assert found.stdout == b""
    assert config["User"] == "10001:10001"
    assert sorted(path.name for path in code.iterdir()) == [".venv", "alembic", "alembic.ini"]
    assert not list(code.glob(".venv/lib/*/site-packages/pip"))
    assert not (code / ".venv/bin/pip").exists()
    owned = [f for f in root.rglob("*") if f.lstat().st_uid == 10001]
    assert owned == [root / "data"]


def test_the_database_is_migrated_and_then_served_on_a_read_only_root(
    container: Callable[[str], Container],
) -> None:
    migrate, app = container("migrate"), container("app")

    migrated = migrate.run()

    assert migrated.returncode == 0, migrated.stderr
    created = app.run("user", "create-admin", "ada", "ada@example.com", stdin=f"{PASSWORD}\n")
    assert "Created ada with every permission" in created.stdout, created.stderr
    assert "error" not in app.run("check", "--deploy").stdout
    assert app.check_health() == 1
    with serving(app) as process:
        assert app.check_health() == 0
        assert ask("/health/ready", "127.0.0.1") == 200
        assert ask("/api/v1/", "api.example.com") == 200
        assert ask("/api/v1/", "127.0.0.1") == 400
        form = f"username=ada&password={PASSWORD.replace(' ', '+')}"
        assert ask("/api/v1/auth/login", "api.example.com", form) == 200
        assert app.run("db", "backup", "/data/copy.db").returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    with closing(sqlite3.connect(app.volume / "copy.db")) as connection:
        assert connection.execute("SELECT username FROM users").fetchall() == [("ada",)]
    assert migrate.run().returncode == 0


def test_two_builds_give_the_same_layers(images: Images, developed: Path) -> None:
    images.build(developed, "again", "--no-cache")

    assert images.layers("again") == images.layers("my-app")


@contextmanager
def serving(app: Container) -> Iterator[subprocess.Popen[str]]:
    """The app, once it answers and until the end of the `with` block."""
    process = subprocess.Popen(
        app.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    try:
        while not answers():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        print(process.communicate()[0])


def answers() -> bool:
    try:
        ask("/health/live", "127.0.0.1")
    except OSError:
        return False
    return True


def ask(path: str, host: str, form: str | None = None) -> int:
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
    with closing(HTTPConnection("127.0.0.1", 8001, timeout=30)) as connection:
        connection.request("POST" if form else "GET", path, form, {"Host": host, **kind})
        with connection.getresponse() as response:
            return response.status
