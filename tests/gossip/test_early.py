"""What comes before its epoch is open: each operator's share, small messages only, the own ones always."""

from __future__ import annotations

from pool_fixture import POOL, key

from gossip.early import EARLY_BYTES_MAX, EARLY_PER_OPERATOR_MAX, EarlyMessages
from gossip.log_chain import GENESIS
from gossip.messages import Attest, ObservedLog, make_attest, make_observation


def attest(i: int, epoch: int, number: int = 0) -> Attest:
    return make_attest(key(i), POOL, epoch=epoch, cert_hash=bytes([number]) * 32)


def test_each_epoch_gets_its_own_and_later_ones_wait() -> None:
    early = EarlyMessages()
    for epoch in (3, 2, 1, 2):
        early.put(attest(epoch, epoch))
    assert [m.epoch for m in early.take(2)] == [2, 2]
    assert [m.epoch for m in early.take(3)] == [3]
    assert early.take(3) == []


def test_an_operator_that_sends_many_fills_its_own_share() -> None:
    early = EarlyMessages()
    for number in range(3 * EARLY_PER_OPERATOR_MAX):
        early.put(attest(0, 2, number))
    early.put(attest(1, 2))
    assert len(early.take(2)) == EARLY_PER_OPERATOR_MAX + 1


def test_what_gossip_does_not_carry_is_not_kept_unless_it_is_the_own() -> None:
    logs = {i.to_bytes(32, "big"): ObservedLog(head=GENESIS, witnessed_s=0, worker_tokens=0) for i in range(2000)}
    large = make_observation(
        key(0), POOL, epoch=2, set_id=1, policy_hash=bytes(32), base=bytes(32), logs=logs, forks=()
    )
    assert len(large.wire) > EARLY_BYTES_MAX
    early = EarlyMessages()
    early.put(large)
    assert early.take(2) == []
    early.restore([large])
    assert early.take(2) == [large]
