"""The table as a picture: each figure as a part of what the goal allows."""

from html import escape

from benchmarks.table import Row

LINE, LEFT, FULL, RIGHT = 24, 440, 300, 130
REACHED, MISSED = "#2b7a4b", "#b3412e"


def draw(rows: list[Row]) -> str:
    """An SVG with a bar for each row that has a goal; the line is the goal."""
    shown = [row for row in rows if row.ratio is not None and row.at_most]
    height = LINE * (len(shown) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + FULL + RIGHT}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{LEFT + FULL + RIGHT}" height="{height}" fill="#fff"/>',
    ]
    for number, row in enumerate(shown):
        assert row.ratio is not None
        assert row.at_most is not None
        share = row.ratio / row.at_most
        top = LINE * number + LINE
        baseline = row.baseline.partition(":")[0].partition(" (")[0]
        # Other goals are numbers by themselves.
        against = f", against {baseline}" if row.goal.endswith("x") else ""
        color = REACHED if share <= 1 else MISSED
        # A bar beyond twice the goal says no more than its number does.
        length = min(share, 1.9) * FULL / 2
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">'
            f"{escape(row.what + against)}</text>",
            f'<rect x="{LEFT}" y="{top}" width="{length:.0f}" height="16" fill="{color}"/>',
            f'<text x="{LEFT + length + 6:.0f}" y="{top + 12}">'
            f"{escape(row.figure.rpartition(', ')[2])}</text>",
        ]
    goal = LEFT + FULL // 2
    bottom = height - LINE
    parts += [
        f'<line x1="{goal}" y1="12" x2="{goal}" y2="{bottom}" '
        'stroke="#222" stroke-dasharray="4 3"/>',
        f'<text x="{goal}" y="{bottom + 14}" text-anchor="middle">goal</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
