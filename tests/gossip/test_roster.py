"""The roster: whom a node stays connected with, and how much of the operators' weight it reaches."""

from __future__ import annotations

from gossip.roster import Roster

A, B, C, OLD, P, Q = (letter.encode() * 32 for letter in "abcopq")
ROSTER = Roster(
    weights={A: 1, B: 2, C: 3}, operators=frozenset({A, B, C, OLD}), participants=frozenset({A, B, C, OLD, P, Q})
)


def test_operators_stay_connected_with_everybody() -> None:
    assert ROSTER.peers_of(A) == {B, C, OLD, P, Q}
    assert ROSTER.peers_of(OLD) == {A, B, C, P, Q}


def test_participants_stay_connected_with_the_operators_alone() -> None:
    assert ROSTER.peers_of(P) == {A, B, C, OLD}
    assert ROSTER.peers_of(b"s" * 32) == {A, B, C, OLD}  # not registered yet


def test_an_operator_that_left_the_registry_is_a_member_still() -> None:
    roster = Roster(operators=frozenset({A, OLD}), participants=frozenset({A, P}))
    assert roster.members == {A, OLD, P}
    assert roster.peers_of(A) == {OLD, P}


def test_the_weight_in_reach_counts_the_node_itself_and_operators_of_today() -> None:
    assert ROSTER.reach(A, [B, P, OLD]) == (3, 6)
    assert ROSTER.reach(P, [B, C]) == (5, 6)
    assert ROSTER.reach(P, []) == (0, 6)
    assert Roster().reach(A, [B]) == (0, 0)
