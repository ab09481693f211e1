"""Acquaintances: on what terms peers are, what a mixed pool is told, and who else uses the own key."""

from __future__ import annotations

import pytest
from pool_fixture import POOL, key

from gossip import acquaintances as module
from gossip.acquaintances import RIVAL_SHOWN_S, TRIES, Acquaintances, Rift, Run, Terms
from gossip.errors import InvalidMessageError
from gossip.hello import SIGHTINGS_MAX, Hello, encode_hello, make_instance, parse_hello

NOW_S = 1_800_000_000
OPERATOR, SHARED = 0, 3
MEMBERS = [key(i).public for i in range(5)]


def agent(i: int, run: int = 1, started_s: int = NOW_S, ended: tuple[int, ...] = ()) -> Acquaintances:
    """What run `run` of participant `i` knows, to begin with."""
    this = Run(agent=f"agent/{run}", id=bytes([run]) * 16, started_s=started_s, ended=frozenset(ids(*ended)))
    made = Acquaintances(key(i), POOL, this, policies=lambda: [bytes(32)])
    made.keep_only(MEMBERS)
    return made


def ids(*runs: int) -> list[bytes]:
    return [bytes([run]) * 16 for run in runs]


def greet(asker: tuple[int, Acquaintances], answerer: tuple[int, Acquaintances], now_s: int) -> None:
    """One exchange of hellos, as it goes over a stream."""
    (i, one), (k, other) = asker, answerer
    answer, _ = other.answer(key(i).public, one.say(key(k).public, now_s), now_s, f"203.0.113.{i}:4001")
    one.take(key(k).public, answer, now_s, None)


def hello_of(i: int, protocols: tuple[int, ...] = (1,), tallies: tuple[int, ...] = (1,)) -> bytes:
    """The hello of a peer of other versions."""
    instance = make_instance(key(i), POOL, instance=bytes(16), started_s=NOW_S, said_s=NOW_S)
    return encode_hello(Hello(protocols=protocols, tallies=tallies, agent="other", policies=(), instance=instance))


# On what terms peers are.


def test_a_peer_is_asked_for_nothing_before_it_is_met() -> None:
    one, peer = agent(0), key(1).public
    assert (one.terms(peer), one.is_asked(peer)) == (Terms.UNMET, False)
    one.take(peer, hello_of(1), NOW_S, None)
    assert (one.terms(peer), one.is_asked(peer)) == (Terms.FELLOW, True)


def test_a_peer_that_says_no_hello_is_worked_with_all_the_same() -> None:
    one, peer = agent(0), key(1).public
    for _ in range(TRIES):
        assert not one.is_asked(peer)
        one.fail(peer)
    assert (one.terms(peer), one.is_asked(peer)) == (Terms.SILENT, True)
    one.take(peer, hello_of(1), NOW_S, None)
    one.fail(peer)
    assert one.terms(peer) is Terms.FELLOW, "it was met already"


def test_a_peer_of_another_protocol_is_refused_and_one_that_speaks_both_is_not() -> None:
    one = agent(0)
    one.take(key(1).public, hello_of(1, protocols=(2,)), NOW_S, None)
    one.take(key(2).public, hello_of(2, protocols=(1, 2)), NOW_S, None)
    assert (one.terms(key(1).public), one.is_asked(key(1).public)) == (Terms.OTHER_PROTOCOL, False)
    assert one.is_asked(key(2).public)


def test_only_members_are_remembered_and_strangers_are_answered() -> None:
    one, stranger = agent(0), key(9)
    answer, is_another = one.answer(stranger.public, hello_of(9), NOW_S, None)
    assert parse_hello(answer, POOL, peer=key(0).public, own=stranger.public).agent == "agent/1"
    one.fail(stranger.public)
    assert (one.terms(stranger.public), is_another, one.agents().total()) == (Terms.UNMET, False, 0)


def test_who_left_is_forgotten() -> None:
    one = agent(0)
    one.take(key(1).public, hello_of(1), NOW_S, None)
    one.fail(key(2).public)
    one.keep_only([])
    assert (one._hellos, one._failed, one._instances) == ({}, {}, {})


# Mixed pools.

WEIGHTS = {key(0).public: 1, key(1).public: 1, key(2).public: 1, key(4).public: 1}


@pytest.mark.parametrize(
    ("apart", "stops"), [((1,), False), ((1, 2), True), ((1, 2, 4), True)], ids=["a quarter", "half", "all others"]
)
def test_operators_of_another_tally_are_told_of_before_an_epoch_fails(apart: tuple[int, ...], stops: bool) -> None:
    one = agent(0)
    for i in (1, 2, 4):
        one.take(key(i).public, hello_of(i, tallies=(2,) if i in apart else (1, 2)), NOW_S, None)
    rift = Rift(what="tally", weight=len(apart), newer_weight=len(apart), total_weight=4, theirs=(2,), ours=(1,))
    assert one.rifts(WEIGHTS) == (rift,)
    assert (rift.stops, rift.is_outdated) == (stops, stops), "one alone may name whatever version it likes"


