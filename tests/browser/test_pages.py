"""The pages for developers, in a real browser that reaches no other server."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Migrated
from tests.support.machines import Machine
from tests.support.projects import Generate, Project
from tests.support.servers import Server

pytestmark = pytest.mark.slow

UVICORN = [sys.executable, "-m", "uvicorn", "app.main:app"]
PASSWORD = "seven wet otters on a raft"
# As published on npm in swagger-ui-dist 5.34.0. Compare them again when the package is raised.
SWAGGER_UI = {
    "swagger-ui-bundle.js": "3f6abf70480db7e07914df4c98a77385f22ea585eaf457a3e6415ba0eae2d167",
    "swagger-ui.css": "c3cfe8248c4b0b89673600fb829924eafbac6de4bc4b2b06f5f5243483074d0a",
}

# What the browser itself says about a refused login, and about the form of Swagger UI.
EXPECTED = (
    "Failed to load resource: the server responded with a status of 401",
    "[DOM] Password field is not contained in a form",
    # The page of a link does not know whose it is before the link is used.
    "[DOM] Password forms should have (optionally hidden) username fields",
)

Open = Callable[..., Page]


@pytest.fixture
def shelf(generate: Generate, migrated_once: Migrated, tmp_path: Path) -> Project:
    copied = shutil.copytree(migrated_once(generate(auth=True)), tmp_path / "project")
    return Project(Path(copied), {})


@pytest.fixture
def server(machine: Machine, shelf: Project) -> Iterator[Server]:
    with Server(machine, UVICORN, shelf.path, ENVIRONMENT="development") as server:
        yield server


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    """Opens pages, and fails if one of them asked for more than it may or reported an error."""
    complaints: list[str] = []
    contexts = []

    def open_page(path: str, **options: Any) -> Page:
        context = browser.new_context(base_url=f"http://127.0.0.1:{server.port}", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [text for text in complaints if not text.startswith(EXPECTED)]


def log_in(page: Page, username: str, password: str) -> None:
    page.get_by_role("button", name="Authorize", exact=True).click()
    dialog = page.locator(".auth-container")
    dialog.get_by_label("username").fill(username)
    dialog.get_by_label("password").fill(password)
    dialog.locator("button.authorize").click()


def call_own_user(page: Page) -> str:
    """The status that the documentation shows for GET /users/me."""
    operation = page.locator(".opblock-get", has_text="/api/v1/users/me")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Execute").click()
    return operation.locator(".live-responses-table tbody .response-col_status").inner_text()


def test_a_newcomer_comes_from_the_welcome_page_to_a_first_answer(
    shelf: Project, open_page: Open
) -> None:
    page = open_page("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("My App is running")
    command = page.locator("code", has_text="create-admin").inner_text()
    shelf.succeed("app", *command.split()[1:], stdin=f"{PASSWORD}\n")
    page.get_by_role("link", name="Open the API documentation").click()

    log_in(page, "admin", PASSWORD)
    expect(page.locator(".auth-container").get_by_text("Logout")).to_be_visible()
    page.locator(".auth-container").get_by_text("Close").click()

    assert call_own_user(page).startswith("200")


def test_a_forgotten_password_is_replaced_through_the_mail_that_development_shows(
    shelf: Project, open_page: Open
) -> None:
    account = ("user", "create-admin", "admin", "admin@example.com")
    shelf.succeed("app", *account, stdin=f"{PASSWORD}\n")
    page = open_page("/account/forgot-password")
    page.get_by_label("Email address").fill("admin@example.com")
    page.get_by_role("button", name="Send a link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your email")

    page.goto("/")
    page.get_by_role("link", name="Mails").click()
    page.get_by_role("link", name="password").first.click()
    link = page.get_by_role("link", name="reset-password").get_attribute("href") or ""
    page.goto(link.removeprefix("http://localhost:8001"))
    page.get_by_label("New password").fill(f"{PASSWORD} again")
    page.get_by_role("button", name="Save the password").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Your password is saved")


def test_the_login_asks_for_a_name_and_a_password_and_says_what_was_wrong(open_page: Open) -> None:
    page = open_page("/docs")

    log_in(page, "nobody", PASSWORD)

    assert (
        page.locator(".auth-container input:visible, .auth-container select:visible").count() == 2
    )
    expect(page.locator(".auth-container .errors")).to_contain_text("Invalid username or password.")


def test_a_reload_keeps_the_token_in_this_tab_and_the_password_nowhere(
    shelf: Project, open_page: Open
) -> None:
    shelf.succeed("app", "user", "create-admin", "ada", "ada@example.com", stdin=f"{PASSWORD}\n")
    page = open_page("/docs")
    log_in(page, "ada", PASSWORD)
    expect(page.locator(".auth-container").get_by_text("Logout")).to_be_visible()

    page.reload()

    assert call_own_user(page).startswith("200")
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "access_token" in stored
    assert PASSWORD not in stored
    another_tab = page.context.new_page()
    another_tab.goto("/docs")
    assert call_own_user(another_tab).startswith("401")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_documentation_follows_the_color_scheme(open_page: Open, scheme: str) -> None:
    page = open_page("/docs", color_scheme=scheme)

    title = page.get_by_role("heading", name="My App")
    expect(title).to_be_visible()
    background, ink = (
        brightness(page, "document.documentElement", "backgroundColor"),
        brightness(page, "document.querySelector('.info .title')", "color"),
    )
    assert background > 200 > 100 > ink if scheme == "light" else background < 60 < 150 < ink


def brightness(page: Page, element: str, of: str) -> float:
    """0 is black and 255 is white."""
    colors = page.evaluate(f"getComputedStyle({element}).{of}.match(/[0-9]+/g).slice(0, 3)")
    return sum(map(int, colors)) / 3


@pytest.mark.parametrize("missing", ["package", "scripts"])
def test_the_documentation_says_what_it_needs_where_it_cannot_load(
    browser: Browser, server: Server, missing: str
) -> None:
    with browser.new_context(java_script_enabled=missing != "scripts") as context:
        page = context.new_page()
        page.route("**/swagger-ui-bundle.js", lambda route: route.fulfill(status=404))

        page.goto(f"http://127.0.0.1:{server.port}/docs")

        expect(page.locator("#docs")).to_contain_text("run the setup script of the project again")


def test_the_files_of_swagger_ui_are_the_published_ones() -> None:
    folder = files("fastapi_swagger.resources")

    digests = {
        name: hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() for name in SWAGGER_UI
    }

    assert digests == SWAGGER_UI


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_fits_a_phone(open_page: Open, path: str) -> None:
    page = open_page(path, viewport={"width": 390, "height": 844})

    expect(page.get_by_role("heading", name="My App").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_command_of_the_welcome_page_is_copied(open_page: Open) -> None:
    page = open_page("/", permissions=["clipboard-read", "clipboard-write"])
    line = page.locator(".command", has_text="pytest")

    line.get_by_role("button", name="Copy").click()

    expect(line.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == line.locator("code").inner_text()


def test_the_welcome_page_tells_a_missing_migration_from_an_unreadable_database(
    shelf: Project, open_page: Open
) -> None:
    shelf.succeed("alembic", "downgrade", "base")
    page = open_page("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("My App needs a migration")
    expect(page.locator("li:visible").first).to_contain_text("alembic upgrade head")

    (shelf.path / "app.db").rename(shelf.path / "elsewhere.db")
    page.reload()

    expect(page.get_by_role("heading", level=1)).to_have_text("My App cannot read its database")
    expect(page.locator(".state")).to_contain_text("app.db does not exist")


@pytest.mark.parametrize(("path", "name"), [("/", "welcome"), ("/docs", "docs")])
def test_the_pictures_of_the_documents_can_be_made_again(
    open_page: Open, tmp_path: Path, path: str, name: str
) -> None:
    """`python -m tools.pictures pages` keeps them: it sets PICTURES."""
    page = open_page(path, viewport={"width": 960, "height": 600})
    expect(page.get_by_role("heading", name="My App").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    file = Path(os.environ.get("PICTURES", tmp_path), f"{name}.png")

    page.screenshot(path=file, timeout=120_000)

    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size < 100_000
