"""How the operator calls commands and the service for the agent of one settings file: texts that can be copied.

Decides nothing; it spells out what messages name in short (`gpupool pool claim`, `systemctl start gpupool-agent`).

1. --config is named unless it is the default: else the command would act on another agent of this host, and its wallet.
2. Settings in /etc/gpupool are the package's. Its commands are root's, and its unit starts the agent: `gpupool-agent`,
   or `gpupool-agent@NAME` for those in a folder NAME.
3. How an agent of other settings is run nobody knows here: it is started by `gpupool run`, and what a text says of its
   unit and its journal is left out.

Source: docs/systemd.md, "Several agents on one host".
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from agent.verbs import DEFAULT_CONFIG

PACKAGED_SETTINGS = DEFAULT_CONFIG.parent

_COMMANDS = (
    "db check",
    "db import",
    "doctor",
    "earnings",
    "keys backup",
    "keys rotate",
    "pool claim",
    "pool register",
    "pool stake add",
    "pool withdraw cancel",
    "pool withdraw complete",
    "run",
    "status",
    "upgrade check",
    "work explain",
)
_COMMAND = re.compile(rf"(?<!sudo )\bgpupool ({'|'.join(_COMMANDS)})\b")
_SYSTEMCTL = re.compile(r"(?<!sudo )\bsystemctl (edit|enable --now|start|stop) gpupool-agent\b")
_UNIT = re.compile(r"\b(systemctl (?:edit|enable --now|start|status|stop)|journalctl -u) gpupool-agent\b(?!@)")
_OF_UNIT = re.compile(r" \((?:systemctl edit|journalctl -u) gpupool-agent\)|;[^;]*: journalctl -u gpupool-agent\b")


def spelled(text: str, config: Path) -> str:
    """A text of ours with the commands in it as they have to be typed for the agent of these settings."""
    config = config.absolute()
    option = "" if config == DEFAULT_CONFIG else f" --config {shlex.quote(str(config))}"
    unit, sudo = unit_of(config), "sudo " if config.is_relative_to(PACKAGED_SETTINGS) else ""
    if unit is None:
        text = re.sub("systemctl (start|enable --now) gpupool-agent", "gpupool run", text)
        text = text.replace("systemctl stop gpupool-agent", "stop the agent")
        text = _OF_UNIT.sub("", text)
    else:
        text = _SYSTEMCTL.sub(lambda found: f"{sudo}{found[0]}", text)
        text = _UNIT.sub(lambda found: f"{found[1]} {unit}", text)
    return _COMMAND.sub(lambda found: f"{sudo}{found[0]}{option}", text)


def unit_of(config: Path) -> str | None:
    """The package's unit that runs the agent of these settings (an absolute path); None for settings of elsewhere."""
    if config == DEFAULT_CONFIG:
        return "gpupool-agent"
    is_named = config.name == DEFAULT_CONFIG.name and config.parent.parent == PACKAGED_SETTINGS
    return f"gpupool-agent@{config.parent.name}" if is_named else None