def test_among_operators_that_lag_a_liar_does_not_make_this_agent_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TALLIES", (2,))
    one = agent(0)
    for i, tally in ((1, 1), (2, 1), (4, 65_535)):
        one.take(key(i).public, hello_of(i, tallies=(tally,)), NOW_S, None)
    (rift,) = one.rifts(WEIGHTS)
    assert (rift.weight, rift.newer_weight, rift.theirs) == (3, 1, (1, 65_535))
    assert (rift.stops, rift.is_outdated) == (True, False)


def test_a_newer_agent_sees_that_it_is_the_others_that_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROTOCOLS", (2,))
    monkeypatch.setattr(module, "TALLIES", (2,))
    one = agent(0)
    one.take(key(1).public, hello_of(1), NOW_S, None)
    assert [(rift.what, rift.is_outdated, rift.stops) for rift in one.rifts(WEIGHTS)] == [
        ("protocol", False, False),
        ("tally", False, False),
    ]


def test_two_versions_that_share_a_tally_are_no_rift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TALLIES", (1, 2))
    one, other = agent(0), agent(1)
    greet((0, one), (1, other), NOW_S)
    assert one.rifts(WEIGHTS) == () == other.rifts(WEIGHTS)
    assert one.agents() == {"agent/1": 1}


# The own key.


def meet(operator: Acquaintances, first: Acquaintances, second: Acquaintances, now_s: int) -> None:
    """Two hosts with the shared key greet one operator in turn, as connections push each other aside."""
    for asker in (first, second, first, second, first):
        greet((SHARED, asker), (OPERATOR, operator), now_s)


def test_two_hosts_are_told_of_each_other_by_one_honest_operator() -> None:
    operator, first, second = agent(OPERATOR, started_s=NOW_S - 900), agent(SHARED, 1, NOW_S - 500), agent(SHARED, 2)
    greet((SHARED, first), (OPERATOR, operator), NOW_S - 400)
    greet((SHARED, second), (OPERATOR, operator), NOW_S)
    assert second.has_suspect
    assert second.rival(NOW_S) is None, "it may be where this agent ran before it moved"
    meet(operator, first, second, NOW_S + 2)
    assert not first.must_yield(rival := first.rival(NOW_S + 2) or pytest.fail("the first host was not told"))
    assert rival.instance.id == second.run.id
    told = second.rival(NOW_S + 10)
    assert told is not None
    assert (told.instance.id, told.teller, told.address) == (first.run.id, key(OPERATOR).public, "203.0.113.3:4001")
    assert told.heard_s == NOW_S + 2
    assert second.must_yield(told)


def test_who_is_told_of_another_instance_is_to_greet_again_so_that_this_is_known() -> None:
    operator, first, second = agent(OPERATOR, started_s=NOW_S - 900), agent(SHARED, 1, NOW_S - 500), agent(SHARED, 2)
    greet((SHARED, second), (OPERATOR, operator), NOW_S)
    said = operator.say(key(SHARED).public, NOW_S)
    assert first.take(key(OPERATOR).public, said, NOW_S, None)
    assert not first.take(key(OPERATOR).public, said, NOW_S, None), "once is enough"


@pytest.mark.parametrize("wrong_s", [-3600, -600, -5, 5, 600, 3600])
@pytest.mark.parametrize("ended", [(), (1,)], ids=["after a reboot", "on the same journal"])
def test_a_clock_that_was_wrong_and_was_set_meanwhile_makes_no_rival_of_a_run_that_ended(
    wrong_s: int, ended: tuple[int, ...]
) -> None:
    """A clock that is behind at boot until it is set; one that ran ahead and was set back: nobody has to be told."""
    operator = agent(OPERATOR, started_s=NOW_S - 900)
    before = agent(SHARED, 1, NOW_S - 500)
    greet((SHARED, before), (OPERATOR, operator), NOW_S - 1)
    after = agent(SHARED, 2, NOW_S + wrong_s, ended=ended)
    for later_s in (1, 100, 10_000):
        greet((SHARED, after), (OPERATOR, operator), NOW_S + later_s)
        assert after.rival(NOW_S + later_s) is None


@pytest.mark.parametrize("wrong_s", [-100_000, -3600, 3600, 100_000])
def test_two_hosts_hear_of_each_other_whatever_their_clocks_show(wrong_s: int) -> None:
    operator, first, second = agent(OPERATOR), agent(SHARED, 1, NOW_S - 500), agent(SHARED, 2, NOW_S + wrong_s)
    for _ in range(3):
        greet((SHARED, first), (OPERATOR, operator), NOW_S)
        answer, _ = operator.answer(
            key(SHARED).public, second.say(key(OPERATOR).public, NOW_S + wrong_s), NOW_S, "203.0.113.9:4001"
        )
        second.take(key(OPERATOR).public, answer, NOW_S + wrong_s, None)
    ours, theirs = first.rival(NOW_S), second.rival(NOW_S + wrong_s)
    assert ours is not None
    assert theirs is not None
    assert first.must_yield(ours) != second.must_yield(theirs), "one of them goes on"


