"""The list of faults, held against the doctor, the alert rules and what brings the faults about; nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agent.doctor.diagnosis import CHECKS
from agent.doctor.findings import Severity
from tests.faults import hands_cocoon, hands_entry, hands_host, hands_pool, hands_work
from tests.faults.catalogue import FAULTS
from tests.faults.fault import Fault
from tests.faults.hands import HANDS
from tests.faults.page import PAGE, page

RULES = Path(__file__).parents[2] / "packaging" / "prometheus" / "gpupool.rules.yml"
REGISTERED = (hands_cocoon, hands_entry, hands_host, hands_pool, hands_work)
WANTED = """wrong clock, full disk, chain down, liteserver lying, engine down, engine reset, GPU lost, evidence expired,
collateral stale, policy mismatch, wrong pool, unregistered, suspended, no stake, empty wallet, wrong key permissions,
duplicate key, port taken, firewall one-way, no peers, peers behind, quorum unreachable, old version, database locked,
database corrupt, worker contract unset, uplink down, public control port, memory limit, clock step back"""

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def test_there_are_thirty_and_no_other() -> None:
    wanted = {name.strip() for name in WANTED.replace("\n", " ").split(",")}
    assert len(FAULTS) == len(wanted) == 30
    assert {fault.name for fault in FAULTS} == wanted


def test_each_can_be_brought_about() -> None:
    assert set(HANDS) == {fault.name for fault in FAULTS}, f"registered by {len(REGISTERED)} modules"


@each_fault
def test_the_doctor_has_a_check_for_it(fault: Fault) -> None:
    worst = [check.severity for check in CHECKS if check.code == fault.code]
    assert len(worst) == 1
    assert fault.severity in (Severity.PROBLEM, Severity.WARNING, Severity.NOTE)


@each_fault
def test_it_alerts_or_costs_nothing(fault: Fault) -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = {rule["alert"] for group in groups for rule in group["rules"]}
    assert set(fault.alerts) <= rules
    assert bool(fault.alerts) is not bool(fault.free), "an alert, or a reason why there is none"
    assert fault.alerts or fault.severity is not Severity.PROBLEM, "a problem costs money"


def test_the_page_is_the_list() -> None:
    assert PAGE.read_text() == page(), "python -m tests.faults.page"
