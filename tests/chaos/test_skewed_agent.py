"""A clock that can be set wrong while the process runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.skewed_agent import set_ahead, skew


def test_the_clock_follows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_ns, clock = time.time_ns, tmp_path / "clock"
    monkeypatch.setattr(time, "time", time.time)
    monkeypatch.setattr(time, "time_ns", time.time_ns)
    set_ahead(clock, 600)
    skew(clock)
    for ahead_s in (600, 0, -3600.5):
        set_ahead(clock, ahead_s)
        before_s, told_s, told_ns, after_s = true_ns() / 1e9, time.time(), time.time_ns(), true_ns() / 1e9
        assert before_s - 0.001 <= told_s - ahead_s <= after_s + 0.001
        assert before_s - 0.001 <= told_ns / 1e9 - ahead_s <= after_s + 0.001
