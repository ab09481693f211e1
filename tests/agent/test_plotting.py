"""Plots: a PNG that holds what was given, and one line where there can be none."""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path

import pytest

from agent import plotting
from agent.errors import ConfigError, OperationError
from agent.plotting import SERIES_MAX, save_bars, save_lines

PNG = b"\x89PNG\r\n\x1a\n"
ONE = {"earned": [1.0, 2.5]}


def size_of(path: Path) -> tuple[int, int]:
    """Width and height by the file's header."""
    content = path.read_bytes()
    assert content[:8] == PNG
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def bars(path: Path, labels: int = 2, series: dict[str, list[float]] | None = None) -> None:
    save_bars(path, title="t", unit="TON", labels=[f"0:{i:08x}" for i in range(labels)], series=series or ONE)


def test_bars_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bars(tmp_path / "bars.png")
    width, height = size_of(tmp_path / "bars.png")
    assert (width > 1000, height > 500) == (True, True)


def test_a_wide_pool_has_a_wide_plot_up_to_a_bound(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bars(tmp_path / "narrow.png")
    bars(tmp_path / "wide.png", 300, {name: [1.0] * 300 for name in "abcdef"})
    narrow, wide = size_of(tmp_path / "narrow.png"), size_of(tmp_path / "wide.png")
    assert narrow[0] < wide[0] < 4000


def test_lines_have_gaps_where_nothing_is_known(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    unknown, zero, known = tmp_path / "unknown.png", tmp_path / "zero.png", tmp_path / "known.png"
    for path, second in ((unknown, math.nan), (zero, 0.0), (known, 3e6)):
        save_lines(path, title="t", unit="tokens", xs=[1, 2, 3], series={"a": [2e7, second, 1e7]})
    assert len({path.read_bytes() for path in (unknown, zero, known)}) == 3
    save_lines(unknown, title="t", unit="tokens", xs=[1, 2], series={"a": [math.nan] * 2, "b": [-1.0, 4.0]})
    save_lines(zero, title="t", unit="tokens", xs=[1, 2], series={"a": [math.nan] * 2})
    assert size_of(unknown) == size_of(zero)


def test_names_are_texts_and_no_formulas(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_bars(tmp_path / "a.png", title="$\\frac{", unit="$x_", labels=["$^"], series={"$\\": [1], "b": [2]})
    assert size_of(tmp_path / "a.png")[0] > 1000


def test_the_same_figures_give_the_same_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bars(tmp_path / "a.png")
    bars(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", ["plot", "plot.svg", "plot.PNG.txt"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        bars(tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("labels", "series"),
    [(0, {"a": []}), (1, {str(i): [1.0] for i in range(SERIES_MAX + 1)})],
    ids=["nothing", "more than there are colours"],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, labels: int, series: dict[str, list[float]]) -> None:
    with pytest.raises(OperationError, match="nothing to draw"):
        bars(tmp_path / "a.png", labels, series)


def test_a_series_of_another_length_is_a_mistake_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 3 values"):
        bars(tmp_path / "a.png", 3)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OperationError, match="environment: python -m pip install matplotlib"):
        bars(tmp_path / "a.png")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(OperationError, match="cannot be written"):
        bars(tmp_path / "missing" / "a.png")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1234.5, "1,234.5"), (8e6, "8 M"), (-2.5e9, "-2.5 G"), (0.001, "0.001")]
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert plotting._number(value) == text
