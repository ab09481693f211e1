"""Files that `gpupool pool` reads: parameters, metadata, operator sets, contract code. Each is a value or one line.

Untrusted input: the files; strict, bounded, unknown keys refused. Amounts are texts of TON ("0.1"), lengths of
time are seconds. Keys that a parameters file does not name keep their value; `params show` prints all of them.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pytoniq_core import Cell

from agent import arguments
from agent.config import parse_toml
from agent.errors import ConfigError
from agent.toml_errors import not_toml
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout import parse_boc
from contracts.model import (
    NANO,
    EpochTerms,
    Operator,
    OperatorSet,
    PoolMetadata,
    PoolParams,
)

FILE_BYTES_MAX = 1 << 20

_F = TypeVar("_F")
_NEW = EpochTerms(fee_bps=200, policy_hash=bytes(32))


class ParamsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of a pool; what is not named stays as it is."""

    fee_bps: int | None = None
    policy_file: str | None = None
    """The policy document; relative to this file."""
    policy_hash: str | None = None
    """64 hex digits, instead of the document."""
    max_refund: str | None = None
    auto_distribute: bool | None = None
    min_distribution: str | None = None
    min_stake: str | None = None
    slash_bps: int | None = None
    withdrawal_delay_s: int | None = None
    heartbeat_timeout_s: int | None = None
    min_uptime_pct: int | None = None
    max_participants: int | None = None
    parameter_delay_s: int | None = None
    upgrade_delay_s: int | None = None
    emergency: bool | None = None
    guardian: str | None = None
    """An address; "" for none."""


class MetadataFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str = ""
    description: str = ""
    website: str = ""
    contact: str = ""


class _OperatorLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    node_key: str
    weight: int = 1


class SetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    operators: tuple[_OperatorLine, ...]


_TERMS = ("fee_bps", "auto_distribute")
_TERM_AMOUNTS = ("max_refund", "min_distribution")
_RULES = ("slash_bps", "withdrawal_delay_s", "heartbeat_timeout_s", "min_uptime_pct")
_REST = ("max_participants", "parameter_delay_s", "upgrade_delay_s", "emergency")


def params_for_deploy(options: argparse.Namespace) -> tuple[PoolParams, PoolMetadata]:
    """Parameters and metadata of a new pool: the defaults, changed by the file, changed by the options.

    Raises:
        ConfigError: a file or an option is malformed or out of range, or no policy is named.
    """
    start = PoolParams(terms=_NEW)
    file = ParamsFile() if options.params_file is None else _load(options.params_file, ParamsFile)
    policy = None if options.policy_file is None else arguments.read_policy(options.policy_file).hash
    if policy is None and file.policy_file is None and file.policy_hash is None:
        raise ConfigError("pool deploy: no policy: give --policy-file, or policy_file in --params-file")
    if options.min_stake is not None:
        arguments.parse_ton("--min-stake", options.min_stake)  # to name the option if it is none
    typed = ParamsFile(
        policy_hash=None if policy is None else policy.hex(),
        fee_bps=options.fee_bps,
        min_stake=options.min_stake,
        max_participants=options.max_participants,
    )
    folder = Path() if options.params_file is None else options.params_file.parent
    params = changed(start, file, str(options.params_file), folder)
    params = changed(params, typed, "pool deploy", Path())
    metadata = PoolMetadata() if options.metadata_file is None else read_metadata(options.metadata_file)
    return params, metadata


def read_params(path: Path, base: PoolParams) -> PoolParams:
    """`base` with what the file changes. Raises `ConfigError`."""
    return changed(base, _load(path, ParamsFile), str(path), path.parent)


