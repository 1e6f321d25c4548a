"""An app that serves for a long time. Alone in its file, so that other tests run at its side."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.machines import Machine
from tests.support.servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="reads /proc")]

UVICORN = [sys.executable, "-m", "uvicorn", "probe:app", "--log-level", "warning"]


def measure(server: Server, folder: Path) -> dict[str, int]:
    proc, wal = Path("/proc", str(server.process.pid)), folder / "app.db-wal"
    resident = re.findall(r"VmRSS:\s+(\d+)", (proc / "status").read_text())[0]
    return {
        "KiB": int(resident),
        "descriptors": len(list((proc / "fd").iterdir())),
        "wal bytes": wal.stat().st_size if wal.exists() else 0,
    }


def test_memory_descriptors_and_log_do_not_grow(
    machine: Machine, probed: Path, report: Callable[[str], None]
) -> None:
    """Runs for SOAK_SECONDS and compares the last third with the middle third."""
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    samples: list[dict[str, int]] = []
    requests = 0
    with Server(machine, UVICORN, probed, LOG_LEVEL="WARNING") as server:
        deadline, next_sample = time.monotonic() + seconds, 0.0
        while time.monotonic() < deadline:
            assert server.get(f"/pairs/{requests}", "POST").status == 200
            assert server.get("/rows").status == 200
            assert server.get("/nowhere").status == 404
            requests += 3
            # Leave time for the tests that run in parallel.
            time.sleep(0.01)
            if time.monotonic() > next_sample:
                samples.append(measure(server, probed))
                next_sample = time.monotonic() + seconds / 60
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    report(
        f"{seconds:.0f} s, {requests} requests: "
        f"{json.dumps(samples[0])} -> {json.dumps(samples[-1])}"
    )
    for name, slack in (("KiB", 3072), ("descriptors", 2), ("wal bytes", 2**22)):
        assert max(s[name] for s in last) <= max(s[name] for s in middle) + slack
