"""The steps of docs/operating.md for one host, followed as written on a host with a real systemd."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.render.test_project_documents import code_blocks
from tests.support.clusters import wait_until
from tests.support.hosts import Host, booted_host, obstacle
from tests.support.projects import Generate, Project
from tests.support.proxies import make_certificate
from tests.update.edits import git

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no systemd"),
]

PASSWORD = "seven wet otters on a raft\n"
PYTHON = "/usr/bin/python3"
# nginx with TLS, as a client sees it.
ASK = "curl --silent --show-error --insecure --resolve api.example.com:443:127.0.0.1"
HOME = f"{ASK} https://api.example.com/api/v1/"
DATABASE = "/var/lib/my-app/app.db"
# Another Caddy, which issues a certificate by ACME (RFC 8555) to the server on port 80.
AUTHORITY = """
{
	admin off
	auto_https disable_redirects
}
https://ca.example.com:9443 {
	tls internal
	acme_server
}
"""
DIRECTORY = "https://ca.example.com:9443/acme/local/directory"
# What certbot would ask a person for, and the other authority.
CERTBOT = f"""
server = {DIRECTORY}
agree-tos = true
register-unsafely-without-email = true
non-interactive = true
"""
# The certificate is checked.
TRUST = "curl --fail --silent --show-error --retry 10 --retry-all-errors https://api.example.com"
SERIAL = """
openssl s_client -connect api.example.com:443 < /dev/null 2> /dev/null |
    openssl x509 -noout -serial
"""
UNITS = ["my-app.service", "my-app-backup.service", "my-app-backup.timer"]


def section(project: Project, title: str, language: str = "") -> list[str]:
    """The commands of a section of the document, block by block."""
    text = project.read("docs/operating.md")
    found = re.search(rf"^(#+) {title}\n(.*?)(?=^##? |^\1 )", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return code_blocks(found[2], language)


def first_deploy(project: Project, word: str, language: str = "") -> str:
    """The block of the first deploy that contains this word."""
    blocks = section(project, "Put it into production", language)
    (found,) = [block for block in blocks if word in block]
    return found


@pytest.fixture(scope="module")
def rendered(generate: Generate) -> Project:
    return generate(auth=True)


@pytest.fixture(scope="module")
def shared(rendered: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the host gets from outside: the repository with two releases, and the libraries."""
    if reason := obstacle():
        pytest.skip(reason)
    shared = tmp_path_factory.mktemp("shared")
    repository = shared / "my-app.git"
    shutil.copytree(rendered.path, repository)
    git(repository, "init", "--quiet")
    package = repository / "app/__init__.py"
    for tag in ("v1.1.0", "v1.2.0"):
        changed = re.sub(r'VERSION = ".*"', f'VERSION = "{tag[1:]}"', package.read_text("utf-8"))
        package.write_text(changed, "utf-8")
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "-m", tag)
        git(repository, "tag", tag)
    git(repository, "checkout", "--quiet", "v1.1.0")
    subprocess.run([PYTHON, "-m", "venv", shared / "fetch"], check=True)
    download = ["download", "--quiet", "--require-hashes", "-r", "requirements.txt"]
    fetch = [shared / "fetch/bin/pip", *download, "--dest", shared / "wheels"]
    subprocess.run([str(word) for word in fetch], cwd=rendered.path, check=True)
    make_certificate(shared)
    return shared


@pytest.fixture(scope="module")
def host(rendered: Project, shared: Path) -> Iterator[Host]:
    """The first deploy, followed as written."""
    with booted_host(shared) as host:
        host.succeed(
            """
            printf '[global]\\nno-index = true\\nfind-links = /mnt/wheels\\n' > /etc/pip.conf
            rm -rf .config/pip .pip
            git config --global url.file:///mnt/.insteadOf https://git.example.com/
            git config --global --add safe.directory '*'
            mkdir -p /etc/letsencrypt/live
            cp -r /mnt/certificate /etc/letsencrypt/live/api.example.com
            """
        )
        for block in section(rendered, "Put it into production"):
            if block.startswith("ENVIRONMENT="):
                host.succeed("cat > /srv/my-app/.env", stdin=block)
            elif "caddy" not in block and "serve" not in block and "v1." not in block:
                host.succeed(block, stdin=PASSWORD)
        yield host