def changed(base: PoolParams, file: ParamsFile, name: str, folder: Path) -> PoolParams:
    """`base` with what `file` names; `name` opens an error's line, paths are relative to `folder`.

    Raises:
        ConfigError: a value is malformed or out of range.
    """
    terms = {key: getattr(file, key) for key in _TERMS if getattr(file, key) is not None}
    for key in _TERM_AMOUNTS:
        if getattr(file, key) is not None:
            terms[f"{key}_nanoton"] = _amount(name, key, getattr(file, key))
    policy_hash = _policy_hash(file, name, folder)
    if policy_hash is not None:
        terms["policy_hash"] = policy_hash
    rules = {key: getattr(file, key) for key in _RULES if getattr(file, key) is not None}
    if file.min_stake is not None:
        rules["min_stake_nanoton"] = _amount(name, "min_stake", file.min_stake)
    rest: dict[str, Any] = {key: getattr(file, key) for key in _REST if getattr(file, key) is not None}
    if file.guardian is not None:
        rest["guardian"] = arguments.parse_address(f"{name}: guardian", file.guardian) if file.guardian else None
    try:
        return replace(base, terms=replace(base.terms, **terms), rules=replace(base.rules, **rules), **rest)
    except InvalidValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _policy_hash(file: ParamsFile, name: str, folder: Path) -> bytes | None:
    if file.policy_file is not None and file.policy_hash is not None:
        raise ConfigError(f"{name}: policy_file and policy_hash: expected one of them")
    if file.policy_file is not None:
        return arguments.read_policy(folder / file.policy_file).hash
    return None if file.policy_hash is None else arguments.parse_hash(f"{name}: policy_hash", file.policy_hash)


def _amount(name: str, key: str, text: str) -> int:
    return 0 if text == "0" and key != "min_stake" else arguments.parse_ton(f"{name}: {key}", text)


def params_toml(params: PoolParams) -> str:
    """Parameters as a file that `params propose` reads."""
    terms, rules = params.terms, params.rules
    pairs: dict[str, object] = {
        "fee_bps": terms.fee_bps,
        "policy_hash": terms.policy_hash.hex(),
        "max_refund": _text(terms.max_refund_nanoton),
        "auto_distribute": terms.auto_distribute,
        "min_distribution": _text(terms.min_distribution_nanoton),
        "min_stake": _text(rules.min_stake_nanoton),
        **{key: getattr(rules, key) for key in _RULES},
        **{key: getattr(params, key) for key in _REST},
        "guardian": "" if params.guardian is None else str(params.guardian),
    }
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in pairs.items())


def _text(nanoton: int) -> str:
    whole, rest = divmod(nanoton, NANO)
    return f"{whole}.{rest:09d}".rstrip("0") if rest else str(whole)


def read_metadata(path: Path) -> PoolMetadata:
    """A pool's metadata. Raises `ConfigError`."""
    file = _load(path, MetadataFile)
    try:
        return PoolMetadata(**{name: getattr(file, name) for name in file.__struct_fields__})
    except InvalidValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_set(path: Path, *, set_id: int) -> OperatorSet:
    """An operator set with this number; its operators stand in the file by index. Raises `ConfigError`."""
    file = _load(path, SetFile)
    try:
        made = OperatorSet(
            set_id=set_id,
            operators=tuple(
                Operator(
                    node_key=arguments.parse_hash(f"{path}: operators[{i}].node_key", line.node_key), weight=line.weight
                )
                for i, line in enumerate(file.operators)
            ),
        )
        made.require_distinct()
    except InvalidValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return made


def set_toml(operators: OperatorSet) -> str:
    """An operator set as a file that `set propose` reads."""
    return "\n\n".join(
        f'[[operators]]\nnode_key = "{each.node_key.hex()}"\nweight = {each.weight}' for each in operators.operators
    )


def read_code(path: Path) -> Cell:
    """A contract's code: a BoC, or an artifact (JSON with `code_boc_base64`).

    Raises:
        ConfigError: it cannot be read, or is neither.
    """
    content = read_bytes(path)
    try:
        if content.startswith(b"{"):
            content = base64.b64decode(json.loads(content)["code_boc_base64"], validate=True)
        return parse_boc(content, bytes_max=FILE_BYTES_MAX)
    except (InvalidCellError, KeyError, TypeError, ValueError, RecursionError, binascii.Error) as error:
        raise ConfigError(f"{path}: expected a contract's code, a BoC or an artifact: {error}") from error


def read_cell(path: Path) -> Cell:
    """One cell, as a BoC. Raises `ConfigError`."""
    try:
        return parse_boc(read_bytes(path))
    except InvalidCellError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_bytes(path: Path) -> bytes:
    """A file of at most `FILE_BYTES_MAX` bytes. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: longer than {FILE_BYTES_MAX} bytes")
    return content


def _load(path: Path, form: type[_F]) -> _F:
    try:
        return parse_toml(read_bytes(path).decode(), path, form)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {not_toml(error)}") from error
