"""Draw the values of earlier nights as a small SVG line; the page can read it without colours, too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, MARGIN = 120, 28, 3
LEAST_RANGE = 0.02  # the least height of a line, as a share of the values: smaller changes look small


def draw_sparkline(values: Sequence[float], limit: float, title: str) -> Markup:
    """Draw values from left to right, with the limit as a dashed line if it is close to them.

    Args:
        values: the values, the oldest first; those that are not finite leave a gap.
        limit: the limit of the audit.
        title: what the line shows, for people who can't see it.
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    near = math.isfinite(limit) and low - 2 * (high - low) <= limit <= high + 2 * (high - low)
    if near:
        low, high = min(low, limit), max(high, limit)
    least = LEAST_RANGE * max(abs(low), abs(high)) or 1.0
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2

    def place(index: int, value: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * (index / (len(values) - 1) if len(values) > 1 else 0.5)
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / (high - low)
        return f"{x:.1f},{y:.1f}"

    points = " ".join(place(i, value) for i, value in enumerate(values) if math.isfinite(value))
    at_limit = place(0, limit).split(",")[1] if near else ""
    dashed = Markup('<line class="limit" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, at_limit, at_limit)
    dot = (
        Markup('<circle cx="{}" cy="{}" r="2.5"/>').format(*points.split(" ")[-1].split(","))
        if points
        else ""
    )
    return Markup(
        '<svg role="img" width="{w}" height="{h}" viewBox="0 0 {w} {h}"><title>{title}</title>{dashed}'
        '<polyline points="{points}"/>{dot}</svg>'
    ).format(w=WIDTH, h=HEIGHT, title=title, dashed=dashed if near else "", points=points, dot=dot)
