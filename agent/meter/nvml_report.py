"""What the NVML child says, frame by frame: one line of JSON each, first `Opened` or `Failure`, then one per question.

Decides whether a line is a frame. It comes from our own process, but what stands in it is the driver's word, and a
driver that fails says strange things: lengths, ranges and characters are bounded, and a line that breaks one bound
is refused as a whole. Parent and child share this module and nothing else; it imports neither NVML nor trio, because
the child is started anew whenever the driver fails.

1. A figure that the GPU or its driver does not have is None, never 0.
2. A GPU that cannot be reached stands among the lost ones, with the driver's reason; the others keep their figures.
3. No UUID stands twice: it names the GPU's series.

Source: NVML API reference, "Device Queries", "nvmlReturn_t".
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.errors import InvalidSourceError

LINE_BYTES_MAX = 256 * 1024
GPUS_MAX = 64
XIDS_MAX = 16
"""Xids that a report holds of one GPU; the last ones stay."""

NO_LIBRARY, NO_DRIVER, LIBRARY_MISMATCH, UNKNOWN = 12, 9, 18, 999
"""Codes of NVML that mean something to the parent."""

_COUNT_MAX = 2**48 - 1

Text = Annotated[str, msgspec.Meta(pattern=r"^[ -~]{1,96}\Z")]
Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z-]{1,80}\Z")]
Code = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Count = Annotated[int, msgspec.Meta(ge=0, le=_COUNT_MAX)]
Bits = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Confidential = Literal["on", "off", "devtools", "simulated"]


class _Frame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    pass


class Opened(_Frame, frozen=True, kw_only=True):
    """NVML is open; questions may come."""

    driver: Text


class GpuReading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One GPU at one moment. Units are in the names; memory errors are uncorrected ones."""

    uuid: Uuid
    name: Text | None = None
    is_mig: bool | None = None
    busy_ms: Count | None = None
    """The child's own sum since it started (`agent.meter.nvml_busy`)."""
    energy_mj: Count | None = None
    """Since the driver was loaded."""
    busy_percent: Percent | None = None
    memory_busy_percent: Percent | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    temperature_c: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    power_mw: Count | None = None
    clock_limits: Bits | None = None
    """Bits of what holds the clocks down (nvmlClocksEventReasons)."""
    ecc_volatile: Count | None = None
    """Since the driver was loaded."""
    ecc_aggregate: Count | None = None
    """Over the GPU's life."""
    remapped_rows: Count | None = None
    is_remap_pending: bool | None = None
    is_remap_failed: bool | None = None
    retired_pages: Count | None = None
    is_retirement_pending: bool | None = None
    processes: Count | None = None
    process_memory_bytes: Count | None = None
    xids: Annotated[tuple[Code, ...], msgspec.Meta(max_length=XIDS_MAX)] = ()
    """Since the last report, oldest first."""


class LostGpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU that the driver lists and cannot reach."""

    index: Annotated[int, msgspec.Meta(ge=0, lt=GPUS_MAX)]
    uuid: Uuid | None = None
    """None if it could not be reached from the start."""
    code: Code
    message: Text
    xids: Annotated[tuple[Code, ...], msgspec.Meta(max_length=XIDS_MAX)] = ()


class Report(_Frame, frozen=True, kw_only=True):
    """All GPUs of this host at one moment."""

    gpus: Annotated[tuple[GpuReading, ...], msgspec.Meta(max_length=GPUS_MAX)]
    lost: Annotated[tuple[LostGpu, ...], msgspec.Meta(max_length=GPUS_MAX)] = ()
    confidential: Confidential | None = None
    is_ready: bool | None = None
    """Whether GPUs in confidential mode take work."""


class Failure(_Frame, frozen=True, kw_only=True):
    """NVML as a whole does not answer, with its code; the child ends after these words."""

    code: Code
    message: Text


Frame = Opened | Report | Failure


def encode_frame(frame: Frame) -> bytes:
    """The line of a frame, with its end."""
    return msgspec.json.encode(frame) + b"\n"


def decode_frame(line: bytes) -> Frame:
    """Read a line without its end, at most `LINE_BYTES_MAX` long.

    Raises:
        InvalidSourceError: it is no frame.
    """
    try:
        frame: Frame = msgspec.json.decode(line, type=Frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSourceError(f"NVML: the driver gave what cannot be: {error!s:.200}") from error
    if isinstance(frame, Report):
        uuids = [gpu.uuid for gpu in frame.gpus] + [gpu.uuid for gpu in frame.lost if gpu.uuid is not None]
        if len(uuids) != len(set(uuids)):
            raise InvalidSourceError("NVML: the driver gave one UUID to two GPUs")
    return frame
