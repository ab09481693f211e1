"""The machine, driven in memory: epochs settle, and what each follower checks depends on the proposal alone."""

from __future__ import annotations

import pytest
from pool_fixture import (
    EPOCH_S,
    POOL,
    POT_NANOTON,
    Agent,
    Pool,
    fill,
    frame,
    key,
    log_book,
    run_epoch,
    verdict,
    write_work,
)

from gossip.epoch_events import (
    Anchor,
    CheckpointArrived,
    DataArrived,
    Finalize,
    Persist,
    Publish,
    RecordsArrived,
    Refused,
    Submit,
)
from gossip.errors import DataUnavailableError
from gossip.messages import Attest, Observation, Proposal, make_proposal
from gossip.settlement import Base
from gossip.tally import settle


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_three_epochs_settle_and_every_node_has_the_same_base(n: int) -> None:
    pool = Pool(n)
    for _ in range(3):
        write_work(pool)
        run_epoch(pool)
    assert [payload.epoch for payload in pool.chain.payloads] == [1, 2, 3]
    bases = {agent.machine.base.payload_hash for agent in pool.agents}
    assert bases == {pool.chain.landed.payload_hash}
    total = pool.chain.landed.total_earned_nanoton
    assert 3 * POT_NANOTON - 3 * n < total <= 3 * POT_NANOTON


def test_work_pays_by_score_and_more_tokens_pay_more() -> None:
    pool = Pool(4)
    write_work(pool)
    run_epoch(pool)
    leaves = {leaf.participant: leaf for leaf in pool.agents[0].settled[0].leaves}
    earned = [leaves[p.address].earned_nanoton for p in frame(4).participants]
    assert earned == sorted(earned)
    assert earned[0] < earned[3]


def test_a_silent_operator_does_not_stop_settlement() -> None:
    pool = Pool(4)
    for silent in range(4):
        pool.down = {silent}
        write_work(pool)
        for agent in pool.agents:
            assert agent.machine.base.epoch in (silent, silent - 1, 0)
        run_epoch(pool)
        pool.down = set()
        pool.step()  # the one that was away holds attests and proposal of nothing: it takes the checkpoint
        agent = pool.agents[silent]
        assert agent.machine.wanted
        other = pool.agents[(silent + 1) % 4]
        agent.machine.handle(CheckpointArrived(other.settled[-1]))
        assert agent.machine.base.payload_hash == pool.chain.landed.payload_hash


def test_two_of_four_silent_stalls_and_settles_when_they_return() -> None:
    pool = Pool(4)
    write_work(pool)
    pool.down = {0, 1}
    for _ in range(60):
        pool.step()
    assert pool.chain.landed.epoch == 0
    progress = pool.agents[2].machine.progress()
    assert progress is not None
    assert set(progress.unseen) == {key(i).public for i in (0, 1)}
    assert progress.leader in {key(i).public for i in range(4)}
    assert len(progress.unattested) == 4, "of less than a quorum nothing can be proposed"
    pool.down = set()
    for _ in range(60):
        pool.step()
        pool.exchange()
    assert pool.chain.landed.epoch >= 1


def test_without_any_gossip_the_exchange_alone_settles_the_epoch() -> None:
    pool = Pool(4)
    write_work(pool)
    lost = pool.agents[0].machine.messages(1)
    assert lost == ()
    for _ in range(80):
        pool.chain.now_s += 5
        for agent in pool.agents:
            for action in agent.advance(pool.chain):
                if isinstance(action, Finalize):
                    pool.chain.finalize(action.epoch)
                elif isinstance(action, Submit):
                    pool.chain.submit(action)
        pool.exchange()
    assert pool.chain.landed.epoch >= 2


def test_persist_comes_before_publish() -> None:
    pool = Pool(4)
    write_work(pool)
    published = 0
    for _ in range(60):
        pool.chain.now_s += 5
        for agent in pool.agents:
            actions = agent.advance(pool.chain)
            durable: set[bytes] = set()
            for action in actions:
                if isinstance(action, Persist):
                    durable |= {message.wire for message in action.messages}
                elif isinstance(action, Publish):
                    published += 1
                    assert action.message.wire in durable
            for action in actions:
                if isinstance(action, Publish):
                    for other in pool.agents:
                        if other is not agent:
                            other.hear(action.message)
        pool.chain.finalize(pool.chain.epoch)
    assert published >= 8


