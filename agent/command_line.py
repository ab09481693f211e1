"""The whole command line as one tree of parsers: help, completions and the manual page come from it.

What each verb does stands where its `run` says; it is imported when it runs. A family with a folder of its own has its
verbs in that folder's `parser`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from agent.attest.parser import add_attest
from agent.audit.parser import add_audit
from agent.db.parser import add_db
from agent.devnet.cheats import CHEATS, LEVELS
from agent.doctor.parser import add_doctor
from agent.earnings.parser import add_earnings
from agent.errors import UsageError
from agent.keys.parser import AT_INIT, add_keys
from agent.metrics.parser import add_metrics
from agent.output import EXIT_CODES, say
from agent.pool.parser import add_pool
from agent.score.parser import add_score
from agent.upgrade.parser import add_upgrade
from agent.verbs import DEFAULT_CONFIG, Verb, Verbs, add_family, add_verb, add_verbs, arg, subcommands, subparser
from agent.work.parser import add_work

SHELLS = ("bash", "zsh", "fish")
_OF_A_VERB = {"--json": "--json", "--config": "--config FILE"}
"""Options that nearly every command takes, and how they are written."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `gpupool`. It raises `UsageError` for arguments that it does not take."""
    codes = "".join(f"\n  {code:<4}{meaning}" for code, meaning in EXIT_CODES.items())
    parser: argparse.ArgumentParser = _Parser(
        prog="gpupool",
        description="Node agent for GPU hosts of a compute pool on TON.",
        epilog=f"exit codes:{codes}\n  10 to 16: the doctor's (gpupool doctor --help)\n\n"
        "example:\n  gpupool status --watch",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks; goes first")
    parser.add_argument("--version", action=_Version, help="print the version")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_init(verbs)
    for verb in (RUN, STATUS, VERSION, COMPLETIONS):
        add_verb(verbs, verb, config=DEFAULT_CONFIG)
    config = add_family(verbs, "config", "look at settings")
    add_verbs(config, (CONFIG_CHECK,), {}, config=DEFAULT_CONFIG)
    add_keys(verbs, DEFAULT_CONFIG)
    _add_devnet(verbs)
    add_pool(verbs, DEFAULT_CONFIG)
    add_attest(verbs, DEFAULT_CONFIG)
    add_earnings(verbs, DEFAULT_CONFIG)
    add_work(verbs, DEFAULT_CONFIG)
    add_score(verbs, DEFAULT_CONFIG)
    add_db(verbs, DEFAULT_CONFIG)
    add_audit(verbs, DEFAULT_CONFIG)
    add_doctor(verbs, DEFAULT_CONFIG)
    add_upgrade(verbs, DEFAULT_CONFIG)
    add_metrics(verbs, DEFAULT_CONFIG)
    return parser


def require_order(parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Refuse --json and --config before the command that takes them: argparse would call them, or FILE, unknown.

    Raises:
        UsageError: one of them stands there.
    """
    for word in given:
        commands = subcommands(parser)
        option = word.partition("=")[0]
        if commands and option in _OF_A_VERB:
            parser.error(f"{option} goes after the command: {parser.prog} COMMAND {_OF_A_VERB[option]}")
        if word in commands:
            parser = subparser(parser, word)
        elif word != "--debug":
            return


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, like everything else."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the command that may have been meant, where argparse lists all."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            from agent.toml_errors import meant

            nearest = meant(value, action.choices)
            if nearest:
                raise argparse.ArgumentError(action, f"invalid choice: {value!r}{nearest}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        if message.endswith("required: COMMAND"):
            message = f"COMMAND missing, one of {', '.join(subcommands(self))}"
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def print_help(self, file: object = None) -> None:
        """Print it as every answer is printed."""
        say(self.format_help().rstrip("\n"))


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from agent.about import version_text

        say(version_text())
        parser.exit()


INIT = Verb(
    name="init",
    run="agent.commands.init",
    summary="make keys, a config and an empty journal for a new agent",
    example="--dir /etc/gpupool --network -217 --pool 0:ab... --policy-file policy.toml \\\n"
    "    --liteserver 203.0.113.5:4924:BASE64KEY --engine http://127.0.0.1:8000/metrics \\\n"
    "    --peer NODEKEY@/ip4/203.0.113.7/tcp/4001 --attest configfs",
    arguments=(
        arg("--dir", type=Path, default=DEFAULT_CONFIG.parent, help="folder to fill (default: %(default)s)"),
        arg("--network", required=True, help='"mainnet", "testnet" or a global id'),
        arg("--pool", required=True, metavar="ADDRESS", help="the PoolOperator contract"),
        arg("--policy-file", required=True, type=Path, metavar="FILE", help="the pool's policy document"),
        arg("--liteserver", required=True, action="append", metavar="HOST:PORT:KEY", help="repeat for several"),
        arg("--nvml", action="store_true", help="read this host's GPUs, too, through NVIDIA's driver"),
        arg("--receipts-port", type=int, metavar="PORT", help="take receipts of gateways on this port"),
        arg(
            "--peer",
            action="append",
            default=[],
            metavar="NODEKEY@MULTIADDR",
            help="another agent of the pool; repeatable",
        ),
        arg("--listen", action="append", metavar="MULTIADDR", help="repeatable (default: /ip4/0.0.0.0/tcp/4001)"),
        arg(
            "--announce",
            action="append",
            default=[],
            metavar="MULTIADDR",
            help="where others reach this host; repeatable",
        ),
        arg(
            "--data-dir",
            type=Path,
            metavar="DIR",
            help="where the journal goes (default: data in --dir; for one in /etc/gpupool, /var/lib/gpupool)",
        ),
        arg("--web-port", type=int, default=9464, metavar="PORT", help="of status and metrics (default: %(default)s)"),
        arg(
            "--attest",
            choices=("configfs", "cocoon", "software"),
            help="what proves this host: it is a TDX guest (configfs, the default), a Cocoon guest runs on it "
            "(--guest), or a software platform (--software-dir)",
        ),
        arg("--guest", metavar="HOST:PORT", help="TLS port of the Cocoon worker in the guest"),
        arg("--gpu", action="store_true", help="have the GPUs, in confidential mode, report too"),
        arg("--software-dir", type=Path, metavar="DIR", help="software platform (development networks)"),
        arg("--software-root", type=Path, metavar="FILE", help="root certificate of that platform"),
        *AT_INIT,
    ),
    has_config=False,
)

RUN = Verb(
    name="run",
    run="agent.commands.run",
    summary="run the agent",
    detail="In the foreground, until SIGTERM or Ctrl-C; it logs to standard error, in JSON where that is no terminal.",
    example="--config /etc/gpupool/agent.toml",
    arguments=(
        arg(
            "--fresh", action="store_true", help="the journal is lost: make an empty one, learn the log from operators"
        ),
        arg("--yes", action="store_true", help="with --fresh: do it; without, only say what it risks"),
    ),
    has_json=False,
)

STATUS = Verb(
    name="status",
    run="agent.commands.status",
    summary="show what the running agent does",
    example="--watch",
    arguments=(
        arg("--watch", action="store_true", help="a live screen, until q or Ctrl-C"),
        arg(
            "--interval", type=float, default=2.0, metavar="S", help="with --watch: seconds between looks (default: 2)"
        ),
    ),
)

CONFIG_CHECK = Verb(
    name="check",
    run="agent.commands.config_check",
    summary="say whether a settings file can be used, or the key and the line that are wrong in it",
    detail="""Settings and policy documents are read as the agent reads them when it starts; nothing else is looked at,
and no agent is asked (`gpupool doctor` does that). An agent that runs keeps the settings with which it started.

Exit codes: 0 it can be used; 2 it cannot.""",
    example="/etc/gpupool/agent.toml",
    arguments=(
        arg(
            "file", type=Path, nargs="?", default=DEFAULT_CONFIG, metavar="FILE", help="settings (default: %(default)s)"
        ),
    ),
    has_config=False,
)

VERSION = Verb(
    name="version", run="agent.about.version", summary="print the version", example="--json", has_config=False
)

COMPLETIONS = Verb(
    name="completions",
    run="agent.about.completions",
    summary="print what makes a shell complete this command",
    detail="""The Debian package installs all three. By hand:

  gpupool completions bash > ~/.local/share/bash-completion/completions/gpupool
  gpupool completions zsh > "${fpath[1]}/_gpupool"
  gpupool completions fish > ~/.config/fish/completions/gpupool.fish""",
    example="bash",
    arguments=(arg("shell", choices=SHELLS, help="which shell"),),
    has_config=False,
    has_json=False,
)

DEVNET = Verb(
    name="devnet",
    run="agent.commands.devnet",
    summary="run a whole pool on this machine: a TON chain, agents, inference engines; settle epochs, claim, check",
    detail="".join(
        f"\n\n{title}:" + "".join(f"\n  {name:<10} {what}" for name, what in choices.items())
        for title, choices in (("Strategies of --cheat", CHEATS), ("Levels of --policy-level", LEVELS))
    ),
    example="--agents 7 --epochs 2 --chaos kill\n--cheat inflate --policy-level receipted",
    arguments=(
        arg("--agents", type=int, default=4, metavar="N", help="agents, 1 to 25 (default: %(default)s)"),
        arg("--epochs", type=int, default=3, metavar="K", help="epochs to settle (default: %(default)s)"),
        arg("--epoch-seconds", type=int, default=25, metavar="S", help="length of an epoch (default: %(default)s)"),
        arg("--dir", type=Path, metavar="DIR", help="where to keep it all (default: a temporary folder)"),
        arg("--keep", action="store_true", help="keep the folder afterwards"),
        arg("--engine", metavar="URL", help="metrics URL of a real inference server for the first agent"),
        arg(
            "--chaos",
            choices=("kill", "restart", "chain"),
            help="kill one agent once it worked; restart: and start it again (2 epochs or more); chain: restart the "
            "chain",
        ),
        arg(
            "--source",
            choices=("engine", "cocoon"),
            default="engine",
            help="what agents measure (default: %(default)s)",
        ),
        arg("--receipts", action="store_true", help="a gateway signs receipts; tokens count up to them"),
        arg("--cheat", choices=tuple(CHEATS), help="how the last agent cheats, as above"),
        arg("--policy-level", choices=tuple(LEVELS), help="what the policy demands, as above"),
        arg("--seed", type=int, default=1, metavar="N", help="seed of the load (default: %(default)s)"),
        arg(
            "--rate",
            type=float,
            default=4.0,
            metavar="R",
            help="requests per second at the first engine (default: %(default)s)",
        ),
    ),
    has_config=False,
)


def _add_init(verbs: Verbs[argparse.ArgumentParser]) -> None:
    init = add_verb(verbs, INIT, config=DEFAULT_CONFIG)
    work = init.add_mutually_exclusive_group(required=True)
    work.add_argument("--engine", action="append", metavar="URL", help="an engine's metrics endpoint; repeatable")
    work.add_argument(
        "--cocoon", action="append", type=int, metavar="N", help="number of a Cocoon worker on this host; repeatable"
    )


def _add_devnet(verbs: Verbs[argparse.ArgumentParser]) -> None:
    add_verb(verbs, DEVNET, config=DEFAULT_CONFIG)
