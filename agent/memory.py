"""How near this process is to the memory that it may have: what the kernel counts, and where it would end it.

Decides which of several limits counts: the one of which the largest share is used. Files of the kernel are read, which
a sandbox may hide: what cannot be read is no limit.

1. The control group's limit, version 2 or 1: what is used is what the kernel cannot take back by dropping file pages
   that nobody used of late (`inactive_file`), as the out-of-memory killer sees it.
2. The process's own limit on address space (RLIMIT_AS), against the address space that it has.

Source: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, cgroups(7), getrlimit(2), proc(5).
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60
"""Version 1 says a number near 2**63 where there is no limit."""
_PAGE_BYTES = resource.getpagesize()
_V2 = ("memory.max", "memory.current")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """`used_bytes` of `limit_bytes`, both above 0, and what sets the limit."""

    used_bytes: int
    limit_bytes: int
    limited_by: str


def memory_use(proc: Path = Path("/proc/self"), groups: Path = Path("/sys/fs/cgroup")) -> MemoryUse | None:
    """What this process uses of the tightest limit on its memory; None if there is none that can be read."""
    found = [use for use in (*_of_groups(proc, groups), _of_address_space(proc)) if use is not None]
    return max(found, key=lambda use: use.used_bytes / use.limit_bytes, default=None)


def _of_groups(proc: Path, groups: Path) -> list[MemoryUse | None]:
    uses = []
    for line in _text(proc / "cgroup").splitlines():
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            roots, names = [groups, groups / "unified"], _V2
        elif "memory" in controllers.split(","):
            roots, names = [groups / "memory"], _V1
        else:
            continue
        uses += [_of_group(root / place.lstrip("/"), *names) for root in roots]
    return uses


def _of_group(folder: Path, limit: str, usage: str) -> MemoryUse | None:
    limit_bytes, used_bytes = _number(_text(folder / limit)), _number(_text(folder / usage))
    if limit_bytes is None or used_bytes is None or not 0 < limit_bytes < _UNLIMITED:
        return None
    stat = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    droppable = _number(stat.get("total_inactive_file", stat.get("inactive_file", ""))) or 0
    return MemoryUse(
        used_bytes=max(1, used_bytes - droppable), limit_bytes=limit_bytes, limited_by="the control group (MemoryMax=)"
    )


def _of_address_space(proc: Path) -> MemoryUse | None:
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _number((_text(proc / "statm").split() or [""])[0])
    if limit_bytes == resource.RLIM_INFINITY or limit_bytes <= 0 or not pages:
        return None
    return MemoryUse(used_bytes=pages * _PAGE_BYTES, limit_bytes=limit_bytes, limited_by="RLIMIT_AS (LimitAS=)")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""  # hidden, or not of this kernel: no limit that we could tell of


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None
