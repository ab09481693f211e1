"""What is said of an epoch's close: one line with its course, and the steps in the metrics."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from agent.epoch_watch import EpochWatch
from agent.metrics.registry import Metrics
from contracts.model import NANO, ZERO_HASH, Address, Landed, Leaf, SettlePayload
from gossip.epoch_events import Progress
from gossip.settlement import Settlement

OWN = Address(0, b"\x01" * 32)
END_S = 1_800_000_000


def progress(epoch: int = 1, **changes: object) -> Progress:
    made = Progress(
        epoch=epoch,
        view=None,
        operators=4,
        observations=0,
        proposals=0,
        has_observed=False,
        has_attested=False,
        attested_weight=0,
        total_weight=4,
        certified=False,
        waiting_for=0,
    )
    return replace(made, **changes)


def settlement(epoch: int, earned_nanoton: int, *, score: int = 250) -> Settlement:
    leaf = Leaf(
        participant=OWN,
        earned_nanoton=earned_nanoton,
        score=score,
        tokens=900,
        tasks=9,
        uptime_s=60,
        quality=1000,
        reputation=500,
    )
    payload = SettlePayload(
        epoch=epoch,
        prev=ZERO_HASH,
        totals_root=b"\xab" * 32,
        count=3,
        total_score=1000,
        total_earned_nanoton=earned_nanoton,
        tasks=30,
        tokens=3000,
        policy_hash=ZERO_HASH,
        cut_root=ZERO_HASH,
    )
    return Settlement(payload=payload, leaves=(leaf,), readings={})


def landed(epoch: int, settled_s: int) -> Landed:
    return Landed(
        epoch=epoch,
        payload_hash=ZERO_HASH,
        totals_root=ZERO_HASH,
        previous_root=ZERO_HASH,
        total_earned_nanoton=0,
        settled_s=settled_s,
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="0", process=False)


def served(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_one_line_tells_the_course_of_an_epoch_and_what_it_earned(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = EpochWatch(metrics)
    watch.settled(settlement(1, 2 * NANO), landed(1, END_S - 60), OWN)
    seen = progress(2, has_observed=True, observations=1)
    watch.look(progress(2), END_S, END_S + 1)
    watch.look(seen, END_S, END_S + 4)
    watch.look(seen, END_S, END_S + 6)
    watch.look(replace(seen, view=1, proposals=1, observations=4), END_S, END_S + 8)
    watch.look(replace(seen, view=1, proposals=1, observations=4, has_attested=True, certified=True), END_S, END_S + 9)
    watch.settled(settlement(2, 5 * NANO), landed(2, END_S + 12), OWN)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("epoch 1 settled: 3 participants, 3000 tokens, 30 tasks; 2.000 TON in all, share 25.0 %")
    assert second == (
        "epoch 2 settled in view 1 (observed +4 s, proposed +8 s, attested +9 s, certified +9 s, landed +12 s; "
        "4 of 4 operators observed): 3 participants, 3000 tokens, 30 tasks; "
        "3.000 TON earned, 5.000 TON in all, share 25.0 %, uptime 60 s; root abababababababab"
    )
    text = served(metrics)
    assert 'gpupool_close_step_seconds{step="attested"} 9.0' in text
    assert "gpupool_certificate_lag_seconds 12.0" in text
    assert "gpupool_settled_epoch 2.0" in text


def test_of_an_epoch_that_was_caught_up_with_no_course_is_told(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = EpochWatch(metrics)
    watch.look(progress(7, has_observed=True), END_S, END_S + 4)
    watch.settled(settlement(3, NANO), landed(4, END_S), None)
    assert caplog.records[0].getMessage().startswith("epoch 3 settled: 3 participants")
    assert "this node has no part in it" in caplog.records[0].getMessage()
    text = served(metrics)
    assert "close_step_seconds{" not in text
    assert "gpupool_settled_timestamp_seconds 1" not in text, "when epoch 3 landed nobody said"


def test_without_an_open_epoch_nothing_is_noted(metrics: Metrics) -> None:
    watch = EpochWatch(metrics)
    watch.look(None, END_S, END_S + 4)
    watch.settled(settlement(1, NANO), landed(1, END_S), OWN)
    assert "close_step_seconds{" not in served(metrics)


def test_no_step_comes_after_the_landing_and_who_did_not_count_is_told(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = EpochWatch(metrics)
    watch.look(progress(1, has_observed=True), END_S, END_S + 4)
    watch.look(progress(1, has_observed=True, proposals=1, certified=True), END_S, END_S + 9)
    watch.settled(settlement(1, 0, score=0), landed(1, END_S + 8), OWN)
    said = caplog.records[0].getMessage()
    assert "(observed +4 s, proposed +8 s, certified +8 s, landed +8 s;" in said
    assert "nothing of this node's counted in it; 0.000 TON in all" in said
