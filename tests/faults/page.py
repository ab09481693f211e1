"""Writes docs/faults.md from the catalogue: `python -m tests.faults.page`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.catalogue import FAULTS
from tests.faults.fault import Fault, Ward

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_HEAD = """# Thirty faults

```
make faults                                  # all of them, in real agents (root, Debian 12; about ten minutes)
make faults ARGS="--only 'engine down'"      # one; --ward cocoon, --list, --json
```

Each is brought about in a real agent of a dev network, one at a time. `gpupool doctor`, run beside it as its operator
would, has to name the cause first: its first problem, without one its first warning, without one its first note. Where
money is lost, an alert of [packaging/prometheus](../packaging/prometheus/gpupool.rules.yml) has to fire for that agent
in a real Prometheus, whose `for` and ranges are cut to seconds. Then the fault is healed, and the doctor has to find no
problem any more. At the end every open epoch settles, everything is claimed, and the books balance.

This page is written from `tests/faults/catalogue.py`. What the codes mean: [troubleshooting.md](troubleshooting.md).
"""
_WARDS = {
    Ward.OPERATOR: "One of four operators, whose work an inference engine counts",
    Ward.NEWCOMER: "A fifth agent of that pool, which is no operator",
    Ward.COCOON: "One of three operators of a pool that counts by Cocoon worker contracts",
}


def page() -> str:
    """The page's text."""
    parts = [_HEAD]
    for ward, title in _WARDS.items():
        parts.append(f"\n## {title}\n\n| fault | what is done | the doctor's first finding | alert | healed |")
        parts.append("|---|---|---|---|---|")
        parts += [_row(fault) for fault in FAULTS if fault.ward is ward]
    return "\n".join(parts) + "\n"


def _row(fault: Fault) -> str:
    alert = " or ".join(f"`{name}`" for name in fault.alerts) or f"none: {fault.free}"
    return f"| {fault.name} | {fault.injected} | {fault.severity} `{fault.code}` | {alert} | {fault.healed} |"


def main(arguments: Sequence[str]) -> int:
    del arguments
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
