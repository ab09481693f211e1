"""What an operator should know of a host's GPUs: one line for each thing that costs money or needs hands.

Decides which figures are worth a line. Not worth one: what is normal under load (a cap on power), what is over (errors
of an earlier life of the driver), what is merely absent.

Source: NVIDIA, "Xid Errors" and "GPU Memory Error Management"; NVML API reference, "nvmlClocksEventReasons".
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.meter.nvml_report import GpuReading, LostGpu, Report

_PROGRAM = "most often the program's fault: look at the engine's log"
_RESET = "reset the GPU or restart the host"
_REPLACE = "have the GPU checked; replace it if this comes again"

XIDS = {
    13: f"fault in a compute kernel, {_PROGRAM}",
    31: f"access to unmapped GPU memory, {_PROGRAM}",
    43: f"a program's work was stopped, {_PROGRAM}",
    45: "a program's work was cleared away after an earlier fault or a kill",
    48: f"uncorrectable memory error; {_RESET}",
    61: f"halt of an internal controller; {_RESET}",
    62: f"halt of an internal controller; {_RESET}",
    63: f"a bad memory row or page is to be replaced by a spare one; {_RESET} when it is idle",
    64: f"a bad memory row or page could not be replaced by a spare one; {_REPLACE}",
    74: "NVLink error; check the links and the other GPUs",
    79: "the GPU has left the PCIe bus; power the host off and on, and check power, seating and temperature",
    92: f"many correctable memory errors; {_REPLACE}",
    94: "uncorrectable memory error, contained: restart the program that was hit",
    95: f"uncorrectable memory error, not contained; {_RESET}",
    109: f"a program's work did not yield in time; {_RESET}",
    119: f"the GPU's system processor does not answer; {_RESET}",
    120: f"error of the GPU's system processor; {_RESET}",
    140: f"uncorrectable memory error, not recovered; {_RESET}",
    154: "the driver asks for a recovery: nvidia-smi -q, GPU Recovery Action",
}
"""What a code means and what helps; codes that are not here are in NVIDIA's catalogue."""

_CLOCK_LIMITS = {
    0x08: "hardware slowdown (heat, or power)",
    0x20: "too hot (software slowdown)",
    0x40: "too hot (hardware slowdown)",
    0x80: "power brake from outside (the power supply)",
}
"""Reasons that cost work. 0x04, the software's cap on power, is how a GPU under full load runs."""


def report_notes(report: Report) -> Iterator[str]:
    """What this report gives to say, except for Xids, which are over when they are told."""
    for gpu in report.gpus:
        yield from (f"{gpu.uuid}: {text}" for text in _gpu_notes(gpu))
    for lost in report.lost:
        yield lost_note(lost)
    if report.confidential == "on" and report.is_ready is False:
        yield "confidential mode is on, but the GPUs take no work: attest them, then nvidia-smi conf-compute -srs 1"


def lost_note(lost: LostGpu) -> str:
    """What to do about a GPU that is lost."""
    name = lost.uuid or f"GPU {lost.index}"
    return f"{name}: lost ({lost.message}, {lost.code}): nothing of it is counted; {_RESET}"


def xid_note(uuid: str, code: int) -> str:
    """What an Xid means, in a line."""
    return f"{uuid}: Xid {code}: {XIDS.get(code, 'see the Xid catalogue of NVIDIA')}"


def _gpu_notes(gpu: GpuReading) -> Iterator[str]:
    if gpu.is_mig:
        yield "in MIG mode, in which the driver tells no utilisation: its busy time is not measured"
    if gpu.ecc_volatile:
        yield f"{gpu.ecc_volatile} uncorrectable memory errors since the driver was loaded; {_RESET}"
    if gpu.is_remap_failed:
        yield f"a bad memory row could not be replaced by a spare one; {_REPLACE}"
    if gpu.is_remap_pending:
        yield f"a bad memory row waits to be replaced by a spare one; {_RESET}"
    if gpu.is_retirement_pending:
        yield f"bad memory pages wait to be retired; {_RESET}"
    limits = [text for bit, text in _CLOCK_LIMITS.items() if (gpu.clock_limits or 0) & bit]
    if limits:
        yield f"slowed down: {', '.join(limits)}"
