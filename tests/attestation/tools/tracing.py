"""A pytest plugin that writes down which test runs which line of the attestation package.

    python -m pytest tests/attestation -p tests.attestation.tools.tracing --lines lines.json

`lines.json` (for `mutate`): "lines" maps `file:line` to the tests that ran it, "seconds" each test to how long it
took, traced.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

PACKAGE = str(Path.cwd() / "attestation") + "/"


class Tracer:
    """What the tests of one run have executed so far."""

    def __init__(self) -> None:
        self.lines: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.test = ""

    def on_call(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        return self.on_line

    def on_line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self.lines[frame.f_code.co_filename, frame.f_lineno].add(self.test)
        return self.on_line

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.test = item.nodeid
        started = time.perf_counter()
        threading.settrace(self.on_call)
        sys.settrace(self.on_call)
        yield
        sys.settrace(None)
        threading.settrace(None)
        self.seconds[item.nodeid] = time.perf_counter() - started

    def report(self) -> dict[str, Any]:
        lines = {f"{file[len(PACKAGE) :]}:{line}": sorted(tests) for (file, line), tests in self.lines.items()}
        return {"lines": lines, "seconds": self.seconds}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lines", type=Path, help="write which test runs which line to this file")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--lines"):
        config.pluginmanager.register(Tracer(), "lines-tracer")


def pytest_sessionfinish(session: pytest.Session) -> None:
    tracer = session.config.pluginmanager.get_plugin("lines-tracer")
    if tracer is not None:
        session.config.getoption("--lines").write_text(json.dumps(tracer.report()))