def test_what_proves_a_rival_is_kept_though_its_clock_was_set_back() -> None:
    one, other = agent(SHARED, 2), agent(SHARED, 1, NOW_S - 500)
    operator = agent(OPERATOR)
    greet((SHARED, other), (OPERATOR, operator), NOW_S)
    greet((SHARED, one), (OPERATOR, operator), NOW_S)
    greet((SHARED, other), (OPERATOR, operator), NOW_S - 200)
    greet((SHARED, other), (OPERATOR, operator), NOW_S - 200)
    greet((SHARED, one), (OPERATOR, operator), NOW_S)
    assert one.rival(NOW_S) is not None
    for run in range(10, 20):
        liar = agent(OPERATOR)
        greet((SHARED, agent(SHARED, run)), (OPERATOR, liar), NOW_S + run)
        greet((SHARED, one), (OPERATOR, liar), NOW_S + run)
    assert one.rival(NOW_S) is not None


def test_a_restart_on_the_same_journal_suspects_nobody() -> None:
    operator, before, after = (
        agent(OPERATOR, started_s=NOW_S - 900),
        agent(SHARED, 1, NOW_S - 500),
        agent(SHARED, 2, ended=(1,)),
    )
    greet((SHARED, before), (OPERATOR, operator), NOW_S - 1)
    greet((SHARED, after), (OPERATOR, operator), NOW_S + 10)
    assert not after.has_suspect
    assert after.rival(NOW_S + 10) is None


def test_a_copy_of_the_journal_does_not_hide_a_host_that_runs() -> None:
    """A machine that was cloned: the run that its journal names as the last one goes on elsewhere."""
    operator, first, clone = agent(OPERATOR, started_s=NOW_S - 900), agent(SHARED, 1, NOW_S - 500), agent(SHARED, 2)
    greet((SHARED, first), (OPERATOR, operator), NOW_S - 400)
    greet((SHARED, clone), (OPERATOR, operator), NOW_S)
    assert clone.has_suspect
    meet(operator, first, clone, NOW_S + 6)
    assert clone.rival(NOW_S + 6) is not None


def test_a_liar_cannot_stop_an_agent_by_what_its_key_said_before_it_started() -> None:
    liar, before, after = agent(OPERATOR, started_s=NOW_S - 900), agent(SHARED, 1, NOW_S - 500), agent(SHARED, 2)
    greet((SHARED, before), (OPERATOR, liar), NOW_S - 1)
    for later_s in (0, 10, 10_000):
        greet((SHARED, after), (OPERATOR, liar), NOW_S + later_s)
        assert after.rival(NOW_S + later_s) is None


def test_what_the_key_did_not_sign_is_no_sighting() -> None:
    liar = make_instance(key(OPERATOR), POOL, instance=bytes(16), started_s=NOW_S, said_s=NOW_S + 50)
    told = encode_hello(Hello(protocols=(1,), tallies=(1,), agent="liar", policies=(), instance=liar))
    claimed = told[:-1] + b"\x91\x93\xc4" + bytes([len(liar.wire)]) + liar.wire + b"\x00\xc0"
    with pytest.raises(InvalidMessageError, match="of another node key"):
        agent(SHARED).take(key(OPERATOR).public, claimed, NOW_S + 60, None)


def test_a_rival_that_nobody_heard_for_long_is_no_alarm_any_more() -> None:
    operator, first, second = agent(OPERATOR, started_s=NOW_S - 900), agent(SHARED, 1, NOW_S - 500), agent(SHARED, 2)
    meet(operator, first, second, NOW_S)
    assert first.rival(NOW_S + RIVAL_SHOWN_S - 1) is not None
    assert first.rival(NOW_S + RIVAL_SHOWN_S) is None


def test_an_operator_tells_of_few_runs_and_to_their_key_alone() -> None:
    operator = agent(OPERATOR)
    for run in range(1, 10):
        greet((SHARED, agent(SHARED, run)), (OPERATOR, operator), NOW_S + run)
    to_owner = parse_hello(
        operator.say(key(SHARED).public, NOW_S), POOL, peer=key(OPERATOR).public, own=key(SHARED).public
    )
    to_other = parse_hello(operator.say(key(1).public, NOW_S), POOL, peer=key(OPERATOR).public, own=key(1).public)
    assert [each.instance.id for each in to_owner.sightings] == ids(6, 7, 8, 9)
    assert len(operator._instances[key(SHARED).public]) == SIGHTINGS_MAX
    assert to_other.sightings == ()


def test_runs_of_the_own_key_that_are_remembered_are_few_and_the_newest() -> None:
    one = agent(SHARED, 200)
    for run in range(1, 20):
        operator = agent(OPERATOR)
        operator.take(key(SHARED).public, agent(SHARED, run).say(key(OPERATOR).public, NOW_S + run), NOW_S + run, None)
        greet((SHARED, one), (OPERATOR, operator), NOW_S + run)
    assert list(one._told) == ids(16, 17, 18, 19)