def test_systemd_finds_no_fault_in_the_units(host: Host, report: Callable[[str], None]) -> None:
    files = " ".join(f"/srv/my-app/deploy/{unit}" for unit in UNITS)

    checked = host.run(f"systemd-analyze verify {files}")

    assert (checked.returncode, checked.stderr) == (0, "")
    for unit, most in (("my-app.service", 13), ("my-app-backup.service", 6)):
        path = f"/srv/my-app/deploy/{unit}"
        said = host.succeed(f"systemd-analyze security --offline=true --threshold={most} {path}")
        report(said.strip().splitlines()[-1].strip("→ "))


def test_r48_the_app_is_served_by_a_user_who_can_write_only_the_database(host: Host) -> None:
    assert json.loads(host.succeed(HOME))["version"] == "1.1.0"
    process = host.succeed("systemctl show --property MainPID --value my-app").strip()
    assert host.succeed(f"stat --format %U /proc/{process}").strip() == "my-app"
    inside = f"nsenter --target {process} --mount --"
    for path in ("/srv/my-app/app/main.py", "/etc/passwd", "/var/tmp/../log/x"):
        assert "Read-only" in host.run(f"{inside} touch {path}").stderr
    host.succeed(f"{inside} touch /var/lib/my-app/app.db")
    files = host.succeed("stat --format '%a %U' /srv/my-app/.env /var/lib/my-app/app.db")
    assert files.splitlines() == ["600 my-app"] * 2
    login = f"{ASK} https://api.example.com/api/v1/auth/login -d username=ada"
    password = f"--data-urlencode 'password={PASSWORD.strip()}'"
    assert json.loads(host.succeed(f"{login} {password}"))["token_type"] == "bearer"


def test_the_journal_has_the_log_and_rotates_it(host: Host) -> None:
    read = "journalctl -u my-app -o cat --since -1h"
    assert f"`{read}`" in host.succeed("cat /srv/my-app/docs/operating.md")
    host.succeed(f"{HOME}?before")
    host.succeed("journalctl --sync; journalctl --rotate; journalctl --vacuum-time=1s; sleep 1")
    host.succeed("journalctl --rotate; journalctl --vacuum-time=1s")
    host.succeed(HOME)

    lines = host.succeed(f"journalctl --sync; {read}").splitlines()

    entries = [json.loads(line) for line in lines if line.startswith("{")]
    assert any("/api/v1/" in entry["message"] for entry in entries), lines


def test_the_commands_at_night_say_how_the_app_is(host: Host, rendered: Project) -> None:
    (commands,) = section(rendered, "Paged at night")

    said = host.succeed(commands)

    assert "Active: active (running)" in said
    assert '{"status":"ok"}' in said
    assert "migrations: database at" in said


def test_a_backup_is_restored_and_checked_each_time(host: Host, rendered: Project) -> None:
    now, _ = section(rendered, "Back up and restore")

    said = host.succeed(now)

    assert "Backed up /var/lib/my-app/app.db" in said
    assert "Restored /var/lib/my-app/backups/daily-" in said
    assert "database: /var/tmp/drill.db" in said
    assert "my-app-backup.timer" in host.succeed("systemctl list-timers --all")
    host.succeed("test ! -e /var/tmp/drill.db")
    old = "/var/lib/my-app/backups/daily-20200101T000000Z.db"
    # A backup that is killed leaves a file like the second one.
    host.succeed(f"touch -d '31 days ago' {old} {old}.a1b2c3d4.part")
    host.succeed("sleep 1; systemctl start my-app-backup")
    host.succeed(f"test ! -e {old} && test ! -e {old}.a1b2c3d4.part")


def test_r50_a_backup_that_fails_its_check_is_a_failed_unit(host: Host) -> None:
    lines = [
        "import sqlite3",
        f"database = sqlite3.connect('{DATABASE}', isolation_level=None)",
        "database.execute('UPDATE alembic_version SET version_num = 0')",
    ]
    host.succeed(f'sleep 1; runuser -u my-app -- {PYTHON} -c "{"; ".join(lines)}"')

    failed = host.run("systemctl start my-app-backup")

    assert failed.returncode != 0
    assert "my-app-backup.service" in host.succeed("systemctl --failed")
    host.succeed("rm $(ls -t /var/lib/my-app/backups/daily-* | head -1)")


