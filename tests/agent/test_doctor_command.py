"""`gpupool doctor` as it is typed: exit codes, text, JSON; whatever is broken, it answers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from agent_on_disk import agent_on_disk, answering
from doctor_facts import own, status_tree

from agent.cli import main
from agent.doctor.diagnosis import CHECKS


def doctor(path: Path, *arguments: str) -> int:
    return main(["doctor", "--config", str(path), *arguments])


def test_settings_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path / "none.toml") == 10
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"problem  config-unusable: {tmp_path}/none.toml: missing; `gpupool init`")
    assert f"(0 checks are fine, {len(CHECKS) - 1} could not be made, 0 do not apply; --all shows them)" in said.out


def test_every_check_is_listed_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = agent_on_disk(tmp_path)
    assert doctor(config.path, "--all") == 11
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    order = [check.code for check in CHECKS]
    found = [(line.split()[0], line.split()[1].rstrip(":")) for line in heads[:-1]]
    assert sorted(code for _, code in found) == sorted(order)
    worst = {"problem": 0, "warning": 1, "note": 2}
    assert found == sorted(found, key=lambda each: (worst.get(each[0], len(worst)), order.index(each[1])))
    assert heads[-1].startswith("you do not earn: the agent does not run")


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = agent_on_disk(tmp_path)
    (tmp_path / "node.key").chmod(0o640)
    assert doctor(config.path, "--json") == 10
    value = json.loads(capsys.readouterr().out)
    assert (value["earns"], value["exit_code"], value["first"]) == (False, 10, "node-key-unusable")
    assert set(value["findings"][0]) == {"code", "severity", "class", "cause", "fix"}
    assert (value["findings"][0]["class"], value["findings"][0]["severity"]) == ("settings", "problem")
    assert "readable by others (mode 0640)" in value["verdict"]
    severities = {each["code"]: each["severity"] for each in value["findings"]}
    assert severities["agent-stuck"] == "unknown", "what could not be checked is always told"
    assert not {"ok", "not-applicable"} & set(severities.values())
    doctor(config.path, "--json", "--all")
    severities = {each["code"]: each["severity"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert list(severities) == [check.code for check in CHECKS]
    assert (severities["cocoon-image"], severities["data-folder-unusable"]) == ("not-applicable", "ok")


def test_an_agent_that_tells_nonsense_of_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = status_tree(own=own(tokens=-1, metered_tokens=0))
    with answering({"/-/status": (200, json.dumps(tree).encode())}) as port:
        assert doctor(agent_on_disk(tmp_path, web_port=port).path) == 10
    assert capsys.readouterr().out.startswith("problem  agent-foreign: the agent that answers has another node key")


def test_an_agent_without_a_port_is_down_once_nobody_holds_its_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(agent_on_disk(tmp_path, web_port=0).path) == 11
    assert "agent-down: the agent does not run: web.port is 0" in capsys.readouterr().out


def test_a_stranger_at_the_agents_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering({"/-/status": (200, b"\x1b[2J")}) as port:
        assert doctor(agent_on_disk(tmp_path, web_port=port).path) == 11
    said = capsys.readouterr().out
    assert said.startswith("problem  web-port-taken: what answers at http://127.0.0.1:")
    assert "\x1b" not in said


def test_colour_on_a_terminal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(tmp_path / "none.toml") == 10
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert doctor(tmp_path / "none.toml") == 10
    assert "\x1b[1;31mproblem" in capsys.readouterr().out


def test_a_terminal_is_not_written_past_its_edge_and_a_pipe_gets_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    config = agent_on_disk(tmp_path)
    assert doctor(config.path) != 0
    piped = capsys.readouterr().out
    assert max(map(len, piped.splitlines())) > 60
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert doctor(config.path) != 0
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert " ".join(" ".join(lines).split()) == " ".join(piped.split()), "the same words"
    command = f"gpupool run --config {config.path}"
    assert any(command in line for line in lines), "what is to be copied stays whole"
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 60


def test_the_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"{code} " in text for code in (10, 11, 12, 13, 14, 15, 16))
    assert "gpupool doctor --all" in text


def test_settings_that_this_user_may_not_read_are_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", fail)
    assert main(["doctor", "--config", str(tmp_path / "agent.toml")]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "",
        f"gpupool: {tmp_path}/agent.toml: this user may not read it; run the command with sudo\n",
    )
