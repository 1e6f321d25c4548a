"""Rows of the table, and figures that are measured in turns with what they are compared to."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """A line of the table. `ratio` and `goal` are what the chart draws: times the baseline."""

    what: str
    figure: str
    goal: str = ""
    baseline: str = ""
    ratio: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        if self.ratio is None or self.at_most is None:
            return ""
        return "reached" if self.ratio <= self.at_most else "missed"


def compared(
    what: str, figure: float, unit: str, baseline: float, against: str, at_most: float
) -> Row:
    """A row whose goal is a ratio to something else that did the same work in this run."""
    ratio = figure / baseline
    return Row(
        what,
        f"{figure:,.{0 if figure > 20 else 2}f} {unit}, {ratio:.2f}x",
        f"{at_most:g}x",
        f"{against}: {baseline:,.{0 if baseline > 20 else 2}f} {unit}",
        ratio,
        at_most,
    )


def limited(what: str, figure: float, unit: str, at_most: float) -> Row:
    """A row whose goal is a number by itself."""
    digits = 0 if figure > 20 else 1
    goal = f"{at_most:g} {unit}"
    return Row(what, f"{figure:.{digits}f} {unit}", goal, "", figure / at_most, 1.0)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved(ours: Callable[[], object], baseline: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, measured in turns."""
    rounds = [(seconds(ours), seconds(baseline)) for _ in range(ROUNDS)]
    return statistics.median(o for o, _ in rounds), statistics.median(b for _, b in rounds)


def markdown(rows: list[Row]) -> str:
    lines = ["| what | measured | against | goal: at most | |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.figure} | {row.baseline} | {row.goal} | {row.verdict} |"
        for row in rows
    ]
    return "\n".join(lines)
