"""`make interop` as a test, where js-libp2p is installed."""

from __future__ import annotations

import pytest

from tests.interop.__main__ import missing, run_checks


@pytest.mark.long
@pytest.mark.skipif(missing() is not None, reason=f"{missing()}")
async def test_the_two_implementations_agree() -> None:
    assert await run_checks() == []
