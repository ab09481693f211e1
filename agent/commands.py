"""What each command of `gpupool` does; arguments come from `agent.cli`, errors go back to it.

Daemon, devnet and chain are imported where they are used: `gpupool version` need not load libp2p.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from agent import arguments
from agent.config import NETWORKS, Config, load_config
from agent.errors import ConfigError
from agent.identity import create_key, load_key
from contracts.errors import InvalidValueError
from contracts.model import NANO, Address

if TYPE_CHECKING:
    from agent.setup import Peer
    from contracts.chain import Chain, LiteServer
    from contracts.wallet import Wallet

EXIT_USAGE = 2
DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/4001"
DEFAULT_WINDOW_S = 60
WALLET_VERSION = "v5r1"

_T = TypeVar("_T")


def say(text: str) -> None:
    """Print for the user: the command's answer, on standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Tell the user what is going on, on standard error."""
    sys.stderr.write(f"gpupool: {text}\n")


def answer(options: argparse.Namespace, value: dict[str, Any], text: str) -> int:
    """Print `value` as JSON if it was asked for, else `text`."""
    say(json.dumps(value, indent=2) if options.json else text)
    return 0


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
            engine_url=options.engine,
            software_dir=str(arguments.existing("--software-dir", options.software_dir, folder=True)),
            software_root_file=str(arguments.existing("--software-root", options.software_root)),
            data_dir=str(options.data_dir.absolute()) if options.data_dir is not None else "data",
            listen=options.listen or [DEFAULT_LISTEN],
            announce=options.announce,
            peers=_peers(options.peer),
            web_port=options.web_port,
            # The policy's longest window holds at least two of ours.
            more={"engine": {"window_s": max(1, min(DEFAULT_WINDOW_S, window_max_s // 2))}},
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
    """Ask the running agent how it is."""
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
            seed=options.seed,
            rate=options.rate,
            as_json=options.json,
        )
    )


# The pool.


def pool_deploy(options: argparse.Namespace) -> int:
    """Deploy a pool."""
    from agent import pool_ops
    from contracts.model import PoolParams, require_uint

    policy = arguments.read_policy(options.policy_file)
    try:
        params = PoolParams(
            fee_bps=options.fee_bps,
            min_stake_nanoton=arguments.parse_ton("--min-stake", options.min_stake),
            max_participants=options.max_participants,
            registration_open=True,
            policy_hash=policy.hash,
            max_refund_nanoton=NANO // 10,
        )
        require_uint("pool_id", options.pool_id, 64)
        require_uint("epoch_seconds", options.epoch_seconds, 31)
    except InvalidValueError as error:
        raise ConfigError(f"pool deploy: {error}") from error
    if options.epoch_seconds == 0:
        raise ConfigError("--epoch-seconds 0: expected at least a second")

    async def deploy(chain: Chain, wallet: Wallet) -> int:
        pool = await pool_ops.deploy_pool(
            chain, wallet, pool_id=options.pool_id, epoch_duration_s=options.epoch_seconds, params=params
        )
        value = {"pool": str(pool), "owner": str(wallet.address), "policy_hash": policy.hash.hex()}
        return answer(options, value, f"pool      {pool}\nowner     {wallet.address}\npolicy    {policy.hash.hex()}")

    return with_owner(options, deploy)


def pool_register(options: argparse.Namespace) -> int:
    """Stake and join."""
    from agent import pool_ops
    from agent.screens import ton_exact

    config = load_config(options.config)
    node_key = load_key(config.resolve(config.identity.node_key_file)).public
    stake = arguments.parse_ton("--stake", options.stake)

    async def register(chain: Chain, wallet: Wallet) -> int:
        await pool_ops.register(chain, wallet, config.pool.contract, node_key=node_key, stake_nanoton=stake)
        value = {"participant": str(wallet.address), "node_key": node_key.hex(), "stake_nanoton": stake}
        return answer(options, value, f"registered {wallet.address} with {ton_exact(stake)}")

    return with_config(config, register)


def pool_hand_over(options: argparse.Namespace) -> int:
    """Hand the pool to its operators; without --yes only show who that would be."""
    from agent import pool_ops
    from agent.screens import operators_text, operators_value
    from contracts.reader import PoolReader

    named = ("pool", "liteserver", "network", "wallet_key")
    by_hand = [name for name in named if getattr(options, name)]
    if by_hand and len(by_hand) < len(named):
        missing = ", ".join("--" + name.replace("_", "-") for name in named if name not in by_hand)
        raise ConfigError(f"pool hand-over: {missing} missing; give all four, or --config alone")
    config = None if by_hand else load_config(options.config)
    pool = config.pool.contract if config else arguments.parse_address("--pool", options.pool)

    async def hand_over(chain: Chain, wallet: Wallet) -> int:
        reader = PoolReader(chain, pool)
        await pool_ops.require_owner(reader, wallet)
        participants = await reader.registry()
        operators = pool_ops.first_operators(participants)
        value = operators_value(operators, participants)
        if not options.yes:
            answer(options, {**value, "done": False}, f"pool {pool} would be run by {operators_text(value)}")
            sys.stderr.write("gpupool: nothing was done; a hand-over cannot be undone: add --yes to do it\n")
            return EXIT_USAGE
        await pool_ops.hand_over(chain, wallet, pool, operators)
        return answer(options, {**value, "done": True}, f"pool {pool} is now run by {operators_text(value)}")

    return with_config(config, hand_over) if config else with_owner(options, hand_over)


def pool_status(options: argparse.Namespace) -> int:
    """Show the pool on chain."""
    from agent.screens import pool_text, pool_value
    from contracts.reader import PoolReader

    config = load_config(options.config)

    async def show(chain: Chain, _wallet: Wallet) -> int:
        reader = PoolReader(chain, config.pool.contract)
        value = pool_value(await reader.state(), await reader.rewards(), await reader.registry())
        return answer(options, value, pool_text(value))

    return with_config(config, show)


def pool_claim(options: argparse.Namespace) -> int:
    """Claim for this agent's wallet."""
    from agent import pool_ops
    from agent.claims import landed_settlement
    from agent.screens import ton_exact

    config = load_config(options.config)
    named = arguments.parse_address("--participant", options.participant) if options.participant else None

    async def claim(chain: Chain, wallet: Wallet) -> int:
        participant = named or wallet.address
        settlement = await landed_settlement(chain, config, note)
        claimed = await pool_ops.claim(chain, wallet, config.pool.contract, settlement, participant)
        value = {
            "participant": str(participant),
            "paid_now_nanoton": claimed.paid_now_nanoton,
            "paid_nanoton": claimed.paid_nanoton,
            "earned_nanoton": claimed.earned_nanoton,
        }
        return answer(options, value, f"paid {ton_exact(claimed.paid_now_nanoton)} to {participant}")

    return with_config(config, claim)


# Shared by the commands.


def with_config(config: Config, action: Callable[[Chain, Wallet], Awaitable[_T]]) -> _T:
    """Run `action` with the chain and the wallet of a config."""
    return with_chain(
        liteservers([(s.host, s.port, s.public_key) for s in config.chain.liteservers]),
        load_key(config.resolve(config.wallet.key_file)).seed,
        config.wallet.version,
        config.pool.global_id,
        config.wallet_lock_file,
        action,
    )


def with_owner(options: argparse.Namespace, action: Callable[[Chain, Wallet], Awaitable[_T]]) -> _T:
    """Run `action` with the chain and the wallet that --liteserver, --network and --wallet-key name."""
    key_file: Path = options.wallet_key
    return with_chain(
        liteservers([arguments.parse_liteserver(text) for text in options.liteserver]),
        load_key(key_file).seed,
        WALLET_VERSION,
        arguments.global_id(arguments.parse_network(options.network)),
        key_file.with_name(key_file.name + ".lock"),
        action,
    )


def with_chain(
    servers: list[LiteServer],
    seed: bytes,
    wallet_version: str,
    global_id: int,
    lock_file: Path,
    action: Callable[[Chain, Wallet], Awaitable[_T]],
) -> _T:
    """Run `action` with an open chain and a wallet."""
    from contracts.chain import open_chain
    from contracts.wallet import Wallet

    async def main() -> _T:
        async with open_chain(servers) as chain:
            return await action(chain, Wallet(chain, seed, wallet_version, global_id=global_id, lock_file=lock_file))

    return trio.run(main)


def liteservers(servers: Sequence[tuple[str, int, str]]) -> list[LiteServer]:
    """Liteservers from (host, port, base64 key)."""
    from contracts.chain import LiteServer

    return [LiteServer(host=host, port=port, public_key=base64.b64decode(key)) for host, port, key in servers]
