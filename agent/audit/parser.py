"""The command line of `gpupool audit`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Verb, Verbs, add_family, add_verbs, arg

VERBS = (
    Verb(
        name="export",
        run="agent.audit.verbs.export",
        summary="write an epoch's evidence into one file",
        detail="""All that its settlement follows from, for anybody to verify.

The journal is only read; an agent may run meanwhile. The chain is asked for what landed, with proofs: soon after the
settlement, or by an archive liteserver, for others forget old states within hours. The file holds no secret key; what
stands in it all operators hold.""",
        example="--epoch 12",
        arguments=(
            arg("--epoch", type=int, required=True, metavar="E", help="a settled epoch"),
            arg("--out", type=Path, metavar="FILE", help="never overwritten (default: epoch-E.audit)"),
        ),
    ),
    Verb(
        name="verify",
        run="agent.audit.verbs.verify_file",
        summary="derive an epoch's settlement again, offline",
        detail="""From a file that `gpupool audit export` wrote.

Asks nobody and trusts nobody: every signature, hash and proof in the file is checked, the evidence is judged anew, and
the totals are computed from the records. It says step by step what holds, where it differs, and what it had to believe.

Exit codes: 0 the same follows; 1 it differs, something does not hold, or the file is damaged; 2 wrong usage.""",
        example="epoch-12.audit --block 4711:5d52...",
        arguments=(
            arg("file", type=Path, metavar="FILE", help="what `gpupool audit export` wrote"),
            arg(
                "--block",
                action="append",
                default=[],
                metavar="SEQNO:ROOTHASH",
                help="a block of the masterchain, from a source that you trust; repeatable",
            ),
        ),
        has_config=False,
    ),
)


def add_audit(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `audit` and all below it to the command line."""
    own = add_family(
        verbs,
        "audit",
        "export and verify what a settlement follows from",
        "The evidence bundle: one file from which anybody derives an epoch's settlement again.",
    )
    add_verbs(own, VERBS, {}, config=default_config)
