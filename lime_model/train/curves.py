"""A training curve as a picture: one panel per measure, over steps."""

from __future__ import annotations

from pathlib import Path

from lime_model.train.loop import Curve

PANEL = (4.0, 2.6)  # inches


def plot_curve(curve: Curve, path: Path) -> None:
    """Draw the rows of a curve as an image; the suffix of `path` gives its format."""
    from matplotlib.figure import Figure  # imported here, as executors have no plots to draw

    names = [name for name in curve[-1] if name != "step"]
    figure = Figure(figsize=(PANEL[0] * len(names), PANEL[1]), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = [row for row in curve if name in row]
        axis.plot([row["step"] for row in rows], [row[name] for row in rows], marker=".", color="#4a7a8c")
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.savefig(path)
