"""Prints what is fast and what is not, as a table: `.venv/bin/python -m benchmarks [SECTION ...]`.

Sections: requests, load, generation, workers; all of them take about seventeen minutes. `--chart
FILE` also draws the table. Ratios compare what was measured in this one run; below 1.3 those of
times mean nothing, those of instructions do.
"""

import argparse
import os
import platform
import tempfile
from pathlib import Path

from benchmarks import generation, load, per_request, workers
from benchmarks.chart import draw
from benchmarks.databases import fill, render
from benchmarks.table import Row, markdown
from tests.support.machines import check_out

SECTIONS = ("requests", "load", "generation", "workers")
FEW, MANY = 10_000, 1_000_000


def measure(sections: list[str], folder: Path) -> list[Row]:
    checkout = check_out(folder / "checkout")
    project = render(checkout, folder / "project")
    small = fill(project, FEW)
    rows = []
    if "requests" in sections:
        rows += per_request.measure(project, small, FEW)
    if "load" in sections:
        large = fill(project, MANY)
        rows += load.measure(project, (small, FEW), (large, MANY), folder / "home")
    if "generation" in sections:
        rows += generation.measure(folder, checkout)
    if "workers" in sections:
        rows += workers.measure(project, small, FEW, folder / "workers-home")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", default=[])
    parser.add_argument("--chart", type=Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    # Set in many containers; it makes every start compile everything again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as work:
        rows = measure(options.sections or list(SECTIONS), Path(work))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}\n")
    print(markdown(rows))
    if options.chart:
        options.chart.write_text(draw(rows), "utf-8")


if __name__ == "__main__":
    main()
