"""The status machine of a registry entry, in full: each situation, each operation, what comes of it."""

from __future__ import annotations

import pytest

from contracts.model import ParticipantStatus
from contracts.opcodes import Refusal
from tests.contracts.machines import participant_outcomes
from tests.contracts.registry_cases import OPERATIONS, SITUATIONS, Outcome

# Statuses are in small letters, refusals in capitals.
MEANING: dict[str, Outcome] = {
    "act": ParticipantStatus.ACTIVE,
    "inact": ParticipantStatus.INACTIVE,
    "susp": ParticipantStatus.SUSPENDED,
    "withd": ParticipantStatus.WITHDRAWING,
    "gone": None,
    "BELOW": Refusal.STAKE_BELOW_MINIMUM,
    "HELD": Refusal.STILL_HELD,
    "LOCK": Refusal.WITHDRAWAL_LOCKED,
    "FREE": Refusal.NOTHING_HELD,
    "NONE": Refusal.NOTHING_STAKED,
    "NOASK": Refusal.NO_WITHDRAWAL,
    "OVER": Refusal.OVER_STAKE,
    "SUSP": Refusal.SUSPENDED,
    "TAKEN": Refusal.ALREADY_REGISTERED,
}
# One column per situation, in the order of SITUATIONS.
TABLE = """
                     | 1     2     3     4     5     6     7     8     9     10    11    12    13    14    15
increase a little    | act   act   inact inact inact withd withd withd withd susp  susp  susp  susp  inact susp
increase enough      | act   act   act   inact inact withd withd withd withd susp  susp  susp  susp  inact susp
ask for one nanoTON  | act   BELOW BELOW OVER  OVER  OVER  OVER  BELOW BELOW susp  OVER  BELOW OVER  OVER  OVER
ask for the minimum  | act   withd OVER  OVER  OVER  OVER  OVER  OVER  withd susp  OVER  OVER  OVER  OVER  OVER
ask for the rest     | withd withd withd NONE  NONE  NONE  NONE  withd withd susp  NONE  susp  NONE  NONE  NONE
cancel               | NOASK act   NOASK act   act   act   inact act   act   SUSP  SUSP  SUSP  SUSP  NOASK SUSP
complete at once     | NOASK LOCK  NOASK LOCK  gone  LOCK  LOCK  LOCK  LOCK  NOASK LOCK  NOASK NOASK NOASK LOCK
complete             | NOASK act   NOASK inact gone  gone  inact inact act   NOASK gone  NOASK NOASK NOASK gone
slash a share        | act   inact inact inact inact withd withd withd withd susp  susp  susp  NONE  NONE  susp
slash all            | inact inact inact inact inact inact inact inact inact susp  susp  susp  NONE  NONE  susp
cancel the slash     | FREE  FREE  act   act   FREE  FREE  withd FREE  FREE  FREE  FREE  susp  susp  act   FREE
sweep at once        | FREE  FREE  HELD  HELD  FREE  FREE  HELD  FREE  FREE  FREE  FREE  HELD  HELD  HELD  FREE
sweep                | FREE  FREE  inact inact FREE  FREE  withd FREE  FREE  FREE  FREE  susp  gone  gone  FREE
set the reputation   | act   act   inact inact inact withd withd withd withd susp  susp  susp  susp  inact susp
suspend              | susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp
lift the suspension  | act   act   inact withd withd withd withd inact act   act   withd inact inact inact withd
remove               | susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp  susp
heartbeat            | act   act   inact inact inact withd withd withd withd susp  susp  susp  susp  inact susp
change the worker    | act   act   inact inact inact withd withd withd withd susp  susp  susp  susp  inact susp
replace the node key | act   act   inact inact inact withd withd withd withd susp  susp  susp  susp  inact susp
register again       | TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN TAKEN
"""


def columns() -> list[dict[str, Outcome]]:
    """The table by situation: for each operation what comes of it."""
    rows = [line.split("|") for line in TABLE.strip("\n").splitlines()[1:]]
    outcomes = {operation.strip(): [MEANING[word] for word in words.split()] for operation, words in rows}
    by_situation = zip(*outcomes.values(), strict=True)
    return [dict(zip(outcomes, column, strict=True)) for column in by_situation]


@pytest.mark.parametrize(("situation", "expected"), list(zip(SITUATIONS, columns(), strict=True)), ids=list(SITUATIONS))
def test_status_machine(situation: str, expected: dict[str, Outcome]) -> None:
    assert set(expected) == set(OPERATIONS)
    assert {operation: after for operation, (_, after) in participant_outcomes(situation).items()} == expected
