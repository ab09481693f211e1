"""What each command of `gpupool` does; arguments come from `agent.command_line`, errors go to `agent.cli`.

Daemon, devnet and chain are imported where they are used: `gpupool status` need not load libp2p.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent import arguments
from agent.config import load_config
from agent.errors import ConfigError
from agent.invoking import PACKAGED_SETTINGS, spelled
from agent.output import EXIT_USAGE, answer, note, say

if TYPE_CHECKING:
    from agent.setup import Peer
    from gossip.policy import PoolPolicy

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/4001"
DEFAULT_WINDOW_S = 60
PACKAGED_DATA = Path("/var/lib/gpupool")
_FRESH_WARNING = (
    "nothing was done. A fresh journal knows nothing that this node key signed: the agent first learns it from "
    "operators of more than two thirds of the weight, and waits until they answer. A record that none of them holds "
    "would be signed a second time: then the log is forked, the key is dead, and its uncounted work is lost. "
    "`gpupool db import` of an export is better; a new node key (`gpupool keys rotate`) is safe. Add --yes to do it"
)

# The agent.


def init(options: argparse.Namespace) -> int:
    """Make a new agent's files."""
    from agent.keys import offering
    from agent.keys.verbs import for_funding
    from agent.setup import Answers, init_agent
    from contracts.wallet import wallet_address

    provider = _proof(options)
    policy_file = arguments.existing("--policy-file", options.policy_file)
    policy = arguments.read_policy(policy_file)
    prepared = offering.prepare(options)
    made = init_agent(
        options.dir,
        Answers(
            network=arguments.parse_network(options.network),
            pool=str(arguments.parse_address("--pool", options.pool)),
            policy_file=str(policy_file),
            liteservers=[arguments.parse_liteserver(text) for text in options.liteserver],
            work=_work(options),
            attestation=_attestation(options, provider),
            data_dir=_data_dir(options),
            listen=options.listen or [DEFAULT_LISTEN],
            announce=options.announce,
            peers=_peers(options.peer),
            web_port=options.web_port,
            # The policy's longest window holds at least two of ours.
            more={"meter": {"window_s": max(1, min(DEFAULT_WINDOW_S, policy.work.window_max_s // 2))}},
        ),
        has_policy_copied=True,
    )
    _warn(options, policy)
    config, node_key = made.config, made.node_key.public.hex()
    wallet = wallet_address(made.wallet_key.public, config.wallet.version, global_id=config.pool.global_id)
    funded = for_funding(wallet, config.pool.global_id)
    if not options.json:  # before anything is asked: an interrupt there leaves it said
        say(f"made {config.path}, keys and journal\nnode key  {node_key}\nwallet    {funded}")
    try:
        backup = offering.offer(options, config.path, prepared)
    except KeyboardInterrupt:
        note(f"interrupted; what was made stays, without a backup: gpupool keys backup FILE --config {config.path}")
        raise
    value = {
        "config": str(config.path),
        "node_key": node_key,
        "wallet": str(wallet),
        "wallet_for_funding": funded,
        "backup": None if backup is None else str(backup),
    }
    return answer(
        options,
        value,
        f"backup    {'none yet' if backup is None else backup}\n"
        "next: fund the wallet, then\n"
        f"  {spelled('gpupool pool register', config.path)}\n"
        f"  {spelled('systemctl enable --now gpupool-agent', config.path)}",
    )


def _warn(options: argparse.Namespace, policy: PoolPolicy) -> None:
    """Say what is allowed, and will not earn."""
    measured = "engine" if options.engine else "cocoon"
    if measured != policy.work.source:
        note(f"this pool counts the figures of --{policy.work.source}: what --{measured} measures earns nothing in it")
    if not options.peer:
        note("no --peer is named: this agent hears of no other until one is (p2p.peers), or another dials it")


def _data_dir(options: argparse.Namespace) -> str:
    """Where the journal goes: for settings in /etc/gpupool there, where the systemd units let an agent write."""
    if options.data_dir is not None:
        return str(options.data_dir.absolute())
    folder = options.dir.absolute()
    if folder.is_relative_to(PACKAGED_SETTINGS):
        return str(PACKAGED_DATA / folder.relative_to(PACKAGED_SETTINGS))
    return "data"


def _work(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """The tables of what is measured."""
    tables: dict[str, dict[str, object]] = {}
    if options.engine:
        tables["engine"] = {"url": options.engine[0] if len(options.engine) == 1 else options.engine}
    if options.cocoon:
        tables["cocoon"] = {"workers": options.cocoon}
    if options.nvml:
        tables["gpus"] = {"nvml": True}
    if options.receipts_port is not None:
        tables["receipts"] = {"port": options.receipts_port}
    return tables


def _proof(options: argparse.Namespace) -> str:
    """What proves the new agent's host, if that is said without contradiction."""
    proof: str = options.attest or ("configfs" if options.software_dir is None else "software")
    if proof == "cocoon" and options.guest is None:
        raise ConfigError("--guest is missing: HOST:PORT of the Cocoon worker's TLS port")
    for option, value, owner in (
        ("--guest", options.guest, "cocoon"),
        ("--software-dir", options.software_dir, "software"),
    ):
        if value is not None and proof != owner:
            raise ConfigError(f"{option}: is for --attest {owner}")
    return proof


def _attestation(options: argparse.Namespace, provider: str) -> dict[str, str | bool | None]:
    """How the new agent will prove what it runs on; whether that fits together is checked with the config."""
    folder, root = options.software_dir, options.software_root
    return {
        "provider": provider,
        "gpu": True if options.gpu else None,
        "guest_address": options.guest,
        "software_dir": None if folder is None else str(arguments.existing("--software-dir", folder, folder=True)),
        "software_root_file": None if root is None else str(arguments.existing("--software-root", root)),
    }


def _peers(texts: Sequence[str]) -> list[Peer]:
    """Peers as they were typed; one that was named twice has two addresses."""
    from agent.setup import Peer

    addresses: dict[str, list[str]] = {}
    for text in texts:
        node_key, address = arguments.parse_peer(text)
        addresses.setdefault(node_key, []).append(address)
    return [Peer(node_key=node_key, addresses=each) for node_key, each in addresses.items()]


def run(options: argparse.Namespace) -> int:
    """Run the agent in the foreground, as systemd does."""
    from agent.daemon import run_agent
    from agent.log import setup_logging
    from agent.versions import first_of

    config = load_config(options.config)
    if options.fresh:
        from agent.setup import fresh_journal

        if not options.yes:
            note(_FRESH_WARNING)
            return EXIT_USAGE
        fresh_journal(config)
        if _is_anothers(config.data_dir):
            say(f"made {config.journal_file}\nnext: {spelled('systemctl start gpupool-agent', config.path)}")
            return 0
    setup_logging(config.log.level)
    try:
        run_agent(config)
    except* ConfigError as group:  # by itself, or out of a task of the agent's
        error = first_of(group)
        # What is checked where it is used knows its key, but not which file it stands in.
        if str(config.path) in str(error):
            raise
        raise ConfigError(f"{config.path}: {error}") from error
    return 0


def _is_anothers(data_dir: Path) -> bool:
    """Whether root shall not run this agent: what it wrote the agent's own user could not open."""
    return os.geteuid() == 0 and data_dir.stat().st_uid != 0


def config_check(options: argparse.Namespace) -> int:
    """Read settings and policy documents as `run` does, and say what they name."""
    from agent.policies import load_policies, require_window

    config = load_config(options.file)
    held = load_policies(config)
    require_window(config, held)
    policies = [policy.hash.hex() for policy in held]
    value = {
        "file": str(config.path),
        "pool": str(config.pool.contract),
        "network": config.pool.network,
        "data_dir": str(config.data_dir),
        "policies": policies,
    }
    return answer(
        options,
        value,
        f"{options.file}: can be used\n"
        f"pool      {value['pool']} on {config.pool.network}\n"
        f"policy    {', '.join(policies)}\n"
        f"data_dir  {config.data_dir}",
    )


def status(options: argparse.Namespace) -> int:
    """Ask the running agent how it is; with --watch, again and again."""
    if options.watch:
        from agent.watch import watch

        return watch(options)
    from agent.client import ask_status
    from agent.screens import status_text

    value = ask_status(load_config(options.config))
    return answer(options, value, status_text(value, options.config))


def devnet(options: argparse.Namespace) -> int:
    """Run a pool on this machine."""
    from agent.devnet.supervisor import DevnetOptions, run_devnet

    return run_devnet(
        DevnetOptions(
            agents=options.agents,
            epochs=options.epochs,
            epoch_s=options.epoch_seconds,
            directory=options.dir,
            keep=options.keep or options.dir is not None,
            engine_url=options.engine,
            chaos=options.chaos,
            source=options.source,
            receipts=options.receipts,
            cheat=options.cheat,
            policy_level=options.policy_level,
            seed=options.seed,
            rate=options.rate,
            as_json=options.json,
        )
    )
