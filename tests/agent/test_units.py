"""The systemd units: they agree with one another and with the agent. `make unit-check` has systemd judge them."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from agent.health import START_CHECKS_S, STARTED_WITHIN_S, STUCK_AFTER_S
from agent.output import EXIT_JOURNAL, EXIT_KEY, EXIT_USAGE
from agent.pulse import REST_S
from agent.setup import CONFIG_NAME, NODE_KEY_NAME, WALLET_KEY_NAME

FOLDER = Path(__file__).parents[2] / "systemd"
COMMON = FOLDER / "gpupool-.service.d" / "10-common.conf"
ALONE, ONE_OF_SEVERAL = FOLDER / "gpupool-agent.service", FOLDER / "gpupool-agent@.service"


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def settings(path: Path) -> configparser.RawConfigParser:
    unit = _Unit(delimiters="=", comment_prefixes="#", strict=False)
    unit.read(path)
    return unit


def seconds(text: str) -> int:
    return int(text.removesuffix("min")) * 60 if text.endswith("min") else int(text)


def test_one_of_several_agents_differs_by_its_folder_alone() -> None:
    body = ALONE.read_text().partition("[Service]")[2]
    assert "gpupool/%i" in ONE_OF_SEVERAL.read_text()
    assert ONE_OF_SEVERAL.read_text().partition("[Service]")[2].replace("gpupool/%i", "gpupool") == body


@pytest.mark.parametrize("unit", [ALONE, ONE_OF_SEVERAL])
def test_the_unit_runs_what_init_makes(unit: Path) -> None:
    text = unit.read_text()
    folder = "/etc/gpupool" if unit == ALONE else "/etc/gpupool/%i"
    assert f"ExecStart=/usr/bin/gpupool run --config {folder}/{CONFIG_NAME}\n" in text
    for name in (NODE_KEY_NAME, WALLET_KEY_NAME):
        assert f"LoadCredential={name}:{folder}/{name}\n" in text


def test_the_times_fit_the_agents_own() -> None:
    service = settings(COMMON)["Service"]
    assert service["Type"] == "notify"
    assert seconds(service["TimeoutStartSec"]) >= STARTED_WITHIN_S + 30
    assert seconds(service["TimeoutStartSec"]) < START_CHECKS_S
    assert seconds(service["WatchdogSec"]) > STUCK_AFTER_S + REST_S


def test_what_only_a_person_can_mend_is_not_tried_again() -> None:
    common = settings(COMMON)
    assert common["Service"]["Restart"] == "on-failure"
    assert common["Service"]["RestartPreventExitStatus"].split() == [
        str(code) for code in (EXIT_USAGE, EXIT_JOURNAL, EXIT_KEY)
    ]
    assert (common["Unit"]["StartLimitIntervalSec"], seconds(common["Service"]["RestartSec"])) == ("0", 30)


def test_keys_stay_out_of_dumps_and_privileges_out_of_reach() -> None:
    service = settings(COMMON)["Service"]
    assert service["LimitCORE"] == "0"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert (service["User"], service["UMask"], service["NoNewPrivileges"]) == ("gpupool", "0077", "yes")
