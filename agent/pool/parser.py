"""Builds the command line of `gpupool pool` from the table in `agent.pool.verbs`; what a verb needs gives options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent

from agent.pool.verb import GROUPS, Needs, Verb
from agent.pool.verbs import VERBS
from agent.verbs import Verbs, add_config, add_json, runner, sentence


def add_pool(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `pool` and all below it to the command line."""
    pool = verbs.add_parser(
        "pool",
        help="deploy a pool, join one, run one, look at it",
        usage="gpupool pool [-h] COMMAND ...",
        description=_listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Each has --help with an example; what sends something has --dry-run.",
    )
    own = pool.add_subparsers(prog="gpupool pool", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    families: dict[str, Verbs[argparse.ArgumentParser]] = {}
    for verb in VERBS:
        first, _, second = verb.name.partition(" ")
        if not second:
            _add(own, first, verb, default_config)
            continue
        if first not in families:
            family = own.add_parser(
                first,
                help=", ".join(each.name.split()[-1] for each in VERBS if each.name.startswith(f"{first} ")),
                description=f"Each of these explains itself: gpupool pool {first} COMMAND --help.",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            families[first] = family.add_subparsers(title="commands", required=True, metavar="COMMAND")
        _add(families[first], second, verb, default_config)


def _listing() -> str:
    """What `gpupool pool --help` shows: the verbs by who uses them."""
    width = max(len(verb.name) for verb in VERBS) + 2
    blocks = []
    for group, title in GROUPS.items():
        rows = [f"  {verb.name:{width}}{verb.summary}" for verb in VERBS if verb.group == group]
        blocks.append("\n".join([f"{title}:", *rows]))
    return "\n\n".join(blocks)


def _epilog(verb: Verb) -> str:
    """An example, the file that it reads, and how a command travels."""
    text = f"example:\n  gpupool pool {verb.name}{verb.example and ' '}{verb.example}"
    if verb.file:
        text += f"\n\nFILE, in TOML:\n{indent(verb.file, '  ')}"
    if verb.needs & Needs.DRAFTS:
        text += (
            "\n\nWhile the owner runs the pool, his wallet sends this at once. After the hand-over it\n"
            "becomes a certificate file, signed by this node key if it is an operator's; the others\n"
            "complete it by `gpupool pool certificate sign`, anybody brings it by `... submit`."
        )
    return text


def _add(verbs: Verbs[argparse.ArgumentParser], word: str, verb: Verb, default_config: Path) -> None:
    parser = verbs.add_parser(
        word,
        help=verb.summary,
        description=sentence(verb.summary),
        epilog=_epilog(verb),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=runner(f"agent.pool.{verb.run}"), parser=parser, verb=f"pool {verb.name}", **verb.defaults)
    for argument in verb.arguments:
        settings: Mapping[str, object] = argument.settings
        parser.add_argument(*argument.flags, **settings)  # type: ignore[arg-type]
    _add_needs(parser, verb.needs, default_config)
    add_json(parser)


def _add_needs(parser: argparse.ArgumentParser, needs: Needs, default_config: Path) -> None:
    if needs & Needs.CONFIG:
        add_config(parser, default_config)
    if needs & Needs.CHAIN:
        _add_chain(parser, needs)
    if needs & Needs.SENDS:
        parser.add_argument("--dry-run", action="store_true", help="show what it would do; send nothing")
    if needs & Needs.DRAFTS:
        parser.add_argument(
            "--out", type=Path, metavar="FILE", help="the certificate file to write, after the hand-over"
        )
        parser.add_argument(
            "--valid-days", type=int, default=7, metavar="N", help="how long the certificate counts (%(default)s)"
        )
    if needs & Needs.DRAFTS or (needs & Needs.SIGNS and needs & Needs.CONSENT):
        parser.add_argument(
            "--sign-another", action="store_true", help="sign although another command with its number was signed"
        )
    if needs & Needs.CONSENT:
        parser.add_argument("--yes", action="store_true", help="do it; without, only show what would be done")


def _add_chain(parser: argparse.ArgumentParser, needs: Needs) -> None:
    """What stands in a config, by hand."""
    hand = parser.add_argument_group("by hand, in place of --config")
    is_new = bool(needs & Needs.NEW)
    if not is_new:
        hand.add_argument("--pool", metavar="ADDRESS", help="the PoolOperator contract")
    hand.add_argument("--network", required=is_new, metavar="NAME", help='"mainnet", "testnet" or a global id')
    hand.add_argument("--liteserver", action="append", metavar="HOST:PORT:KEY", help="repeat for several")
    hand.add_argument(
        "--global-config", type=Path, metavar="FILE", help="the network's global.config.json, for its liteservers"
    )
    if needs & Needs.SENDS:
        hand.add_argument("--wallet-key", required=is_new, type=Path, metavar="FILE", help="the wallet that pays")
        hand.add_argument("--wallet-version", choices=("v5r1", "v4r2"), help="(default: v5r1)")
    if needs & Needs.SIGNS:
        hand.add_argument("--node-key", type=Path, metavar="FILE", help="key of the node or operator that signs")
