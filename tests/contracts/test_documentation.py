"""What `docs/contracts.md` promises is held by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMED = re.findall(r"`(test_\w+)::(test_\w+)`", (HERE.parents[1] / "docs" / "contracts.md").read_text())


@pytest.mark.parametrize(("module", "test"), NAMED)
def test_a_named_test_exists(module: str, test: str) -> None:
    assert f"def {test}(" in (HERE / f"{module}.py").read_text()


def test_guarantees_name_tests() -> None:
    assert len(NAMED) > 40
