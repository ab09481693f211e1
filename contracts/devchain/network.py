"""Which network the embedded chain is: its global id, and the blockchain config that says so.

The config is mainnet's as `@ton/sandbox` ships it (fees, gas and size limits), with its own global
id (parameter 19). So a wallet or a certificate of this chain fits no public network, and software
attestation, which is refused on the public networks, stays possible here.
"""

from __future__ import annotations

from pytoniq_core import Builder, Cell, HashMap

from contracts.devchain.emulator import default_config

DEVNET_GLOBAL_ID = -217
"""Neither mainnet's (-239) nor testnet's (-3)."""

_GLOBAL_ID_PARAMETER = 19


def devnet_config() -> Cell:
    """Root of the config dictionary (`Hashmap 32 ^Cell`) with the devnet's global id."""
    parameters = HashMap.parse(default_config().begin_parse(), 32, value_deserializer=lambda slice_: slice_.load_ref())
    parameters[_GLOBAL_ID_PARAMETER] = Builder().store_int(DEVNET_GLOBAL_ID, 32).end_cell()
    return HashMap(32, map_=parameters, value_serializer=lambda cell, to: to.store_ref(cell)).serialize()
