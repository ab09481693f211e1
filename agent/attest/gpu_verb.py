"""`gpupool attest gpu`: can this host's GPUs report, as their driver says. Nothing of it is proven to anybody.

Exit code 1 unless there is a GPU in confidential mode, in the production environment.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import trio

from agent.attest.report import table
from agent.output import EXIT_FAILED, answer

_MODES = {
    "on": "on: they can report",
    "off": "off: NOT in confidential mode, they have no report to give",
    "unsupported": "unsupported by GPU or driver: NOT in confidential mode, they have no report to give",
    "devtools": "on with development tools: their memory can be read, NOT usable",
    "simulated": "simulated: NOT the production environment, not usable",
}


def gpu(options: argparse.Namespace) -> int:
    """Show the GPUs and whether they are in confidential mode."""
    # Here, not above: the library is for hosts with GPUs.
    from attestation.providers.nvml import gpu_state

    state = trio.run(gpu_state)
    is_usable = state.mode == "on"
    text = table(
        {
            "confidential mode": _MODES[state.mode],
            "driver": state.driver,
            "GPUs": [f"{gpu.name} ({gpu.uuid})" for gpu in state.gpus],
        }
    )
    answer(options, {"usable": is_usable, **asdict(state)}, text)
    return 0 if is_usable else EXIT_FAILED
