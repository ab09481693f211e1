"""Fixtures of the contracts' tests."""

from __future__ import annotations

import pytest

from tests.contracts.pool_scene import Scene


@pytest.fixture
def scene() -> Scene:
    """A deployed pool, still its owner's alone, without participants."""
    scene = Scene()
    assert scene.deploy().refusal is None
    return scene


@pytest.fixture
def ready(scene: Scene) -> Scene:
    """The same pool with four operators in charge."""
    scene.hand_over()
    return scene
