"""What each command of `gpupool` does; arguments come from `agent.cli`, errors go back to it.

Daemon, devnet and chain are imported where they are used: `gpupool version` need not load libp2p.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from agent import arguments
from agent.config import load_config
from agent.errors import ConfigError
from agent.identity import create_key
from agent.output import EXIT_USAGE, answer, note
from agent.tables import NETWORKS
from contracts.model import Address

if TYPE_CHECKING:
    from agent.setup import Peer

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/4001"
DEFAULT_WINDOW_S = 60
WALLET_VERSION = "v5r1"
_FRESH_WARNING = (
    "nothing was done. A fresh journal knows nothing that this node key signed: the agent first learns it from "
    "operators of more than two thirds of the weight, and waits until they answer. A record that none of them holds "
    "would be signed a second time: then the log is forked, the key is dead, and its uncounted work is lost. "
    "`gpupool db import` of an export is better; a new wallet and node key are safe. Add --yes to do it"
)

# The agent.


def init(options: argparse.Namespace) -> int:
    """Make a new agent's files."""
    from agent.setup import Answers, init_agent
    from contracts.wallet import wallet_address

    policy_file = arguments.existing("--policy-file", options.policy_file)
    window_max_s = arguments.read_policy(policy_file).work.window_max_s
    made = init_agent(
        options.dir,
        Answers(
            network=arguments.parse_network(options.network),
            pool=str(arguments.parse_address("--pool", options.pool)),
            policy_file=str(policy_file),
            liteservers=[arguments.parse_liteserver(text) for text in options.liteserver],
            work=_work(options),
            attestation=_attestation(options),
            data_dir=str(options.data_dir.absolute()) if options.data_dir is not None else "data",
            listen=options.listen or [DEFAULT_LISTEN],
            announce=options.announce,
            peers=_peers(options.peer),
            web_port=options.web_port,
            # The policy's longest window holds at least two of ours.
            more={"meter": {"window_s": max(1, min(DEFAULT_WINDOW_S, window_max_s // 2))}},
        ),
    )
    config = made.config
    wallet = wallet_address(made.wallet_key.public, config.wallet.version, global_id=config.pool.global_id)
    value = {"config": str(config.path), "node_key": made.node_key.public.hex(), "wallet": str(wallet)}
    return answer(
        options,
        value,
        f"made {config.path}, keys and journal\n"
        f"node key  {value['node_key']}\n"
        f"wallet    {_for_funding(wallet, config.pool.global_id)}\n"
        "next: back up the keys, fund the wallet, then\n"
        f"  gpupool pool register --config {config.path}\n"
        f"  gpupool run --config {config.path}",
    )


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


def _attestation(options: argparse.Namespace) -> dict[str, str | bool | None]:
    """How the new agent will prove what it runs on; whether that fits together is checked with the config."""
    folder, root = options.software_dir, options.software_root
    return {
        "provider": options.attest or ("configfs" if folder is None else "software"),
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


def keys_create(options: argparse.Namespace) -> int:
    """Make a key file."""
    from contracts.wallet import wallet_address

    network = arguments.parse_network(options.network) if options.network is not None else None
    key = create_key(options.file.absolute())
    value = {"file": str(options.file), "public_key": key.public.hex()}
    text = f"made {options.file}; back it up\npublic    {key.public.hex()}"
    if network is not None:
        global_id = arguments.global_id(network)
        wallet = wallet_address(key.public, WALLET_VERSION, global_id=global_id)
        value["wallet"] = str(wallet)
        text += f"\nwallet    {_for_funding(wallet, global_id)}"
    return answer(options, value, text)


def _for_funding(wallet: Address, global_id: int) -> str:
    """The form in which a wallet that does not stand yet is given to whoever sends it TON."""
    return wallet.friendly(bounceable=False, testnet=global_id != NETWORKS["mainnet"])


def run(options: argparse.Namespace) -> int:
    """Run the agent in the foreground, as systemd does."""
    from agent.daemon import run_agent
    from agent.log import setup_logging

    config = load_config(options.config)
    if options.fresh:
        from agent.setup import fresh_journal

        if not options.yes:
            note(_FRESH_WARNING)
            return EXIT_USAGE
        fresh_journal(config)
    setup_logging(config.log.level)
    try:
        run_agent(config)
    except ConfigError as error:
        # What is checked against the policy knows its key, but not which file it stands in.
        if str(config.path) in str(error):
            raise
        raise ConfigError(f"{config.path}: {error}") from error
    return 0


def status(options: argparse.Namespace) -> int:
    """Ask the running agent how it is; with --watch, again and again."""
    if options.watch:
        from agent.watch import watch

        return watch(options)
    from agent.client import ask_status
    from agent.screens import status_text

    value = ask_status(load_config(options.config))
    return answer(options, value, status_text(value))


def version(options: argparse.Namespace) -> int:
    """Print the version."""
    value = {"version": metadata.version("gpupool-agent")}
    return answer(options, value, f"gpupool-agent {value['version']}")


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
