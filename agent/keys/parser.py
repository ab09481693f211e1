"""The command line of `gpupool keys`."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.verbs import Argument, Verb, Verbs, add_family, add_verbs, arg

_PASSPHRASE = arg(
    "--passphrase-file",
    type=Path,
    metavar="FILE",
    help="its first line is the passphrase (default: ask at the terminal; /dev/fd/3 is a descriptor of the caller's)",
)
_NETWORK = arg("--network", help='"mainnet", "testnet" or a global id: show the key\'s wallet there, too')
SEALED: tuple[Argument, ...] = (
    _PASSPHRASE,
    arg(
        "--recipient",
        action="append",
        default=[],
        metavar="KEY",
        help="encrypt to this age public key (age1...), in place of a passphrase; repeatable",
    ),
)

AT_INIT: tuple[Argument, ...] = (
    arg("--backup", type=Path, metavar="FILE", help="write an encrypted backup there, as `gpupool keys backup` does"),
    *SEALED,
)

VERBS = (
    Verb(
        name="create",
        run="agent.keys.verbs.create",
        summary="make a new key that only you can read; a file that exists is never overwritten",
        example="owner.key --network testnet",
        arguments=(arg("file", type=Path, metavar="FILE", help="where to write it"), _NETWORK),
        has_config=False,
    ),
    Verb(
        name="show",
        run="agent.keys.verbs.show",
        summary="show the public side of an agent's keys: node key, peer id, wallet, files, last backup",
        detail="""No chain is asked, and no secret is ever printed. With FILE, one key alone.""",
        example="--json\nowner.key --network testnet",
        arguments=(
            arg("file", type=Path, nargs="?", metavar="FILE", help="a key file, in place of --config"),
            _NETWORK,
        ),
    ),
    Verb(
        name="backup",
        run="agent.keys.verbs.backup",
        summary="write keys, settings and policies of an agent into one encrypted file",
        detail="""The file is in age's format (age-encryption.org/v1) and holds a tar archive: `age -d FILE | tar tv`
opens it without this program. It is never written over a file. The journal is not in it: `gpupool db export`.

Keep it on another host, and try `gpupool keys restore FILE --dry-run` there once.""",
        example="/mnt/usb/agent-1.age\nagent-1.age --recipient age1...\nowner.age --key owner.key",
        arguments=(
            arg("file", type=Path, metavar="FILE", help="where to write it"),
            arg("--key", type=Path, metavar="KEY", help="back up this key file alone, in place of --config"),
            *SEALED,
        ),
    ),
    Verb(
        name="restore",
        run="agent.keys.verbs.restore",
        summary="make an agent's folder of a backup",
        detail="""Nothing is overwritten. The agent gets a journal that does not know what its key signed: it asks
the operators of the pool before it signs anything. With --journal, it first knows what stands in the export.

The host that had the keys before must be off for good: two agents with one node key destroy it.""",
        example="/mnt/usb/agent-1.age --dir /etc/gpupool --journal /mnt/usb/agent-1.journal",
        arguments=(
            arg("file", type=Path, metavar="FILE", help="what `gpupool keys backup` wrote"),
            arg(
                "--dir",
                type=Path,
                default=Path("/etc/gpupool"),
                help="where to write its files (default: %(default)s)",
            ),
            arg("--journal", type=Path, metavar="FILE", help="the newest file that `gpupool db export` wrote"),
            _PASSPHRASE,
            arg("--identity", type=Path, metavar="FILE", help="age secret keys, for what --recipient encrypted"),
            arg("--dry-run", action="store_true", help="open it and show what is in it; write nothing"),
            arg("--yes", action="store_true", help="the old host is off: do not ask"),
        ),
        has_config=False,
    ),
    Verb(
        name="rotate",
        run="agent.keys.rotate_verb.rotate",
        summary="replace the node key of a registered agent, which may be known to others",
        detail="""Makes a new key, has the registry name it, and puts it in the place of the old one, with a journal of
its own. The old key and what belongs to it are kept beside. Cut short anywhere, it goes on when it is run again. The
agent may run until the registry names the new key; then it has to be stopped. Stake, wallet and earnings stay.

What was done since the running epoch began does not count, unless one waits (--at-epoch-end). A key is replaced once
in the time that a withdrawal waits. An operator's key is refused while it stands in the set in force.""",
        example="--dry-run\n--at-epoch-end --yes",
        arguments=(
            arg(
                "--at-epoch-end",
                action="store_true",
                help="wait until the running epoch has settled: least is lost then",
            ),
            arg("--dry-run", action="store_true", help="show what it would do; send nothing"),
            arg("--yes", action="store_true", help="do it; without, only say what it costs"),
        ),
    ),
)


def add_keys(verbs: Verbs[argparse.ArgumentParser], default_config: Path) -> None:
    """Add `keys` and all below it to the command line."""
    own = add_family(
        verbs,
        "keys",
        "make, show, back up, restore and rotate keys",
        "Keys: the node key signs records and votes, the wallet key holds TON and earns. Who has them is the agent.",
    )
    add_verbs(own, VERBS, {}, config=default_config)