def test_a_proposal_with_a_wrong_root_is_refused_by_everyone() -> None:
    pool = Pool(4)
    write_work(pool)
    liar: list[int] = []
    refused: list[Refused] = []

    def tamper(sender: int, message: object) -> object:
        if isinstance(message, Proposal) and message.view == 0:
            liar.append(sender)
            return make_proposal(
                key(sender),
                POOL,
                epoch=message.epoch,
                view=0,
                set_id=message.set_id,
                listed=message.listed,
                cert_hash=bytes(32),
            )
        return message

    pool.tamper = tamper
    for agent in pool.agents:
        handle = agent.machine.handle

        def spy(event: object, handle=handle) -> list:
            actions = handle(event)
            refused.extend(a for a in actions if isinstance(a, Refused))
            return actions

        agent.machine.handle = spy
    run_epoch(pool)
    assert liar
    assert len(refused) == 3
    assert pool.chain.landed.epoch == 1


def test_the_settled_payload_is_what_an_auditor_recomputes_from_the_listed_observations() -> None:
    pool = Pool(4)
    said: list[object] = []

    def listen(_sender: int, message: object) -> object:
        said.append(message)
        return message

    pool.tamper = listen
    write_work(pool)
    run_epoch(pool)
    observations = {m.digest: m for m in said if isinstance(m, Observation)}
    proposal = next(m for m in said if isinstance(m, Proposal))
    logs = log_book(4)
    fill(logs, [record for author in reversed(pool.authors) for record in author.records])
    listed = [observations[item.digest] for item in proposal.listed]
    audited = settle(frame(4), Base(), listed, logs, verdict)
    assert audited.payload == pool.chain.payloads[0]
    assert {m.cert_hash for m in said if isinstance(m, Attest)} == {proposal.cert_hash}


def test_a_restarted_node_reads_its_messages_back_and_does_not_observe_twice() -> None:
    pool = Pool(4)
    write_work(pool)
    agent = pool.agents[0]
    said: list[object] = []
    pool.tamper = lambda sender, message: (said.append((sender, message)), message)[1]
    while not any(sender == 0 for sender, _ in said):
        pool.step()
    again = Agent(0, 4)
    fill(again.logs, [record for author in pool.authors for record in author.records])
    again.machine.restore([message for sender, message in said if sender == 0])
    actions = again.advance(pool.chain)
    assert not [a for a in actions if isinstance(a, Publish) and isinstance(a.message, Observation)]
    assert again.machine.progress().observations == 1
    assert agent.machine.progress().observations >= 1


def test_epoch_without_work_settles_and_pays_nobody() -> None:
    pool = Pool(4)
    run_epoch(pool)
    assert pool.chain.payloads[0].total_earned_nanoton == 0
    assert pool.chain.payloads[0].count == 4
    assert pool.chain.now_s - frame(4).end_s < EPOCH_S


def test_a_settlement_that_waits_for_an_anchor_is_computed_again_when_it_comes_and_not_before() -> None:
    pool = Pool(1)
    write_work(pool)
    agent, asked = pool.agents[0], 0

    def judge(*arguments: object) -> object:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise DataUnavailableError("not confirmed yet", frozenset({ANCHOR}))
        return verdict(*arguments)

    agent.machine._verdict = judge
    while not asked:
        pool.step()
    for _ in range(20):
        assert agent.machine.wanted == {ANCHOR}
        agent.machine.handle(RecordsArrived())
        pool.step(seconds=1)
    assert asked == 1
    said = agent.machine.handle(DataArrived())
    assert asked == 2
    assert [type(action.message) for action in said if isinstance(action, Publish)] == [Proposal, Attest]
    assert agent.machine.wanted == frozenset()


ANCHOR = Anchor(seqno=1, root_hash=bytes(32), time_s=0)
