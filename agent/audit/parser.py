"""The command line of `gpupool audit`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from agent.pool.parser import Verbs

_EXPORT = """Write all that an epoch's settlement follows from into one file, for anybody to verify.

The journal is only read; an agent may run meanwhile. The chain is asked for what landed, with proofs: soon after the
settlement, or by an archive liteserver, for others forget old states within hours. The file holds no secret key; what
stands in it all operators hold."""

_VERIFY = """Derive an epoch's settlement again from a file that `gpupool audit export` wrote.

Asks nobody and trusts nobody: every signature, hash and proof in the file is checked, the evidence is judged anew, and
the totals are computed from the records. It says step by step what holds, where it differs, and what it had to believe.
Exit codes: 0 the same follows; 1 it differs, something does not hold, or the file is damaged; 2 wrong usage."""


def add_audit(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `audit` and all below it to the command line."""
    audit = verbs.add_parser(
        "audit",
        help="export and verify what a settlement follows from",
        description="The evidence bundle: one file from which anybody derives an epoch's settlement again.",
    )
    own = audit.add_subparsers(title="commands", required=True, metavar="COMMAND")
    export = _add(own, "export", "write an epoch's evidence into one file", _EXPORT, "export --epoch 12")
    export.add_argument("--epoch", type=int, required=True, metavar="E", help="a settled epoch")
    export.add_argument("--out", type=Path, metavar="FILE", help="never overwritten (default: epoch-E.audit)")
    export.add_argument(
        "--config", type=Path, default=default_config, metavar="FILE", help="settings (default: %(default)s)"
    )
    example = "verify epoch-12.audit --block 4711:5d52..."
    verify = _add(own, "verify", "derive an epoch's settlement again, offline", _VERIFY, example)
    verify.add_argument("file", type=Path, metavar="FILE", help="what `gpupool audit export` wrote")
    verify.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="SEQNO:ROOTHASH",
        help="a block of the masterchain, from a source that you trust; repeatable",
    )


def _add(
    verbs: Verbs[argparse.ArgumentParser], name: str, summary: str, detail: str, example: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=detail,
        epilog=f"example:\n  gpupool audit {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_runner(name), parser=parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


def _runner(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of `agent.audit.verbs`, imported when it is called."""

    def run(options: argparse.Namespace) -> int:
        from agent.audit import verbs

        functions = {"export": verbs.export, "verify": verbs.verify_file}
        return functions[name](options)

    return run
