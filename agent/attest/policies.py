"""Which policy stands in a file: the pool's whole document, or its attestation table alone.

A document is whole if it has any of the pool's other tables; then all of them must be right, as for the pool.
A table alone has either the header `[attestation]` or the bare keys; it has no hash, since the pool commits to
whole documents only. A file without any key of that table is refused: it would be a policy that nobody wrote.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from agent.attest.inputs import read_bytes
from agent.attest.policy_errors import explained
from agent.errors import ConfigError
from agent.toml_errors import not_toml
from attestation.errors import InvalidPolicyError
from attestation.policy import AttestationPolicy
from gossip.errors import InvalidPolicyError as InvalidPoolPolicyError
from gossip.policy import POLICY_BYTES_MAX, PoolPolicy, parse_policy

_ATTESTATION = "attestation"
_OTHER_TABLES = frozenset({"timing", "work", "score", "quality"})


class PolicyRejectedError(ConfigError):
    """The file was read, and is no policy; the message says which key is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A policy and where it came from; `pool` is None if the file has the attestation table alone."""

    path: Path
    attestation: AttestationPolicy
    pool: PoolPolicy | None


def read_policy_file(path: Path) -> PolicyFile:
    """Read a policy file, at most 256 KiB.

    Raises:
        PolicyRejectedError: it is no policy.
        ConfigError: it cannot be read.
    """
    raw = read_bytes(path, POLICY_BYTES_MAX)
    if len(raw) > POLICY_BYTES_MAX:
        raise PolicyRejectedError(f"{path}: longer than {POLICY_BYTES_MAX} bytes")
    try:
        text = raw.decode()
        tree = tomllib.loads(text)
        is_whole = _OTHER_TABLES & tree.keys() or (_ATTESTATION in tree and len(tree) > 1)
        pool = parse_policy(text) if is_whole else None
        table = pool.attestation if pool is not None else tree.get(_ATTESTATION, tree)
        if table == {}:
            raise PolicyRejectedError(f"{path}: holds no policy: it has no key of [attestation]")
        return PolicyFile(path=path, attestation=AttestationPolicy.from_mapping(table), pool=pool)
    except (ValueError, RecursionError) as error:  # also a number too long for the library
        raise PolicyRejectedError(f"{path}: {not_toml(error)}") from error
    except (InvalidPolicyError, InvalidPoolPolicyError) as error:
        raise PolicyRejectedError(f"{path}: {explained(error)}") from error
