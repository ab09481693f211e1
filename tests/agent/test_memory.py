"""The tightest limit on memory is found, in each form in which the kernel tells it; what is hidden is no limit."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from agent.memory import MemoryUse, memory_use

MIB = 1 << 20
GROUP = "the control group (MemoryMax=)"


def place(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """The kernel's files below `folder`: those of the process, and those of control groups."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "proc", folder / "groups"


def of_version_2(**files: str) -> dict[str, str]:
    unit = "system.slice/gpupool-agent.service"
    return {"proc/cgroup": f"0::/{unit}\n", **{f"groups/{unit}/memory.{name}": text for name, text in files.items()}}


def test_a_unit_of_systemd_is_measured_without_what_can_be_dropped(tmp_path: Path) -> None:
    files = of_version_2(max=f"{100 * MIB}\n", current=f"{70 * MIB}\n", stat=f"anon 1\ninactive_file {10 * MIB}\n")
    use = memory_use(*place(tmp_path, files))
    assert use == MemoryUse(used_bytes=60 * MIB, limit_bytes=100 * MIB, limited_by=GROUP)


def test_version_1_is_read_too(tmp_path: Path) -> None:
    files = {
        "proc/cgroup": "5:cpu,cpuacct:/x\n4:memory:/unit\n",
        "groups/memory/unit/memory.limit_in_bytes": f"{100 * MIB}\n",
        "groups/memory/unit/memory.usage_in_bytes": f"{50 * MIB}\n",
        "groups/memory/unit/memory.stat": f"inactive_file 1\ntotal_inactive_file {MIB}\n",
    }
    use = memory_use(*place(tmp_path, files))
    assert use == MemoryUse(used_bytes=49 * MIB, limit_bytes=100 * MIB, limited_by=GROUP)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/cgroup": "0::/a\n"},
        {"proc/cgroup": "nonsense\n\n"},
        of_version_2(max="max\n", current="5\n"),
        of_version_2(max="0\n", current="5\n"),
        of_version_2(max="9223372036854771712\n", current="5\n"),
        of_version_2(max="100\n"),
    ],
)
def test_where_no_limit_is_told_there_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    assert memory_use(*place(tmp_path, files)) is None


def test_the_tighter_of_two_limits_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100 * resource.getpagesize(), 0))
    files = {**of_version_2(max="1000\n", current="10\n"), "proc/statm": "90 1 1 1 0 1 0\n"}
    use = memory_use(*place(tmp_path, files))
    assert use is not None
    assert (use.limited_by, use.used_bytes / use.limit_bytes) == ("RLIMIT_AS (LimitAS=)", 0.9)
