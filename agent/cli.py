"""The command `gpupool`: arguments, exit codes, and errors as one line.

Exit codes: 0 done; 1 it failed, the message says why; 2 wrong usage or settings; 70 an error in the program;
74 standard output cannot be written; 130 interrupted; 141 nobody reads standard output any more. The doctor has its own
besides, 10 to 16 (`agent.doctor.findings`).
No traceback is shown unless `--debug` is given; the exit codes stay.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from agent import commands
from agent.attest.parser import add_attest
from agent.audit.parser import add_audit
from agent.db.parser import add_db
from agent.devnet.cheats import CHEATS, LEVELS
from agent.doctor.parser import add_doctor
from agent.earnings.parser import add_earnings
from agent.errors import AgentError, ConfigError, KeyFileError
from agent.output import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_OUTPUT,
    EXIT_USAGE,
    OutputError,
    note,
    say,
)
from agent.pool.parser import add_pool
from agent.score.parser import add_score
from agent.texts import one_line
from agent.work.parser import add_work
from attestation.errors import AttestationError
from contracts.errors import ContractsError
from gossip.errors import GossipError

DEFAULT_CONFIG = Path("/etc/gpupool/agent.toml")

_EXPECTED = (AgentError, AttestationError, ContractsError, GossipError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    shows_traceback = False
    try:
        options = _parse(arguments)
        shows_traceback = options.debug
        outcome: int = options.run(options)
        return outcome
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if shows_traceback:
            note(traceback.format_exc())
        return _explain(error)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, like everything else."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"gpupool: {one_line(message)}; see `{self.prog} --help`\n")

    def print_help(self, file: object = None) -> None:
        """Print it as every answer is printed."""
        say(self.format_help().rstrip("\n"))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, all of them known."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if "--debug" in unknown:
        options.parser.error("--debug goes first: gpupool --debug ...")
    if unknown:
        options.parser.error(f"unknown arguments: {' '.join(unknown)}")
    return options


def _explain(error: BaseException) -> int:
    """Say in one line what went wrong; the exit code."""
    causes = list(_leaves(error))
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return EXIT_INTERRUPTED
    cause = next((cause for cause in causes if isinstance(cause, _EXPECTED)), causes[0])
    if isinstance(cause, OutputError) and cause.is_broken_pipe:
        return EXIT_BROKEN_PIPE
    text = str(cause)
    if not isinstance(cause, _EXPECTED):
        text = f"unexpected {type(cause).__name__}: {text} (`gpupool --debug` shows where)"
    note(one_line(text))
    return _exit_code(cause)


def _exit_code(cause: BaseException) -> int:
    if isinstance(cause, OutputError):
        return EXIT_OUTPUT
    if isinstance(cause, ConfigError | KeyFileError):
        return EXIT_USAGE
    return EXIT_FAILED if isinstance(cause, _EXPECTED) else EXIT_INTERNAL


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside the groups that nurseries raise."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; completions and the manual page come from it, too."""
    parser: argparse.ArgumentParser = _Parser(
        prog="gpupool",
        description="Node agent for GPU hosts of a compute pool on TON.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 70 error in the program, "
        "74 standard output cannot be written, 130 interrupted, 141 nobody reads standard output any more; 10 to 16 "
        "are the doctor's (gpupool doctor --help).",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_init(verbs)
    _add_agent_commands(verbs)
    _add_keys(verbs)
    _add_devnet(verbs)
    add_pool(verbs, DEFAULT_CONFIG)
    add_attest(verbs, DEFAULT_CONFIG)
    add_earnings(verbs, DEFAULT_CONFIG)
    add_work(verbs, DEFAULT_CONFIG)
    add_score(verbs, DEFAULT_CONFIG)
    add_db(verbs, DEFAULT_CONFIG)
    add_audit(verbs, DEFAULT_CONFIG)
    add_doctor(verbs, DEFAULT_CONFIG)
    return parser


def _command(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary[:1].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="settings (default: %(default)s)"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _add_init(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = _command(
        verbs,
        "init",
        _init,
        "make keys, a config and an empty journal for a new agent",
        "gpupool init --dir /etc/gpupool --network -217 --pool 0:ab... --policy-file policy.toml \\\n"
        "    --liteserver 203.0.113.5:4924:BASE64KEY --engine http://127.0.0.1:8000/metrics \\\n"
        "    --peer NODEKEY@/ip4/203.0.113.7/tcp/4001 --attest configfs",
    )
    init.add_argument("--dir", type=Path, default=DEFAULT_CONFIG.parent, help="folder to fill (default: %(default)s)")
    init.add_argument("--network", required=True, help='"mainnet", "testnet" or a global id')
    init.add_argument("--pool", required=True, metavar="ADDRESS", help="the PoolOperator contract")
    init.add_argument("--policy-file", required=True, type=Path, metavar="FILE", help="the pool's policy document")
    init.add_argument(
        "--liteserver", required=True, action="append", metavar="HOST:PORT:KEY", help="repeat for several"
    )
    work = init.add_mutually_exclusive_group(required=True)
    work.add_argument("--engine", action="append", metavar="URL", help="an engine's metrics endpoint; repeatable")
    work.add_argument(
        "--cocoon", action="append", type=int, metavar="N", help="number of a Cocoon worker on this host; repeatable"
    )
    init.add_argument("--nvml", action="store_true", help="read this host's GPUs, too, through NVIDIA's driver")
    init.add_argument("--receipts-port", type=int, metavar="PORT", help="take receipts of gateways on this port")
    init.add_argument(
        "--peer", action="append", default=[], metavar="NODEKEY@MULTIADDR", help="another agent of the pool; repeatable"
    )
    init.add_argument(
        "--listen", action="append", metavar="MULTIADDR", help=f"repeatable (default: {commands.DEFAULT_LISTEN})"
    )
    init.add_argument(
        "--announce", action="append", default=[], metavar="MULTIADDR", help="where others reach this host; repeatable"
    )
    init.add_argument("--data-dir", type=Path, metavar="DIR", help="where the journal goes (default: data in --dir)")
    init.add_argument("--web-port", type=int, default=9464, help="of status and metrics (default: %(default)s)")
    init.add_argument(
        "--attest",
        choices=("configfs", "cocoon", "software"),
        help="what proves this host: it is a TDX guest (configfs, the default), a Cocoon guest runs on it (--guest), "
        "or a software platform (--software-dir)",
    )
    init.add_argument("--guest", metavar="HOST:PORT", help="TLS port of the Cocoon worker in the guest")
    init.add_argument("--gpu", action="store_true", help="have the GPUs, in confidential mode, report too")
    init.add_argument("--software-dir", type=Path, metavar="DIR", help="software platform (development networks)")
    init.add_argument("--software-root", type=Path, metavar="FILE", help="root certificate of that platform")
    _add_json(init)


def _add_agent_commands(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = _command(verbs, "run", commands.run, "run the agent", "gpupool run --config /etc/gpupool/agent.toml")
    _add_config(run)
    run.add_argument(
        "--fresh", action="store_true", help="the journal is lost: make an empty one, learn the own log from operators"
    )
    run.add_argument("--yes", action="store_true", help="with --fresh: do it; without, only say what it risks")
    status = _command(verbs, "status", commands.status, "show what the running agent does", "gpupool status --watch")
    _add_config(status)
    status.add_argument("--watch", action="store_true", help="a live screen, until q or Ctrl-C")
    status.add_argument(
        "--interval", type=float, default=2.0, metavar="S", help="with --watch: seconds between looks (default: 2)"
    )
    _add_json(status)
    version = _command(verbs, "version", commands.version, "print the version", "gpupool version --json")
    _add_json(version)


def _init(options: argparse.Namespace) -> int:
    """`gpupool init`, once what proves the host is said without contradiction."""
    proof = options.attest or ("configfs" if options.software_dir is None else "software")
    if proof == "cocoon" and options.guest is None:
        raise ConfigError("--guest is missing: HOST:PORT of the Cocoon worker's TLS port")
    for option, value, owner in (
        ("--guest", options.guest, "cocoon"),
        ("--software-dir", options.software_dir, "software"),
    ):
        if value is not None and proof != owner:
            raise ConfigError(f"{option}: is for --attest {owner}")
    return commands.init(options)


def _add_keys(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keys = verbs.add_parser("keys", help="make a key file")
    key_verbs = keys.add_subparsers(title="commands", required=True, metavar="COMMAND")
    create = _command(
        key_verbs,
        "create",
        commands.keys_create,
        "make a new key that only you can read; a file that exists is never overwritten",
        "gpupool keys create owner.key --network testnet",
    )
    create.add_argument("file", type=Path, metavar="FILE", help="where to write it")
    create.add_argument("--network", help="print the key's wallet there, too (default: no wallet)")
    _add_json(create)


def _add_devnet(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    devnet = _command(
        verbs,
        "devnet",
        commands.devnet,
        "run a whole pool on this machine: a TON chain, agents, inference engines; settle epochs, claim, check",
        "gpupool devnet --agents 7 --epochs 2 --chaos kill\n  gpupool devnet --cheat inflate --policy-level receipted",
    )
    told = (("Strategies of --cheat", CHEATS), ("Levels of --policy-level", LEVELS))
    for title, choices in told:
        lines = "".join(f"\n  {name:<10} {what}" for name, what in choices.items())
        devnet.description = f"{devnet.description}\n\n{title}:{lines}"
    devnet.add_argument("--agents", type=int, default=4, metavar="N", help="agents, 1 to 25 (default: %(default)s)")
    devnet.add_argument("--epochs", type=int, default=3, metavar="K", help="epochs to settle (default: %(default)s)")
    devnet.add_argument(
        "--epoch-seconds", type=int, default=25, metavar="S", help="length of an epoch (default: %(default)s)"
    )
    devnet.add_argument("--dir", type=Path, metavar="DIR", help="where to keep it all (default: a temporary folder)")
    devnet.add_argument("--keep", action="store_true", help="keep the folder afterwards")
    devnet.add_argument("--engine", metavar="URL", help="metrics URL of a real inference server for the first agent")
    devnet.add_argument(
        "--chaos",
        choices=("kill", "restart", "chain"),
        help="kill one agent once it worked; restart: and start it again (2 epochs or more); chain: restart the chain",
    )
    devnet.add_argument(
        "--source", choices=("engine", "cocoon"), default="engine", help="what agents measure (default: %(default)s)"
    )
    devnet.add_argument("--receipts", action="store_true", help="a gateway signs receipts; tokens count up to them")
    devnet.add_argument("--cheat", choices=tuple(CHEATS), help="how the last agent cheats, as above")
    devnet.add_argument("--policy-level", choices=tuple(LEVELS), help="what the policy demands, as above")
    devnet.add_argument("--seed", type=int, default=1, help="seed of the load (default: %(default)s)")
    devnet.add_argument(
        "--rate", type=float, default=4.0, help="requests per second at the first engine (default: %(default)s)"
    )
    _add_json(devnet)
