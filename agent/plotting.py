"""Plots as PNG files: bars beside each other, lines over numbers. The only module that imports matplotlib.

matplotlib is an optional dependency (the extra `plot`) and is loaded when a plot is asked for. Nothing here
needs a display, and nothing global is changed.

A value that is not known is `math.nan`: it leaves a gap, and is never drawn as zero.

Colours: M. Okabe and K. Ito, "Color Universal Design" (2008), told apart with any kind of colour vision.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ConfigError, OperationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
SERIES_MAX = len(_COLOURS)
LABELS_SHOWN_MAX = 40
"""Of more labels below the axis only some are written."""
_MARKED_MAX = 60
_WIDTH_IN, _HEIGHT_IN, _WIDTH_MAX_IN, _DPI = 9.0, 4.8, 24.0, 144
_CHARACTER_IN = 0.085
"""About the width of a character."""
_INK, _FAINT = "#333333", "#DDDDDD"


def save_bars(
    path: Path, *, title: str, unit: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]
) -> None:
    """Write bars of one or more series (name -> a value in `unit` for each of `labels`) to `path`, a PNG.

    Raises:
        ConfigError: the path does not end in `.png`.
        OperationError: matplotlib is not installed, there is nothing to draw, or the file cannot be written.
    """

    width_in = min(_WIDTH_MAX_IN, max(_WIDTH_IN, 0.16 * len(labels) * len(series)))

    def draw(axes: Axes) -> None:
        width = 0.8 / len(series)
        for i, (name, values) in enumerate(series.items()):
            places = [place - 0.4 + width * (i + 0.5) for place in range(len(labels))]
            axes.bar(places, values, width=width, label=name, color=_COLOURS[i], linewidth=0)
        every = -(-len(labels) // LABELS_SHOWN_MAX)
        shown = range(0, len(labels), every)
        is_slanted = sum(len(labels[place]) + 1 for place in shown) * _CHARACTER_IN > 0.9 * width_in
        axes.set_xticks(
            list(shown),
            [labels[place] for place in shown],
            rotation=40 if is_slanted else 0,
            ha="right" if is_slanted else "center",
            rotation_mode="anchor",
        )
        axes.set_xlim(-0.6, len(labels) - 0.4)

    _save(path, title, unit, len(labels), series, draw, width_in=width_in)


def save_lines(
    path: Path, *, title: str, unit: str, xs: Sequence[float], series: Mapping[str, Sequence[float]]
) -> None:
    """Write lines over `xs` (ascending), one for each series (name -> a value in `unit` for each x), to a PNG.

    Raises:
        ConfigError, OperationError: as `save_bars`.
    """

    def draw(axes: Axes) -> None:
        marker = "o" if len(xs) <= _MARKED_MAX else ""
        for i, (name, values) in enumerate(series.items()):
            axes.plot(xs, values, label=name, color=_COLOURS[i], linewidth=1.8, marker=marker, markersize=4)
        axes.locator_params(axis="x", integer=all(float(x).is_integer() for x in xs))

    _save(path, title, unit, len(xs), series, draw, width_in=_WIDTH_IN)


def _save(
    path: Path,
    title: str,
    unit: str,
    length: int,
    series: Mapping[str, Sequence[float]],
    draw: Callable[[Axes], None],
    *,
    width_in: float,
) -> None:
    if path.suffix != ".png":
        raise ConfigError(f"{path}: expected a name that ends in .png")
    if not length or not 1 <= len(series) <= SERIES_MAX:
        raise OperationError(f"{path}: nothing to draw, or more than {SERIES_MAX} series")
    if any(len(values) != length for values in series.values()):
        raise ValueError(f"series: expected {length} values each")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OperationError(
            "a plot needs matplotlib: install it into the agent's environment: python -m pip install matplotlib"
        ) from error
    with rc_context({"text.parse_math": False, "font.size": 11, "text.color": _INK}):
        figure = Figure(figsize=(width_in, _HEIGHT_IN), dpi=_DPI, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        known = [value for values in series.values() for value in values if not math.isnan(value)]
        _dress(axes, unit, min(known, default=0))
        rows = _name(axes, series, width_in) if len(series) > 1 else 0
        axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=12 + 20 * rows)
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_figure(content, format="png", metadata={"Software": None})
    try:
        path.write_bytes(content.getvalue())
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror}") from error


def _dress(axes: Axes, unit: str, lowest: float) -> None:
    """What all plots have: the unit, numbers that can be read, a faint grid, no box."""
    axes.set_ylabel(unit, color=_INK)
    axes.margins(y=0.04)
    axes.set_ylim(bottom=0 if lowest >= 0 else None)
    axes.yaxis.set_major_formatter(lambda value, _place: _number(value))
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_INK)


def _name(axes: Axes, series: Mapping[str, Sequence[float]], width_in: float) -> int:
    """Name the series above what is drawn; returns in how many rows."""
    characters, spaces = int(width_in / _CHARACTER_IN), 12
    columns = len(series)
    if sum(len(name) + spaces for name in series) > characters:
        columns = min(columns, max(1, characters // (max(map(len, series)) + spaces)))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, ncols=columns, frameon=False)
    return -(-len(series) // columns)


def _number(value: float) -> str:
    """A number beside the axis, without an exponent."""
    for size, name in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= size:
            return f"{value / size:,.6g}{name}"
    return f"{value:,.6g}"
