"""What each command of `gpupool` does; arguments come from `agent.cli`, errors go back to it.

Daemon, devnet and chain are imported where they are used: `gpupool version` need not load libp2p.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import trio

from agent.config import NETWORKS, Config, load_config
from agent.errors import ConfigError, OperationError
from agent.identity import load_key
from contracts.model import NANO, Address

if TYPE_CHECKING:
    from contracts.chain import Chain, LiteServer
    from contracts.wallet import Wallet

_T = TypeVar("_T")


def say(text: str) -> None:
    """Print for the user: the command's answer, on standard output."""
    sys.stdout.write(text + "\n")


def answer(options: argparse.Namespace, value: dict[str, Any], text: str) -> int:
    """Print `value` as JSON if it was asked for, else `text`."""
    say(json.dumps(value, indent=2) if options.json else text)
    return 0


# The agent.


def init(options: argparse.Namespace) -> int:
    """Make a new agent's files."""
    from agent.setup import Answers, init_agent
    from contracts.wallet import wallet_address

    network = parse_network(options.network)
    made = init_agent(
        options.dir,
        Answers(
            network=network,
            pool=options.pool,
            policy_file=options.policy_file,
            liteservers=[parse_liteserver(text) for text in options.liteserver],
            engine_url=options.engine,
            software_dir=options.software_dir,
            software_root_file=options.software_root,
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
        f"wallet    {wallet.friendly(bounceable=False)}\n"
        "next: back up the keys, fund the wallet, then\n"
        f"  gpupool pool register --config {config.path}\n"
        f"  gpupool run --config {config.path}",
    )


def run(options: argparse.Namespace) -> int:
    """Run the agent in the foreground, as systemd does."""
    from agent.daemon import run_agent
    from agent.log import setup_logging

    config = load_config(options.config)
    setup_logging(config.log.level)
    run_agent(config)
    return 0


def status(options: argparse.Namespace) -> int:
    """Ask the running agent how it is."""
    from agent.screens import status_text

    value = json.loads(ask_agent(load_config(options.config), "/-/status"))
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
    from contracts.model import PoolParams
    from gossip.policy import parse_policy

    try:
        policy = parse_policy(options.policy_file.read_text())
    except OSError as error:
        raise ConfigError(f"{options.policy_file}: cannot be read: {error.strerror}") from error
    params = PoolParams(
        fee_bps=options.fee_bps,
        min_stake_nanoton=round(options.min_stake * NANO),
        max_participants=options.max_participants,
        registration_open=True,
        policy_hash=policy.hash,
        max_refund_nanoton=NANO // 10,
    )

    async def deploy(chain: Chain, wallet: Wallet) -> int:
        pool = await pool_ops.deploy_pool(
            chain, wallet, pool_id=options.pool_id, epoch_duration_s=options.epoch_seconds, params=params
        )
        value = {"pool": str(pool), "owner": str(wallet.address), "policy_hash": policy.hash.hex()}
        return answer(options, value, f"pool      {pool}\nowner     {wallet.address}\npolicy    {policy.hash.hex()}")

    servers = [parse_liteserver(text) for text in options.liteserver]
    seed = load_key(options.wallet_key).seed
    network = parse_network(options.network)
    global_id = NETWORKS[network] if isinstance(network, str) else network
    return with_chain(liteservers(servers), seed, "v5r1", global_id, deploy)


def pool_register(options: argparse.Namespace) -> int:
    """Stake and join."""
    from agent import pool_ops

    config = load_config(options.config)
    node_key = load_key(config.resolve(config.identity.node_key_file)).public
    stake = round(options.stake * NANO)

    async def register(chain: Chain, wallet: Wallet) -> int:
        await pool_ops.register(chain, wallet, config.pool.contract, node_key=node_key, stake_nanoton=stake)
        value = {"participant": str(wallet.address), "node_key": node_key.hex(), "stake_nanoton": stake}
        return answer(options, value, f"registered {wallet.address} with {stake / NANO:g} TON")

    return with_config(config, register)


def pool_hand_over(options: argparse.Namespace) -> int:
    """Hand the pool to its operators."""
    from agent import pool_ops
    from contracts.reader import PoolReader

    if not options.yes:
        raise OperationError("a hand-over cannot be undone; add --yes")
    config = load_config(options.config)

    async def hand_over(chain: Chain, wallet: Wallet) -> int:
        operators = await pool_ops.operators_of(PoolReader(chain, config.pool.contract))
        await pool_ops.hand_over(chain, wallet, config.pool.contract, operators)
        count = len(operators.operators)
        return answer(options, {"operators": count}, f"the pool is now run by its {count} operators")

    return with_config(config, hand_over)


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

    config = load_config(options.config)

    async def claim(chain: Chain, wallet: Wallet) -> int:
        participant = Address.parse(options.participant) if options.participant else wallet.address
        settlement = await landed_settlement(chain, config)
        claimed = await pool_ops.claim(chain, wallet, config.pool.contract, settlement, participant)
        value = {
            "participant": str(participant),
            "paid_now_nanoton": claimed.paid_now_nanoton,
            "paid_nanoton": claimed.paid_nanoton,
            "earned_nanoton": claimed.earned_nanoton,
        }
        return answer(options, value, f"paid {claimed.paid_now_nanoton / NANO:.9f} TON to {participant}")

    return with_config(config, claim)


# Shared by the commands.


def ask_agent(config: Config, path: str) -> bytes:
    """Ask the running agent's listener.

    Raises:
        OperationError: it does not answer, or refuses.
    """
    url = f"http://{config.web.host}:{config.web.port}{path}"
    try:
        response = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        raise OperationError(f"no agent answers at {url}; is it running? ({error})") from error
    if response.status_code != httpx.codes.OK:
        raise OperationError(f"{url}: {response.text.strip()[:200]}")
    return response.content


def with_config(config: Config, action: Callable[[Chain, Wallet], Awaitable[_T]]) -> _T:
    """Run `action` with the chain and the wallet of a config."""
    seed = load_key(config.resolve(config.wallet.key_file)).seed
    servers = [(s.host, s.port, s.public_key) for s in config.chain.liteservers]
    return with_chain(liteservers(servers), seed, config.wallet.version, config.pool.global_id, action)


def with_chain(
    servers: list[LiteServer],
    seed: bytes,
    wallet_version: str,
    global_id: int,
    action: Callable[[Chain, Wallet], Awaitable[_T]],
) -> _T:
    """Run `action` with an open chain and a wallet."""
    from contracts.chain import open_chain
    from contracts.wallet import Wallet

    async def main() -> _T:
        async with open_chain(servers) as chain:
            return await action(chain, Wallet(chain, seed, wallet_version, global_id=global_id))

    return trio.run(main)


def liteservers(servers: list[tuple[str, int, str]]) -> list[LiteServer]:
    """Liteservers from (host, port, base64 key)."""
    from contracts.chain import LiteServer

    return [LiteServer(host=host, port=port, public_key=base64.b64decode(key)) for host, port, key in servers]


def parse_liteserver(text: str) -> tuple[str, int, str]:
    """Read HOST:PORT:KEY.

    Raises:
        ConfigError: it has another form.
    """
    host, _, rest = text.partition(":")
    port, _, key = rest.partition(":")
    try:
        if host and 0 < int(port) < 65536 and len(base64.b64decode(key, validate=True)) == 32:
            return host, int(port), key
    except (ValueError, binascii.Error):
        pass  # said below, once
    raise ConfigError(f"--liteserver {text}: expected HOST:PORT:KEY, the key being 32 bytes in base64")


def parse_network(text: str) -> str | int:
    """Read "mainnet", "testnet" or a global id.

    Raises:
        ConfigError: it is neither.
    """
    if text in NETWORKS:
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f'--network {text}: expected "mainnet", "testnet" or a whole number') from None
