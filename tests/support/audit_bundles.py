"""Bundles of a small pool, for tests of what verifying them says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from audit_scene import AuditScene

from agent.audit.bundle import Bundle
from agent.audit.verifying import Step, Verification


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> AuditScene:
    made = AuditScene(tmp_path_factory.mktemp("pool"))
    made.run(2)
    return made


@pytest.fixture(scope="module")
def first(scene: AuditScene) -> Bundle:
    """Of the first epoch: without a base, and with everybody's evidence."""
    return trio.run(scene.export, 1)


@pytest.fixture(scope="module")
def second(scene: AuditScene) -> Bundle:
    return trio.run(scene.export, 2)


def fault(found: Verification, name: str) -> Step:
    """The one check that does not hold."""
    failed = [step for step in found.steps if step.holds is False]
    assert [step.name for step in failed] == [name], failed
    assert not found.is_same
    return failed[0]


def with_account(bundle: Bundle, at: int, **changes: object) -> Bundle:
    accounts = list(bundle.chain.accounts)
    accounts[at] = replace(accounts[at], **changes)
    return replace(bundle, chain=replace(bundle.chain, accounts=tuple(accounts)))
