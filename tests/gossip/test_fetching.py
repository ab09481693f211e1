"""Whom to ask for what: many at once, each peer once, what decisions wait for first, and nothing for ever."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gossip.epoch_events import Anchor, ObjectId
from gossip.fetching import (
    ANNOUNCED_PER_OPERATOR_MAX,
    BACKOFF_MAX_S,
    FETCHES_MAX,
    GAP_SPACING_S,
    NOTHING,
    NOTICE_TRIES,
    NOTICES_OF_OUTSIDERS_MAX,
    NOTICES_PER_OPERATOR_MAX,
    NOTICES_PER_OUTSIDER_MAX,
    SHUN_S,
    Fetch,
    FetchPlan,
    Hints,
    Item,
)
from gossip.log_chain import Head, Log, RecordRange
from gossip.sync import RANGES_MAX

PEERS = tuple(bytes([i]) * 32 for i in range(20))


def plan() -> FetchPlan:
    return FetchPlan(random.Random(7))


def thing(i: int, kind: str = "observation") -> ObjectId:
    return ObjectId(kind=kind, id=i.to_bytes(32, "big"))


def part(i: int, last: int = 9) -> RecordRange:
    return RecordRange(i.to_bytes(32, "big"), 1, last)


def items_of(fetches: Sequence[Fetch]) -> set[Item]:
    return {item for fetch in fetches for item in fetch.items}


def test_as_many_as_allowed_are_asked_at_once_each_peer_for_something_else() -> None:
    made = plan().next([thing(i) for i in range(50)], NOTHING, PEERS, 0)
    assert len(made) == FETCHES_MAX == len({fetch.peer for fetch in made}) == len(items_of(made))


def test_a_peer_that_is_silent_holds_up_its_own_request_alone() -> None:
    fetching = plan()
    wanted: list[Item] = [thing(i) for i in range(30)]
    silent = fetching.next(wanted, NOTHING, PEERS, 0)[0]
    while left := [item for item in wanted if item not in silent.items]:
        under_way = list(fetching._under_way.values())
        for fetch in under_way:
            if fetch is not silent:
                fetching.done(fetch, 0, has_brought=True)
                wanted.remove(fetch.items[0])
        made = fetching.next(wanted, NOTHING, PEERS, 0)
        assert silent.peer not in {fetch.peer for fetch in made}
        assert not items_of(made) & set(silent.items)
        assert made or not left[FETCHES_MAX:]
    assert wanted == list(silent.items)


def test_a_peer_that_failed_is_left_alone_unless_there_is_no_other() -> None:
    fetching = plan()
    (fetch,) = fetching.next([thing(1)], NOTHING, PEERS[:2], 0)
    fetching.done(fetch, 0, has_brought=False, has_failed=True)
    for now_s in range(1, 6):
        (again,) = fetching.next([thing(1)], NOTHING, PEERS[:2], now_s)
        assert again.peer != fetch.peer
        fetching.done(again, now_s, has_brought=False)
    (only,) = fetching.next([thing(1)], NOTHING, [fetch.peer], 6)
    assert only.peer == fetch.peer
    fetching.done(only, 6, has_brought=False)
    assert len(fetching.next([thing(2), thing(3)], NOTHING, PEERS[:2], SHUN_S)) == 2


def test_ranges_of_many_logs_are_shared_out_in_few_requests() -> None:
    wanted = [part(i) for i in range(1000)]
    made = plan().next(wanted, NOTHING, PEERS, 0)
    assert items_of(made) == set(wanted)
    assert len(made) == FETCHES_MAX
    assert all(len(fetch.items) <= RANGES_MAX and not fetch.is_whole for fetch in made)


def test_heads_of_nothing_do_not_keep_back_objects_that_exist() -> None:
    fetching, wanted, asked = plan(), [*(part(i) for i in range(1000)), thing(1)], set()
    for now_s in range(10):
        made = fetching.next(wanted, NOTHING, PEERS, now_s)
        asked |= items_of(made)
        for fetch in made[:2]:
            fetching.done(fetch, now_s, has_brought=False)
    assert thing(1) in asked


def test_what_was_not_brought_is_fetched_whole_one_at_a_time() -> None:
    fetching, wanted = plan(), [part(i) for i in range(40)]
    for fetch in fetching.next(wanted, NOTHING, PEERS, 0):
        fetching.done(fetch, 0, has_brought=False)
    made = fetching.next(wanted, NOTHING, PEERS, 1)
    assert [fetch.is_whole for fetch in made] == [True]
    assert len(made[0].items) == 1
    assert not fetching.next(wanted, NOTHING, PEERS, 2)


def test_what_nobody_has_is_asked_for_ever_more_seldom() -> None:
    fetching, now_s, asked = plan(), 0.0, 0
    while now_s < 3600:
        for fetch in fetching.next([thing(1)], NOTHING, PEERS, now_s):
            asked += 1
            fetching.done(fetch, now_s, has_brought=False)
        now_s += 0.25
    assert 3600 / BACKOFF_MAX_S <= asked <= 3600 / BACKOFF_MAX_S + 30


def test_what_only_the_chain_knows_is_asked_of_no_peer() -> None:
    assert not plan().next([Anchor(seqno=1, root_hash=bytes(32), time_s=0)], NOTHING, PEERS, 0)


def test_hints_take_half_of_the_places_and_come_after_what_decisions_wait_for() -> None:
    heard_of: dict[Item, bytes | None] = {thing(i): PEERS[i] for i in range(20)}
    assert len(plan().next([], heard_of, PEERS, 0)) == FETCHES_MAX // 2
    made = plan().next([thing(100 + i) for i in range(FETCHES_MAX)], heard_of, PEERS, 0)
    assert not any(fetch.is_hint for fetch in made)


def test_what_operators_announced_comes_before_what_peers_claim() -> None:
    heard_of: dict[Item, bytes | None] = {thing(i): PEERS[i % 20] for i in range(1000)}
    announced: dict[Item, bytes | None] = {thing(2000 + i): PEERS[i] for i in range(FETCHES_MAX // 2)}
    made = plan().next([], heard_of, PEERS, 0, announced=announced)
    assert {fetch.items[0]: fetch.peer for fetch in made} == announced


def test_peers_that_failed_are_not_good_unless_all_of_them_failed() -> None:
    fetching = plan()
    fetching.shun(PEERS[0], 0)
    assert fetching.good(PEERS[:2], SHUN_S - 1) == [PEERS[1]]
    assert fetching.good(PEERS[:1], SHUN_S - 1) == PEERS[:1]
    assert fetching.good(PEERS[:2], SHUN_S) == list(PEERS[:2])


def test_whoever_said_that_it_has_something_is_asked_for_it() -> None:
    made = plan().next([], {thing(1): PEERS[3], thing(2): PEERS[5]}, PEERS, 0)
    assert {fetch.items[0]: fetch.peer for fetch in made} == {thing(1): PEERS[3], thing(2): PEERS[5]}


def test_a_hint_that_leads_nowhere_is_counted_even_if_the_peer_fails() -> None:
    fetching = plan()
    heard_of: dict[Item, bytes | None] = {thing(1): PEERS[3]}
    for now_s in range(NOTICE_TRIES):
        (fetch,) = fetching.next([], heard_of, PEERS, now_s)
        fetching.done(fetch, now_s, has_brought=False, has_failed=True)
    assert fetching.tries(thing(1)) == NOTICE_TRIES


@given(st.lists(st.sampled_from(["next", "brought", "nothing", "failed"]), max_size=60), st.integers(0, 9))
def test_no_peer_and_no_item_is_ever_asked_twice_at_once(course: list[str], connected: int) -> None:
    fetching, under_way = plan(), list[Fetch]()
    wanted = [*(thing(i) for i in range(9)), *(part(i) for i in range(9))]
    for step, what in enumerate(course):
        if what == "next":
            under_way += fetching.next(wanted[step % 5 :], {thing(50): None}, PEERS[:connected], step)
        elif under_way:
            fetch = under_way.pop(step % len(under_way))
            fetching.done(fetch, step, has_brought=what == "brought", has_failed=what == "failed")
        peers = [fetch.peer for fetch in under_way]
        items = [item for fetch in under_way for item in fetch.items]
        assert len(peers) == len(set(peers)) <= FETCHES_MAX
        assert len(items) == len(set(items))


# Hints.


def test_a_source_of_many_notices_fills_its_own_share() -> None:
    hints = Hints()
    for i in range(2 * NOTICES_PER_OPERATOR_MAX):
        hints.note_observation(i.to_bytes(32, "big"), PEERS[0], is_operator=True)
    assert len(hints.notices) == NOTICES_PER_OPERATOR_MAX
    hints.note_observation(b"\xff" * 32, PEERS[1], is_operator=True)
    assert hints.notices[b"\xff" * 32] == PEERS[1]


def test_all_who_are_no_operators_keep_no_operator_from_being_heard() -> None:
    hints = Hints()
    for source in range(1000):
        for i in range(2 * NOTICES_PER_OUTSIDER_MAX):
            digest = source.to_bytes(16, "big") + i.to_bytes(16, "big")
            hints.note_observation(digest, source.to_bytes(32, "big"), is_operator=False)
    assert len(hints.notices) == NOTICES_OF_OUTSIDERS_MAX
    taken = next(iter(hints.notices))
    for digest in (taken, b"\xff" * 32):
        hints.note_observation(digest, PEERS[1], is_operator=True)
        assert hints.notices[digest] == PEERS[1], "an operator's word stands before an outsider's"


def test_an_announcement_is_kept_however_much_others_claim() -> None:
    hints = Hints()
    for i in range(20 * NOTICES_PER_OPERATOR_MAX):
        hints.note_observation(i.to_bytes(32, "big"), PEERS[i % 20], is_operator=True)
    hints.note_announced(b"\xff" * 32, PEERS[0])
    hints.note_announced(b"\xff" * 32, PEERS[1])
    assert hints.announced == {b"\xff" * 32: PEERS[0]}
    hints.disappoint(b"\xff" * 32, PEERS[0])
    assert hints.announced == {b"\xff" * 32: PEERS[1]}, "who claims another's observation does not lose it that"


def test_whoever_does_not_have_what_it_claimed_loses_all_that_it_claimed() -> None:
    hints = Hints()
    for i in range(10):
        hints.note_observation(i.to_bytes(32, "big"), PEERS[i % 2], is_operator=False)
    hints.disappoint(bytes(32), PEERS[1])
    assert len(hints.notices) == 10, "it never said that it has that one"
    hints.disappoint(bytes(32), PEERS[0])
    assert set(hints.notices.values()) == {PEERS[1]}


def test_attachments_are_wanted_until_they_are_here_or_given_up() -> None:
    hints = Hints()
    hints.note_attachments(PEERS[0], frozenset({PEERS[2], PEERS[3]}))
    hints.note_attachments(PEERS[1], frozenset({PEERS[3]}))
    hints.forget_attachment(PEERS[3])
    assert {wanted.id for wanted in hints.attachments} == {PEERS[2]}
    hints.forget_attachment(PEERS[2])
    assert not hints


def test_an_operator_that_announces_more_than_it_can_have_made_is_not_listened_to() -> None:
    hints = Hints()
    for i in range(3 * ANNOUNCED_PER_OPERATOR_MAX):
        hints.note_announced(i.to_bytes(32, "big"), PEERS[0])
        hints.forget_notice(bytes(32))
    assert len(hints.announced) == ANNOUNCED_PER_OPERATOR_MAX - 1, "what was fetched already counts"
    hints.forget_notices()
    hints.note_announced(bytes(32), PEERS[0])
    assert len(hints.announced) == 1


def test_gaps_of_one_log_are_asked_for_now_and_then() -> None:
    hints, log = Hints(), Log(part(1).node_key)
    for seq in range(5, 9):
        hints.note_gap(log, seq, 100)
    assert hints.take_gaps(100) == (part(1, 8),)
    hints.note_gap(log, 9, 100 + GAP_SPACING_S - 1)
    assert hints.take_gaps(100) == ()
    hints.note_gap(log, 9, 100 + GAP_SPACING_S)
    assert hints.take_gaps(110) == (part(1, 9),)
    assert not hints


def test_what_a_log_may_not_hold_yet_is_not_asked_for() -> None:
    """It would come, be checked, and wait: as often as its owner says more."""
    hints, log = Hints(), Log(part(1).node_key)
    log.settled_s = 100
    hints.note_gap(log, 10**6, 100)
    assert hints.take_gaps(100) == (part(1, log.seq_wanted(100)),)
    log.rebase(Head(7, bytes(32)), 0)
    hints.note_gap(log, 5, 200)
    assert hints.take_gaps(200) == (), "it is settled"
