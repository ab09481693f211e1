"""TCB evaluation: which level counts, how module and QE bear on it, when a relaunch is advised."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from attestation.errors import TcbLevelNotFoundError, TcbRevokedError
from attestation.types import TcbStatus

OLD = "2020-01-01T00:00:00Z"
OLD_S = 1_577_836_800


def status_of(forge: Any, edit_tcb: Any = None, edit_qe: Any = None, signed: bytes | None = None) -> TcbStatus:
    def nothing(tree: dict[str, Any]) -> None:
        del tree

    collateral = forge.collateral(edit_tcb or nothing, edit_qe or nothing)
    status: TcbStatus = forge.verify(forge.quote(signed), collateral).status
    return status


def rate(tree: dict[str, Any], status: str, *advisories: str) -> None:
    tree["tcbLevels"][0].update(tcbStatus=status, advisoryIDs=list(advisories), tcbDate=OLD)


def module_of(tree: dict[str, Any]) -> dict[str, Any]:
    module: dict[str, Any] = tree["tdxModuleIdentities"][0]
    return module


GOOD = ["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"]
BAD = ["OutOfDate", "OutOfDateConfigurationNeeded"]
AGED = dict(zip(GOOD + BAD, [BAD[0], BAD[0], BAD[1], BAD[1], *BAD], strict=True))


@pytest.mark.parametrize("status", GOOD + BAD)
def test_the_platforms_status_stands_when_the_rest_is_up_to_date(forge: Any, status: str) -> None:
    assert status_of(forge, lambda tree: rate(tree, status)) == status


@pytest.mark.parametrize("status", GOOD + BAD)
def test_an_old_module_or_qe_makes_it_out_of_date(forge: Any, status: str) -> None:
    def both(tree: dict[str, Any]) -> None:
        rate(tree, status)
        rate(module_of(tree), "OutOfDate")

    assert status_of(forge, both) == AGED[status]
    assert status_of(forge, lambda tree: rate(tree, status), lambda tree: rate(tree, "OutOfDate")) == AGED[status]


def test_advisories_are_united_and_the_oldest_date_counts(forge: Any) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["tcbLevels"][0]["advisoryIDs"] = ["B", "A"]
        rate(module_of(tree), "UpToDate", "C", "A")

    verified = forge.verify(
        collateral=forge.collateral(edit, lambda tree: tree["tcbLevels"][0].update(advisoryIDs=["D"]))
    )
    assert (verified.advisories, verified.tcb_date_s) == (("A", "B", "C", "D"), OLD_S)


def test_the_highest_level_reached_counts_in_whatever_order_they_stand(forge: Any) -> None:
    def edit(tree: dict[str, Any]) -> None:
        best = tree["tcbLevels"][0]
        unreachable, lower = copy.deepcopy(best), copy.deepcopy(best)
        unreachable["tcb"]["pcesvn"] += 1
        unreachable["tcbStatus"] = "ConfigurationNeeded"
        lower["tcb"]["sgxtcbcomponents"][0]["svn"] -= 1
        lower["tcbStatus"] = "OutOfDate"
        tree["tcbLevels"] = [lower, best, unreachable]

    assert status_of(forge, edit) is TcbStatus.UP_TO_DATE


def test_module_and_qe_levels_are_taken_from_the_top(forge: Any) -> None:
    def edit(tree: dict[str, Any]) -> None:
        low = copy.deepcopy(tree["tcbLevels"][0])
        low["tcb"]["isvsvn"] = 0
        low["tcbStatus"] = "Revoked"
        tree["tcbLevels"].insert(0, low)

    assert status_of(forge, lambda tree: edit(module_of(tree)), edit) is TcbStatus.UP_TO_DATE


def test_the_modules_components_are_not_compared_with_the_platforms(forge: Any) -> None:
    """TEE_TCB_SVN[1] > 0: components 0 and 1 are the module's, and its own level decides."""

    def edit(tree: dict[str, Any]) -> None:
        for component in tree["tcbLevels"][0]["tcb"]["tdxtcbcomponents"][:2]:
            component["svn"] = 255

    assert status_of(forge, edit) is TcbStatus.UP_TO_DATE


def test_a_module_of_version_0_is_compared_with_the_platforms_components(forge: Any) -> None:
    signed = forge.signed(tee_tcb_svn=bytes([5, 0, 2]) + bytes(13))

    def reach(tree: dict[str, Any]) -> None:
        tree["tcbLevels"][0]["tcb"]["tdxtcbcomponents"][1]["svn"] = 0
        tree["tdxModuleIdentities"] = []

    def miss(tree: dict[str, Any]) -> None:
        reach(tree)
        tree["tcbLevels"][0]["tcb"]["tdxtcbcomponents"][0]["svn"] = 6

    assert status_of(forge, reach, signed=signed) is TcbStatus.UP_TO_DATE
    with pytest.raises(TcbLevelNotFoundError):
        status_of(forge, miss, signed=signed)


def old_launch(tree: dict[str, Any]) -> None:
    """Component 2 of the TDX TCB: 2 is out of date, 3 is up to date; 1 is revoked."""
    good = tree["tcbLevels"][0]
    good["tcb"]["tdxtcbcomponents"][2]["svn"] = 3
    for svn, status in [(2, "OutOfDate"), (1, "Revoked")]:
        level = copy.deepcopy(good)
        level["tcb"]["tdxtcbcomponents"][2]["svn"] = svn
        level["tcbStatus"] = status
        tree["tcbLevels"].append(level)


def svn(component: int) -> bytes:
    return bytes([5, 1, component]) + bytes(13)


@pytest.mark.parametrize(
    ("launch", "current", "good", "expected"),
    [
        (2, 3, "UpToDate", "TDRelaunchAdvised"),
        (2, 3, "SWHardeningNeeded", "TDRelaunchAdvised"),
        (2, 3, "ConfigurationNeeded", "TDRelaunchAdvisedConfigurationNeeded"),
        (2, 2, "UpToDate", "OutOfDate"),
        (3, 3, "UpToDate", "UpToDate"),
        (3, 2, "UpToDate", "UpToDate"),
    ],
)
def test_relaunch(forge: Any, launch: int, current: int, good: str, expected: str) -> None:
    def edit(tree: dict[str, Any]) -> None:
        old_launch(tree)
        tree["tcbLevels"][0]["tcbStatus"] = good

    signed = forge.signed_v5(tee_tcb_svn=svn(launch), tee_tcb_svn2=svn(current))
    assert status_of(forge, edit, signed=signed) == expected


@pytest.mark.parametrize(("current", "error"), [(1, TcbRevokedError), (0, TcbLevelNotFoundError)])
def test_a_platform_that_fell_below_is_refused(forge: Any, current: int, error: type[Exception]) -> None:
    signed = forge.signed_v5(tee_tcb_svn=svn(3), tee_tcb_svn2=svn(current))
    with pytest.raises(error):
        status_of(forge, old_launch, signed=signed)


def test_a_platform_whose_module_became_an_unlisted_one_is_refused(forge: Any) -> None:
    signed = forge.signed_v5(tee_tcb_svn2=bytes([5, 9, 2]) + bytes(13))
    with pytest.raises(TcbLevelNotFoundError, match="version 9"):
        status_of(forge, signed=signed)


def test_v5_may_carry_a_body_of_version_1_0(forge: Any) -> None:
    body = forge.signed()[48:]
    header = forge.signed_v5()[:48]
    signed = header + (2).to_bytes(2, "little") + len(body).to_bytes(4, "little") + body
    assert forge.verify(forge.quote(signed)).td == forge.verify().td