def test_a_restored_backup_is_served(host: Host, rendered: Project) -> None:
    """The database is the one that the test above has broken."""
    _, restore = section(rendered, "Back up and restore")
    newest = host.succeed("ls /var/lib/my-app/backups/daily-* | tail -1").strip()
    commands, replaced = re.subn(r"/var/lib/my-app/backups/daily-\w+\.db", newest, restore)
    assert replaced == 1

    host.succeed(commands)

    host.succeed("curl --fail --retry 10 --retry-all-errors http://127.0.0.1:8001/health/ready")
    users = "runuser -u my-app -- .venv/bin/my-app user list"
    assert "ada" in host.succeed(f"cd /srv/my-app && {users}")


def test_the_next_release_and_the_way_back_fail_no_request(
    host: Host, rendered: Project, report: Callable[[str], None]
) -> None:
    for title, version in (("Deploy the next release", "1.2.0"), ("Roll back", "1.1.0")):
        (commands,) = section(rendered, title)
        ask = f"{HOME} -w ' %{{http_code}}\\n' -o /dev/null"
        host.succeed(
            f"""
            rm -f /tmp/stop
            reloads() {{ journalctl -u my-app -o cat | grep --count 'Reload finished: 2 of 2'; }}
            before=$(reloads || true)
            (while [ ! -e /tmp/stop ]; do {ask}; done) > /tmp/asked &
            trap 'touch /tmp/stop' EXIT
            {commands}
            until [ "$(reloads)" != "$before" ]; do sleep 0.2; done
            touch /tmp/stop
            wait
            """
        )

        asked = host.succeed("sort /tmp/asked | uniq -c").strip()

        assert re.fullmatch(r"\d+ +200", asked), asked
        assert json.loads(host.succeed(HOME))["version"] == version
        report(f"{title}: {asked.split()[0]} requests, all answered")


@pytest.fixture(scope="module")
def authority(host: Host) -> str:
    """The certificate authority runs, and the host trusts it. The URL of its directory."""
    host.succeed("mkdir /tmp/ca && cat > /tmp/ca/Caddyfile", stdin=AUTHORITY)
    host.succeed(
        """
        echo 127.0.0.1 api.example.com ca.example.com >> /etc/hosts
        systemd-run --quiet --setenv=XDG_DATA_HOME=/tmp/ca caddy run --config /tmp/ca/Caddyfile
        root=/tmp/ca/caddy/pki/authorities/local/root.crt
        for _ in $(seq 100); do [ -f $root ] && break; sleep 0.1; done
        cp $root /usr/local/share/ca-certificates/
        update-ca-certificates
        """
    )
    host.succeed(f"curl --fail --silent --retry 10 --retry-all-errors {DIRECTORY}")
    return DIRECTORY


def test_certbot_gets_a_certificate_and_renews_it(
    host: Host, rendered: Project, authority: str
) -> None:
    host.succeed("cat > /etc/letsencrypt/cli.ini", stdin=CERTBOT)
    host.succeed(
        """
        rm -r /etc/letsencrypt/live/api.example.com /etc/nginx/sites-enabled/*
        ln -s ../sites-available/default /etc/nginx/sites-enabled/
        systemctl restart nginx
        """
    )

    host.succeed(first_deploy(rendered, "certbot", "sh"))
    host.succeed(first_deploy(rendered, "nginx -t"))

    assert json.loads(host.succeed(f"{TRUST}/health/ready")) == {"status": "ok"}
    before = host.succeed(SERIAL)
    host.succeed("certbot renew --force-renewal --no-random-sleep-on-renew")
    # nginx goes on with the old one for a moment.
    wait_until(lambda: host.succeed(SERIAL) != before)
    assert json.loads(host.succeed(f"{TRUST}/health/ready")) == {"status": "ok"}


def test_caddy_can_take_the_place_of_nginx_and_gets_its_certificate(
    host: Host, rendered: Project, authority: str
) -> None:
    *copy, restart = first_deploy(rendered, "caddy").splitlines()
    # Let's Encrypt would be the default.
    choose = f"sed -i '1i {{\\nacme_ca {authority}\\n}}' /etc/caddy/Caddyfile"

    host.succeed("\n".join(["systemctl stop nginx", *copy, choose, restart]))

    assert json.loads(host.succeed(f"{TRUST}/health/ready")) == {"status": "ok"}
    asked = host.succeed(
        "curl --fail --silent --retry 10 --retry-all-errors http://127.0.0.1/health/ready"
    )
    assert json.loads(asked) == {"status": "ok"}
