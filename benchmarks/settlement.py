"""Time from an epoch's end to its landed certificate, with 4 and with 7 agents on this machine.

Whole pools of real processes (`gpupool devnet`). The reference is what the dev network's policy allots to the
steps before view 0 opens (settle_delay_s + collect_s), below which no epoch can settle.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

EPOCHS = 4
ALLOTTED_S = 4 + 3


def run() -> Iterator[dict[str, Any]]:
    for agents in (4, 7):
        arguments = ["--agents", str(agents), "--epochs", str(EPOCHS), "--epoch-seconds", "20", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "agent", "devnet", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"the dev network of {agents} agents failed ({done.returncode}):\n{done.stderr}")
        report = json.loads(done.stdout)
        lags = [each["landed_after_s"] for each in report["settlements"]]
        yield {
            "agents": agents,
            "epochs": EPOCHS,
            "end_to_landed_s": lags,
            "mean_s": round(sum(lags) / len(lags), 1),
            "reference": "settle_delay_s + collect_s of the policy: no epoch can settle sooner",
            "reference_s": ALLOTTED_S,
            "ratio": round(sum(lags) / len(lags) / ALLOTTED_S, 2),
        }
