"""`gpupool upgrade check`: what stands against a restart with the installed version, from what is seen alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent_on_disk import agent_on_disk, answering

from agent.cli import main
from agent.doctor import probing_files
from agent.doctor.facts import Unknown
from agent.doctor.findings import Finding, Severity
from agent.errors import DENIED, KeyDeniedError
from agent.identity import load_key
from agent.upgrade import verb
from agent.upgrade.checks import CHECKS, OF_THE_HOST, assess, missing_of_host, not_made
from agent.upgrade.facts import Facts, JournalFacts, Unusable, look_at_settings, read_running
from agent.upgrade.verb import CODES
from contracts import layout
from contracts.signing import SigningKey

NOW_S = 1_800_000_000
OWN, OTHERS = "aa" * 32, ("bb" * 32, "cc" * 32, "dd" * 32)
NEW_CODE = "12" * 32
JOURNAL = JournalFacts(schema=4, written_by="0.1.0", needed_bytes=100, free_bytes=1000, copies=())


def operator(node_key: str, weight: int = 1, versions: list[int] | None = None, **changes: Any) -> dict[str, Any]:
    """As `agent.versions` tells of one; this node itself, and one that was not met, say nothing."""
    told = {"agent": "gpupool-agent/0.1.0", "protocols": versions or [1], "tallies": versions or [1]}
    return {"node_key": node_key, "weight": weight, **(told if node_key != OWN else {}), **changes}


def status(**changes: Any) -> dict[str, Any]:
    """The status of an operator in a pool of four of one version, all connected."""
    operators = [operator(key) for key in (OWN, *OTHERS)]
    told: dict[str, Any] = {
        "version": "0.1.0",
        "node_key": OWN,
        "uptime_s": 500,
        "reach": {"weight": 4, "total_weight": 4},
        "versions": {"operators": operators, "key_in_use": None},
        "pool": {"proposals": []},
        "policies": [{"hash": "ee" * 32, "is_held": True, "epoch": 7}],
    }
    return told | changes


def facts(told: dict[str, Any] | None = None, **changes: Any) -> Facts:
    """Of an installed version 0.2.0 that computes what 0.1.0 did."""
    base = Facts(
        installed="0.2.0",
        protocols=(1,),
        tallies=(1,),
        schema=4,
        codes={"pool": NEW_CODE},
        unusable=(),
        journal=JOURNAL,
        running=read_running(told or status()),
        now_s=NOW_S,
    )
    return replace(base, **changes)


def found(given: Facts) -> dict[str, Finding]:
    return {finding.code: finding for finding in assess(given)}


def test_checks_that_were_not_made_are_named() -> None:
    assert not_made(assess(facts())) == []
    silent = status()
    del silent["pool"]
    assert not_made(assess(facts(silent))) == ["contract-upgrade"]
    others = [code for code in CHECKS if code not in OF_THE_HOST]
    assert not_made(assess(facts(running=Unknown("nobody")))) == others
    unread = not_made(assess(facts(running=Unknown("nobody"), journal=Unknown("none"))))
    assert unread == [code for code in CHECKS if code != "settings-unusable"]


def test_in_a_pool_of_one_version_nothing_stands_against_it() -> None:
    findings = found(facts())
    assert list(findings) == list(CHECKS)
    assert {code for code, each in findings.items() if each.severity is not Severity.OK} == {"version-differs"}
    assert findings["version-differs"].cause == "0.2.0 is installed, 0.1.0 runs"


def mixed(*versions: list[int] | None) -> dict[str, Any]:
    """The three other operators have these versions, None: not met yet."""
    operators = [operator(OWN)]
    for key, each in zip(OTHERS, versions, strict=True):
        silent = {"protocols": None, "tallies": None} if each is None else {}
        operators.append(operator(key, versions=each, **silent))
    return status(versions={"operators": operators})


ALL_OTHERS, TWO, ONE = mixed([2], [2], [2]), mixed([2], [2], [1]), mixed([2], [1, 2], [1])


@pytest.mark.parametrize(
    ("told", "ours", "severity", "fix"),
    [
        (status(), (1,), Severity.OK, ""),
        (ALL_OTHERS, (1,), Severity.PROBLEM, "install a newer version"),
        (ALL_OTHERS, (1, 2), Severity.OK, ""),
        (TWO, (1,), Severity.PROBLEM, "install a newer version"),
        (ONE, (1,), Severity.WARNING, "epochs settle without them; they have to upgrade"),
        (status(), (2,), Severity.PROBLEM, "wait until more operators are of a version with"),
        (mixed([1], None, None), (1,), Severity.OK, ""),
    ],
    ids=["one version", "all newer", "reads both", "two newer", "one newer", "too early", "not met"],
)
@pytest.mark.parametrize("what", ["protocol", "tally"])
def test_versions_are_held_against_those_of_the_installed_program(
    told: dict[str, Any], ours: tuple[int, ...], severity: Severity, fix: str, what: str
) -> None:
    finding = found(facts(told, protocols=ours, tallies=ours))[f"{what}-apart"]
    assert finding.severity is severity
    assert finding.fix.startswith(fix)


def test_what_is_not_known_of_others_is_said() -> None:
    cause = found(facts(mixed([1], None, None)))["tally-apart"].cause
    assert cause.endswith("and so have the other operators; of 2 of 4 of the weight it is not known")


@pytest.mark.parametrize(
    ("own_weight", "reached", "total", "severity"),
    [
        (1, 4, 4, Severity.OK),
        (1, 3, 4, Severity.PROBLEM),
        (2, 4, 4, Severity.WARNING),
        (1, 1, 1, Severity.WARNING),
        (0, 3, 4, Severity.OK),
    ],
    ids=["all there", "one missing", "never enough", "alone", "no operator"],
)
def test_operators_restart_while_the_others_are_enough(
    own_weight: int, reached: int, total: int, severity: Severity
) -> None:
    operators = [operator(OWN, own_weight)] if own_weight else []
    told = status(reach={"weight": reached, "total_weight": total}, versions={"operators": operators})
    assert found(facts(told))["quorum-without"].severity is severity


@pytest.mark.parametrize(
    ("journal", "severity", "said"),
    [
        (JOURNAL, Severity.OK, "is of schema 4, last used by 0.1.0"),
        (replace(JOURNAL, schema=3), Severity.NOTE, "it is brought there at the start, and a copy is kept"),
        (replace(JOURNAL, schema=3, free_bytes=60), Severity.PROBLEM, "schema 3"),
        (replace(JOURNAL, schema=5, written_by=None), Severity.PROBLEM, "the installed version has 4"),
        (Unknown("no journal"), Severity.UNKNOWN, "no journal"),
    ],
    ids=["same", "older", "no room", "newer", "none"],
)
def test_the_journal_must_be_one_that_can_be_read(journal: Any, severity: Severity, said: str) -> None:
    finding = found(facts(journal=journal))["journal-schema"]
    assert finding.severity is severity
    assert said in finding.cause


@pytest.mark.parametrize(
    ("kind", "code", "severity"),
    [
        ("propose_upgrade", NEW_CODE, Severity.PROBLEM),
        ("propose_upgrade", "34" * 32, Severity.WARNING),
        ("propose_params", NEW_CODE, Severity.OK),
    ],
    ids=["known here", "not known here", "no code"],
)
def test_a_change_of_the_contracts_code_decides_when_to_restart(kind: str, code: str, severity: Severity) -> None:
    proposal = {"kind": kind, "target": "pool", "hash": code, "ready_s": NOW_S + 7200, "expires_s": NOW_S + 9999}
    finding = found(facts(status(pool={"proposals": [proposal]})))["contract-upgrade"]
    assert finding.severity is severity
    assert severity is Severity.OK or "in 2 h or later" in finding.cause


def test_another_host_with_the_key_and_a_missing_policy_are_told() -> None:
    told = status(
        versions={"operators": [], "key_in_use": {"text": "this node key runs on another host"}},
        policies=[{"hash": "ee" * 32, "is_held": False, "epoch": 8}],
    )
    findings = found(facts(told))
    assert findings["key-in-use-elsewhere"].severity is Severity.PROBLEM
    assert findings["policy-missing"].severity is Severity.WARNING
    assert "from epoch 8 on" in findings["policy-missing"].cause


def test_an_agent_of_another_version_may_tell_less_or_in_another_form() -> None:
    findings = found(facts({"version": "9.9", "node_key": OWN, "reach": [1], "versions": {"operators": -1}}))
    assert findings["version-differs"].severity is Severity.NOTE
    assert {each.severity for code, each in findings.items() if code not in ("version-differs", *OF_THE_HOST)} == {
        Severity.UNKNOWN
    }


def test_the_installed_contracts_have_a_code_each() -> None:
    assert {layout.code(code).hash for code in CODES.values()}.__len__() == len(CODES)


def test_each_file_that_keeps_it_from_starting_is_told() -> None:
    findings = assess(facts(unusable=(Unusable("policy.toml: missing", "get it"), Unusable("node.key: missing", ""))))
    told = [(each.severity, each.cause) for each in findings if each.code == "settings-unusable"]
    assert told == [(Severity.PROBLEM, "policy.toml: missing"), (Severity.PROBLEM, "node.key: missing")]


def test_what_the_host_starts_with_must_be_known() -> None:
    assert missing_of_host(assess(facts(running=Unknown("nobody")))) is None
    missing = missing_of_host(assess(facts(journal=Unknown("denied"))))
    assert missing is not None
    assert (missing.code, missing.cause) == ("journal-schema", "denied")


@pytest.mark.parametrize(("mode", "refused"), [(0o600, []), (0o640, ["chmod 600 "])], ids=["handed over", "open"])
def test_a_key_of_roots_is_handed_over_if_its_mode_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, refused: list[str]
) -> None:
    config = agent_on_disk(tmp_path)
    (tmp_path / "node.key").chmod(mode)

    def load(path: Path) -> SigningKey:
        if path.name == "node.key":
            raise KeyDeniedError(f"{path}: {DENIED}")
        return load_key(path)

    monkeypatch.setattr(probing_files, "load_key", load)
    found = look_at_settings(config.path)
    assert [each.fix for each in found] == [f"{fix}{tmp_path / 'node.key'}" for fix in refused]


# As it is typed.


def check(path: Path, *arguments: str) -> int:
    return main(["upgrade", "check", "--config", str(path), *arguments])


def test_without_an_agent_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = agent_on_disk(tmp_path)
    assert check(config.path) == 0
    said = capsys.readouterr().out
    assert said.startswith("unknown  agent-not-running: what the pool does is not known: no agent answers at")
    assert "nothing stands against restarting the agent with" in said


def test_json_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rival = {"text": "this node key runs on another host"}
    told = status(versions={"operators": [], "key_in_use": rival})
    with answering({"/-/status": (200, json.dumps(told).encode())}) as port:
        assert check(agent_on_disk(tmp_path, web_port=port).path, "--json") == 1
    value = json.loads(capsys.readouterr().out)
    assert (value["may_restart"], value["first"]) == (False, "key-in-use-elsewhere")
    assert [each["code"] for each in value["findings"]] == list(CHECKS)


def test_a_journal_of_a_newer_agent_is_said_before_the_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = agent_on_disk(tmp_path)
    with closing(sqlite3.connect(config.journal_file)) as database, database:
        database.execute("UPDATE meta SET value = CAST('5' AS BLOB) WHERE key = 'schema'")
    assert check(config.path) == 1
    assert "install the newer version: this one cannot read it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (lambda folder: (folder / "policy.toml").unlink(), "policy.toml: pool.policy_file: cannot be read"),
        (lambda folder: (folder / "node.key").chmod(0o644), "node.key: others can read this key"),
        (lambda folder: (folder / "wallet.key").unlink(), "wallet.key: missing; a lost key"),
        (
            lambda folder: _replace(folder, "window_s = 30", "window_s = 31"),
            "agent.toml: meter.window_s: expected 1 to",
        ),
        (lambda folder: (folder / "root" / "root.der").write_bytes(b"?"), "root.der: not a certificate"),
    ],
    ids=["policy", "open key", "no key", "window", "proof"],
)
def test_settings_that_would_be_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], breaking: Callable[[Path], object], said: str
) -> None:
    config = agent_on_disk(tmp_path)
    breaking(tmp_path)
    assert check(config.path) == 1
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if line.startswith("problem  settings-unusable: "))
    assert said in line
    assert "do not restart the agent with" in out


def test_a_host_that_cannot_be_listened_on_is_wrong_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = agent_on_disk(tmp_path)
    _replace(tmp_path, "[web]", '[web]\nhost = "localhost"')
    assert check(config.path) == 2
    assert f"{config.path}: web.host: expected an IP address" in capsys.readouterr().err


def test_a_journal_that_cannot_be_read_is_no_leave_to_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = agent_on_disk(tmp_path)
    monkeypatch.setattr(verb, "look_at_journal", lambda _: Unknown("journal.sqlite: Permission denied"))
    assert check(config.path, "--json") == 1
    value = json.loads(capsys.readouterr().out)
    assert (value["may_restart"], value["first"]) == (False, None)
    assert value["verdict"].startswith("it is not known whether the agent may be restarted with")
    assert value["verdict"].endswith(": journal.sqlite: Permission denied; 8 of 9 checks were not made")
    assert "nothing stands against" not in value["verdict"]


def _replace(folder: Path, old: str, new: str) -> None:
    path = folder / "agent.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
