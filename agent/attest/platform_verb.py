"""`gpupool attest platform`: a TDX machine in software, for one more agent on a development network.

Its quotes prove that their maker holds a file, nothing else: public networks refuse them.
"""

from __future__ import annotations

import argparse

from agent.attest.inputs import now_s
from agent.output import answer, note
from attestation.providers.software import SoftwarePlatform, SoftwareRoot


def platform(options: argparse.Namespace) -> int:
    """Make a software platform under a root that is there, or under a new one."""
    if options.new_root:
        root = SoftwareRoot.create(options.root_dir, now_s=now_s())
        note(f"made {options.root_dir}: whoever holds it can prove anything to a pool that names its root")
    else:
        root = SoftwareRoot.load(options.root_dir)
    SoftwarePlatform.create(options.dir, root=root)
    certificate = options.root_dir / "root.der"
    value = {"software_dir": str(options.dir), "software_root_file": str(certificate)}
    return answer(options, value, f"made {options.dir}, a machine under {certificate}; development networks only")
