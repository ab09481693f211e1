"""`gpupool attest policy`: is a file a policy, what is dangerous in it, what does it let in, what is its hash."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from agent.attest.policies import PolicyFile, PolicyRejectedError, read_policy_file
from agent.attest.policy_words import WORDS, remarks
from agent.attest.report import wrapped
from agent.attest.values import Tree
from agent.errors import ConfigError
from agent.output import EXIT_FAILED, answer, note
from agent.pool.values import legible
from agent.setup import toml_value

_MACHINE_NODES_WORDS = "how many nodes may earn on one machine: what a key taken out of one machine is worth at most"
_ANCHOR_AGE_WORDS = (
    "how old, at the end of an epoch, the block may be that evidence binds, in seconds: liteservers forget older ones"
)


def check(options: argparse.Namespace) -> int:
    """Say whether a file is a policy, and what is dangerous in it; dangers do not make it fail."""
    try:
        file = read_policy_file(options.file)
    except PolicyRejectedError as error:
        if options.json:
            answer(options, {"ok": False, "kind": None, "hash": None, "error": str(error), "remarks": []}, "")
        else:
            note(legible(str(error)))
        return EXIT_FAILED
    found = remarks(file.attestation, file.pool)
    value: Tree = {
        "ok": True,
        "kind": _kind(file),
        "hash": _hash(file),
        "error": None,
        "remarks": [asdict(remark) for remark in found],
    }
    lines = [f"ok: {_description(file)}"]
    lines += [f"{remark.level:6}  {remark.key}: {legible(remark.text)}" for remark in found]
    return answer(options, value, "\n".join(lines))


def policy_hash(options: argparse.Namespace) -> int:
    """Print the hash that the pool commits to."""
    file = read_policy_file(options.file)
    if file.pool is None:
        raise ConfigError(
            f"{file.path}: has the attestation table alone; the pool commits to the hash of the whole document, with "
            f"[timing], [work], [score] and [quality]"
        )
    return answer(options, {"hash": file.pool.hash.hex()}, file.pool.hash.hex())


def explain(options: argparse.Namespace) -> int:
    """Print every option with its value and what it means."""
    file = read_policy_file(options.file)
    found = [_option(key, value, WORDS[key]) for key, value in file.attestation.to_mapping().items()]
    if file.pool is not None:
        found.append(_option("work.machine_nodes_max", file.pool.work.machine_nodes_max, _MACHINE_NODES_WORDS))
        found.append(_option("work.anchor_age_max_s", file.pool.work.anchor_age_max_s, _ANCHOR_AGE_WORDS))
    text = [_description(file)]
    text += [f"\n{each['key']} = {_toml(each['key'], each['value'])}\n{wrapped(each['meaning'])}" for each in found]
    return answer(options, {"kind": _kind(file), "hash": _hash(file), "options": found}, "\n".join(text))


def _option(key: str, value: Any, meaning: str) -> Tree:
    return {"key": key, "value": value, "meaning": meaning}


def _toml(key: str, value: Any) -> str:
    return f"{value:#x}" if key == "xfam_allowed" else legible(toml_value(value))


def _kind(file: PolicyFile) -> str:
    return "attestation" if file.pool is None else "pool"


def _hash(file: PolicyFile) -> str | None:
    return None if file.pool is None else file.pool.hash.hex()


def _description(file: PolicyFile) -> str:
    if file.pool is None:
        return "an attestation table alone (without the pool's other tables it has no hash)"
    return f"the policy of a pool, hash {file.pool.hash.hex()}"
