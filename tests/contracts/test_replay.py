"""The recorded scenario itself, and its replay by the other implementation where that one is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contracts import replay

SANDBOX = Path(__file__).parents[2] / "contracts" / "sandbox"
installed = pytest.mark.skipif(
    shutil.which("node") is None or not (SANDBOX / "node_modules").is_dir(),
    reason="needs Node and `npm ci` in contracts/sandbox (make contracts-test)",
)


def replayed(scenario: dict[str, object], folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "scenario.json"
    path.write_text(json.dumps(scenario))
    command = ["node", str(SANDBOX / "replay.mjs"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_the_scenario_is_the_same_each_time_and_reaches_every_contract() -> None:
    scenario = replay.record()
    assert scenario == replay.record()
    computed = [step["name"] for step in scenario["steps"] if "name" in step]
    assert computed == ["settle", "claim", "push", "settle"]
    assert {len(step["accounts"]) for step in scenario["steps"]} == {3}


@installed
@pytest.mark.slow
def test_both_implementations_do_the_same(tmp_path: Path) -> None:
    scenario = replay.record()
    done = replayed(scenario, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(scenario['steps'])} messages" in done.stdout


@installed
@pytest.mark.slow
@pytest.mark.parametrize("what", ["gas", "data", "leaf"])
def test_a_difference_is_told_with_its_step(tmp_path: Path, what: str) -> None:
    scenario = replay.record()
    at = next(i for i, step in enumerate(scenario["steps"]) if step.get("name") == "settle")
    step = scenario["steps"][at]
    if what == "gas":
        step["transactions"][0]["gas"] += 1
    elif what == "data":
        next(iter(step["accounts"].values()))["data_hash"] = "00" * 32
    else:
        step["settlement"]["leaves"][0]["earned"] = "1"
    done = replayed(scenario, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"step {at} (settle): ")
