"""Commands in messages, as they have to be typed for the agent of one settings file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.command_line import build_parser
from agent.doctor import checks_chain, checks_host, checks_peers, checks_pool
from agent.invoking import spelled
from agent.verbs import DEFAULT_CONFIG, walk

TWO = Path("/etc/gpupool/two/agent.toml")
OTHER = Path("/srv/my agents/a.toml")


@pytest.mark.parametrize(
    ("text", "config", "expected"),
    [
        ("gpupool pool claim", DEFAULT_CONFIG, "sudo gpupool pool claim"),
        ("gpupool pool claim", TWO, "sudo gpupool pool claim --config /etc/gpupool/two/agent.toml"),
        ("gpupool pool stake add 5", OTHER, "gpupool pool stake add --config '/srv/my agents/a.toml' 5"),
        ("`gpupool run --fresh` asks", TWO, "`sudo gpupool run --config /etc/gpupool/two/agent.toml --fresh` asks"),
        ("sudo gpupool doctor", DEFAULT_CONFIG, "sudo gpupool doctor"),
        ("a new agent: `gpupool init`", TWO, "a new agent: `gpupool init`"),
        ("systemctl start gpupool-agent", DEFAULT_CONFIG, "sudo systemctl start gpupool-agent"),
        ("systemctl enable --now gpupool-agent", TWO, "sudo systemctl enable --now gpupool-agent@two"),
        ("systemctl start gpupool-agent", OTHER, "gpupool run --config '/srv/my agents/a.toml'"),
        ("systemctl stop gpupool-agent; wait", OTHER, "stop the agent; wait"),
        ("journalctl -u gpupool-agent", TWO, "journalctl -u gpupool-agent@two"),
        ("its log (journalctl -u gpupool-agent) and", OTHER, "its log and"),
        ("start it; why it ended its log says: journalctl -u gpupool-agent", OTHER, "start it"),
        ("raise it (systemctl edit gpupool-agent); report", OTHER, "raise it; report"),
        ("systemctl status gpupool-agent", TWO, "systemctl status gpupool-agent@two"),
        ("/opt/gpupool-agent/lib: missing", TWO, "/opt/gpupool-agent/lib: missing"),
    ],
)
def test_what_is_named_in_short_is_spelled_out(text: str, config: Path, expected: str) -> None:
    assert spelled(text, config) == expected


def test_every_command_that_the_doctor_names_acts_on_the_agent_it_looked_at() -> None:
    modules = (checks_chain, checks_host, checks_peers, checks_pool)
    text = "".join(Path(str(module.__file__)).read_text() for module in modules)
    verbs = {each.prog for each in walk(build_parser()) if each.get_default("run")}
    named = set(re.findall(r"gpupool(?: [a-z]+)+", text))
    found = {max((verb for verb in verbs if f"{each} ".startswith(f"{verb} ")), key=len, default="") for each in named}
    without_settings = {"gpupool init", "gpupool keys restore", "gpupool pool hand-over", ""}
    assert "gpupool pool claim" in found
    for verb in found - without_settings:
        assert "--config" in spelled(verb, TWO), f"agent.invoking does not know {verb}"
