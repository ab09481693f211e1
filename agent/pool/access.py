"""From what was typed to a `PoolSession`: a config file alone, or everything by hand.

By hand: --network, --liteserver or --global-config, --pool where there is one, and --wallet-key where something
is sent; --node-key where an operator signs. With a config none of these is given.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from agent import arguments
from agent.config import load_pool_config
from agent.errors import ConfigError
from agent.identity import load_key
from agent.pool.session import PoolSession
from agent.servers import config_servers, read_global_config, typed_servers
from contracts.chain import LiteServer, open_chain
from contracts.errors import ChainUnavailableError
from contracts.model import Address
from contracts.wallet import Wallet

_T = TypeVar("_T")

_BY_HAND = ("pool", "network", "liteserver", "global_config", "wallet_key", "wallet_version", "node_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Servers and keys that were named. `pool` is None for a pool that is yet to be deployed."""

    servers: tuple[LiteServer, ...]
    global_id: int
    pool: Address | None
    wallet_key_file: Path | None
    wallet_version: str
    wallet_lock_file: Path | None
    node_key_file: Path | None
    trust_level: int = 1
    timeout_s: float = 5.0


def with_session(options: argparse.Namespace, action: Callable[[PoolSession], Awaitable[_T]]) -> _T:
    """Run `action` with the pool that the options name.

    Raises:
        ConfigError: the options or the config do not say where the pool is.
    """
    access = access_of(options)
    if access.pool is None:
        raise ConfigError("--pool missing: which pool?")
    return with_access(access, access.pool, action)


def with_access(access: Access, pool: Address, action: Callable[[PoolSession], Awaitable[_T]]) -> _T:
    """Run `action` with an open session of this pool."""

    async def main() -> _T:
        async with open_session(access, pool) as session:
            return await action(session)

    return trio.run(main)


@asynccontextmanager
async def open_session(access: Access, pool: Address) -> AsyncIterator[PoolSession]:
    """Open the chain, and the wallet if one was named.

    Raises:
        ConfigError: the liteservers are of another network.
        KeyFileError: the wallet's key cannot be used.
        ChainUnavailableError: no liteserver answers; the message names one.
    """
    key = None if access.wallet_key_file is None else load_key(access.wallet_key_file)
    async with open_chain(access.servers, trust_level=access.trust_level, timeout_s=access.timeout_s) as chain:
        with _naming(access.servers):
            found = await chain.global_id()
            if found != access.global_id:
                raise ConfigError(f"the liteservers are of the network {found}, not of {access.global_id}")
            wallet = None
            if key is not None:
                wallet = Wallet(
                    chain,
                    key.seed,
                    access.wallet_version,
                    global_id=access.global_id,
                    lock_file=access.wallet_lock_file,
                )
            yield PoolSession(
                chain, pool, global_id=access.global_id, wallet=wallet, node_key_file=access.node_key_file
            )


@contextmanager
def _naming(servers: Sequence[LiteServer]) -> Iterator[None]:
    """Say of a server's error that it is a liteserver's, how many were asked, and where others are named."""
    try:
        yield
    except ChainUnavailableError as error:
        if not str(error).startswith(tuple(f"{server}: " for server in servers)):
            raise
        many = "the only one that is named" if len(servers) == 1 else f"none of the {len(servers)} named answers"
        raise ChainUnavailableError(f"liteserver {error}; {many}: others go into [chain] of the settings") from error


def access_of(options: argparse.Namespace) -> Access:
    """What the options name, or the config if they name nothing.

    Raises:
        ConfigError: something is missing or malformed.
    """
    if any(getattr(options, name, None) for name in _BY_HAND):
        return _by_hand(options)
    config = load_pool_config(options.config)
    # What sends nothing needs no wallet's key.
    sends = hasattr(options, "dry_run")
    return Access(
        servers=tuple(config_servers(config)),
        global_id=config.pool.global_id,
        pool=config.pool.contract,
        wallet_key_file=config.resolve(config.wallet.key_file) if sends else None,
        wallet_version=config.wallet.version,
        wallet_lock_file=config.wallet_lock_file,
        node_key_file=config.resolve(config.identity.node_key_file),
        trust_level=config.chain.trust_level,
        timeout_s=config.chain.timeout_s,
    )


def _by_hand(options: argparse.Namespace) -> Access:
    needed = [name for name in ("pool", "network", "wallet_key") if hasattr(options, name)]
    missing = ["--" + name.replace("_", "-") for name in needed if not getattr(options, name)]
    if not options.liteserver and not options.global_config:
        missing.append("--liteserver or --global-config")
    if missing:
        raise ConfigError(f"{options.verb}: {', '.join(missing)} missing; give all, or --config alone")
    servers = typed_servers([arguments.parse_liteserver(text) for text in options.liteserver or []])
    if options.global_config is not None:
        servers += read_global_config(options.global_config)
    key_file: Path | None = getattr(options, "wallet_key", None)
    return Access(
        servers=tuple(servers),
        global_id=arguments.global_id(arguments.parse_network(options.network)),
        pool=arguments.parse_address("--pool", options.pool) if getattr(options, "pool", None) else None,
        wallet_key_file=key_file,
        wallet_version=getattr(options, "wallet_version", None) or "v5r1",
        wallet_lock_file=None if key_file is None else key_file.with_name(key_file.name + ".lock"),
        node_key_file=getattr(options, "node_key", None),
    )
