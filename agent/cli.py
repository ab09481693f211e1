"""The command `gpupool`: arguments, exit codes, and errors as one line.

Exit codes: 0 done; 1 it failed, the message says why; 2 wrong usage or settings; 130 interrupted.
No traceback is shown unless `--debug` is given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agent import commands
from agent.commands import EXIT_USAGE
from agent.errors import AgentError, ConfigError, KeyFileError
from attestation.errors import AttestationError
from contracts.errors import ContractsError
from gossip.errors import GossipError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
DEFAULT_CONFIG = Path("/etc/gpupool/agent.toml")

_EXPECTED = (AgentError, AttestationError, ContractsError, GossipError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        outcome: int = options.run(options)
        return outcome
    except BaseException as error:
        if options.debug or isinstance(error, SystemExit):
            raise
        return _explain(error)


def _explain(error: BaseException) -> int:
    """Say in one line what went wrong; the exit code."""
    causes = list(_leaves(error))
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return EXIT_INTERRUPTED
    cause = next((cause for cause in causes if isinstance(cause, _EXPECTED)), causes[0])
    text = str(cause)
    if not isinstance(cause, _EXPECTED):
        text = f"unexpected {type(cause).__name__}: {text} (`gpupool --debug` shows where)"
    print(f"gpupool: {text}", file=sys.stderr)  # noqa: T201 the answer to the user
    return EXIT_USAGE if isinstance(cause, ConfigError | KeyFileError) else EXIT_FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside the groups that nurseries raise."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; completions and the manual page come from it, too."""
    parser = argparse.ArgumentParser(
        prog="gpupool",
        description="Node agent for GPU hosts of a compute pool on TON.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted.",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_agent_commands(verbs)
    _add_keys(verbs)
    _add_devnet(verbs)
    _add_pool(verbs)
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
    parser.set_defaults(run=run)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="settings (default: %(default)s)"
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _add_owner(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--liteserver", required=required, action="append", metavar="HOST:PORT:KEY", help="repeat for several"
    )
    parser.add_argument("--network", required=required, help='"mainnet", "testnet" or a global id')
    parser.add_argument("--wallet-key", required=required, type=Path, metavar="FILE", help="the owner's key")


def _add_agent_commands(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = _command(
        verbs,
        "init",
        commands.init,
        "make keys, a config and an empty journal for a new agent",
        "gpupool init --dir /etc/gpupool --network -217 --pool 0:ab... --policy-file policy.toml \\\n"
        "    --liteserver 203.0.113.5:4924:BASE64KEY --engine http://127.0.0.1:8000/metrics \\\n"
        "    --peer NODEKEY@/ip4/203.0.113.7/tcp/4001 --software-dir platform --software-root root.der",
    )
    init.add_argument("--dir", type=Path, default=DEFAULT_CONFIG.parent, help="folder to fill (default: %(default)s)")
    init.add_argument("--network", required=True, help='"mainnet", "testnet" or a global id')
    init.add_argument("--pool", required=True, metavar="ADDRESS", help="the PoolOperator contract")
    init.add_argument("--policy-file", required=True, type=Path, metavar="FILE", help="the pool's policy document")
    init.add_argument(
        "--liteserver", required=True, action="append", metavar="HOST:PORT:KEY", help="repeat for several"
    )
    init.add_argument("--engine", required=True, metavar="URL", help="the inference engine's metrics endpoint")
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
        "--software-dir", required=True, type=Path, metavar="DIR", help="software platform (development networks)"
    )
    init.add_argument(
        "--software-root", required=True, type=Path, metavar="FILE", help="root certificate of that platform"
    )
    _add_json(init)

    run = _command(verbs, "run", commands.run, "run the agent", "gpupool run --config /etc/gpupool/agent.toml")
    _add_config(run)
    status = _command(verbs, "status", commands.status, "show what the running agent does", "gpupool status --json")
    _add_config(status)
    _add_json(status)
    version = _command(verbs, "version", commands.version, "print the version", "gpupool version --json")
    _add_json(version)


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
        "gpupool devnet --agents 7 --epochs 2 --chaos kill",
    )
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
    devnet.add_argument("--seed", type=int, default=1, help="seed of the load (default: %(default)s)")
    devnet.add_argument(
        "--rate", type=float, default=4.0, help="requests per second at the first engine (default: %(default)s)"
    )
    _add_json(devnet)


def _add_pool(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pool = verbs.add_parser("pool", help="deploy a pool, join one, look at it, claim rewards")
    pool_verbs = pool.add_subparsers(title="commands", required=True, metavar="COMMAND")
    deploy = _command(
        pool_verbs,
        "deploy",
        commands.pool_deploy,
        "deploy a new pool that this wallet owns",
        "gpupool pool deploy --liteserver 203.0.113.5:4924:BASE64KEY --network testnet --wallet-key wallet.key \\\n"
        "    --policy-file policy.toml --epoch-seconds 604800",
    )
    _add_owner(deploy, required=True)
    deploy.add_argument("--policy-file", required=True, type=Path, metavar="FILE", help="the pool's policy document")
    deploy.add_argument("--pool-id", type=int, default=1, help="number among the owner's pools (default: %(default)s)")
    deploy.add_argument("--epoch-seconds", type=int, default=604_800, help="length of an epoch (default: %(default)s)")
    deploy.add_argument("--fee-bps", type=int, default=200, help="operators' fee, 1/10000 (default: %(default)s)")
    deploy.add_argument("--min-stake", default="100", metavar="TON", help="least stake (default: %(default)s)")
    deploy.add_argument("--max-participants", type=int, default=1000, help="(default: %(default)s)")
    _add_json(deploy)

    register = _command(
        pool_verbs, "register", commands.pool_register, "stake and join the pool", "gpupool pool register --stake 100"
    )
    register.add_argument("--stake", default="100", metavar="TON", help="stake (default: %(default)s)")
    hand_over = _command(
        pool_verbs,
        "hand-over",
        commands.pool_hand_over,
        "give the pool to its registered participants as operators, for ever (owner)",
        "gpupool pool hand-over --pool 0:ab... --liteserver 203.0.113.5:4924:BASE64KEY --network testnet \\\n"
        "    --wallet-key owner.key",
    )
    hand_over.add_argument("--yes", action="store_true", help="do it; without, only show who would be operator")
    hand_over.add_argument("--pool", metavar="ADDRESS", help="the PoolOperator contract (default: the config's)")
    _add_owner(hand_over, required=False)
    status = _command(
        pool_verbs, "status", commands.pool_status, "show the pool as it stands on chain", "gpupool pool status --json"
    )
    claim = _command(
        pool_verbs, "claim", commands.pool_claim, "have the pool pay what was earned", "gpupool pool claim --json"
    )
    claim.add_argument("--participant", metavar="ADDRESS", help="claim for somebody else, who is paid all the same")
    for parser in (register, hand_over, status, claim):
        _add_config(parser)
        _add_json(parser)
