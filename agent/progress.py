"""How far long work has come: a bar on standard error where a person looks on, and nothing anywhere else.

Work tells of its stages through a `Tell`, and counts what it goes through by `counted`; it knows neither of terminals.
There is no bar with --json, nor where standard error is no terminal: what reads it there wants results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Tell = Callable[[str], object]
"""Hears what is being done now, in a few words."""

T = TypeVar("T")

_STEP = 64
"""So many rows are counted at once: a bar that is drawn ten times a second need not hear of each."""


@contextmanager
def progress(options: argparse.Namespace) -> Iterator[Tell]:
    """What the work in the block tells, shown to whoever typed the command; gone at the block's end."""
    if options.json or sys.stderr is None or not sys.stderr.isatty():
        yield silent
        return
    with _bars() as bars:
        yield _Stages(bars)


def counted(tell: Tell, rows: Iterable[T], total: Callable[[], int | None]) -> Iterator[T]:
    """The same rows, of which `tell` hears the number; `total` is asked for, if somebody wants to know."""
    return tell.counted(rows, total()) if isinstance(tell, _Stages) else iter(rows)


def silent(what: str) -> None:
    """Tells nobody."""


def unknown() -> None:
    """The total of what nobody counted before."""


class _Stages:
    """A line for each stage: a bar where the total is known, else how many there were, and how fast."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, visible=False)

    def __call__(self, what: str) -> None:
        self._bars.remove_task(self._task)
        self._task = self._bars.add_task(what, total=None)

    def counted(self, rows: Iterable[T], total: int | None) -> Iterator[T]:
        self._bars.update(self._task, total=total)
        count = 0
        for count, row in enumerate(rows, 1):
            yield row
            if count % _STEP == 0:
                self._bars.update(self._task, completed=count)
        self._bars.update(self._task, completed=count)


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),  # a share where the total is known, else a speed
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
