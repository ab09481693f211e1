"""`gpupool attest collateral`: fetches collateral, and carries it between hosts that are online and others.

Where it is kept: the folder of `--dir`, or the agent's (`collateral` in its data_dir). The root that it must lead
to: that of `--root`, else with `--dir` Intel's, without it the pool's of the config. What is fetched or imported is
untrusted, and kept only if `attestation.collateral_store` admits it; an agent that runs may use the same folder.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import trio

from agent.attest.inputs import (
    QUOTE_FILE_BYTES_MAX,
    now_s,
    read_binary,
    read_bytes,
    read_root,
    settings,
    why,
    write_bytes,
)
from agent.attest.kinds import Kind, expecting, kind_of
from agent.attest.report import table
from agent.attest.values import Tree, error_value, moment
from agent.errors import ConfigError, OperationError
from agent.output import EXIT_FAILED, answer, note
from agent.pool.values import legible
from agent.providers import COLLATERAL_FOLDER, pool_root
from attestation.collateral import Collateral, VerifiedCollateral, verify_collateral
from attestation.collateral_key import CollateralKey, Update, collateral_key, key_of
from attestation.collateral_store import BUNDLE_BYTES_MAX, CollateralStore, write_bundle_entry
from attestation.errors import AttestationError, CollateralMismatchError
from attestation.errors.fetching import CollateralBundleError
from attestation.pcs import PcsClient, PcsService


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A folder of collateral, and the root (DER) that all of it leads to."""

    folder: Path
    root: bytes

    @property
    def store(self) -> CollateralStore:
        return CollateralStore(self.folder, root=self.root)


def fetch(options: argparse.Namespace) -> int:
    """Fetch the collateral for a quote; keep it, or write it to `--out`."""
    raw = read_binary(options.quote, QUOTE_FILE_BYTES_MAX)
    place = None if options.out is not None else _place(options, "--out FILE, or --dir DIR")
    root = read_root(options.root) if place is None else place.root
    with expecting(Kind.QUOTE, raw):
        key = collateral_key(raw, root=root, update=Update(options.update))
    note(f"fetching collateral of {key}")
    collateral = trio.run(PcsClient(_service(options)).fetch, key)
    if place is not None:
        verified = place.store.offer(key, collateral, now_s()).verified
        where = place.folder / f"{collateral.digest.hex()}.json"
    else:
        verified = _verify(collateral, key, root)
        where = options.out
        write_bytes(where, collateral.to_json())
    value = {"file": str(where), **_summary(key, verified)}
    return answer(options, value, table(value))


def export(options: argparse.Namespace) -> int:
    """Write the newest collateral of every platform into one file."""
    place = _place(options)
    _require_readable(place.folder)
    bundle = place.store.export()
    if not bundle:
        raise CollateralBundleError("bundle: nothing is held that could be exported; fetch it first")
    write_bytes(options.out, bundle)
    entries = len(bundle.splitlines())
    text = f"wrote {options.out}: {entries} {'entry' if entries == 1 else 'entries'}"
    return answer(options, {"file": str(options.out), "entries": entries}, text)


def import_bundle(options: argparse.Namespace) -> int:
    """Take over what a bundle has, or single collateral; 1 if a line of it is refused."""
    bundle = _bundle(options)
    report = _place(options).store.import_bundle(bundle, now_s())
    value: Tree = {
        "kept": [_key_value(key) for key in report.kept],
        "refused": [{"line": line, **error_value(error)} for line, error in report.refused],
    }
    lines = [f"kept     {key}" for key in report.kept]
    lines += [f"refused  line {line}: {legible(str(error))}; {error.remedy}" for line, error in report.refused]
    answer(options, value, "\n".join(lines))
    return EXIT_FAILED if report.refused else 0


def _bundle(options: argparse.Namespace) -> bytes:
    """The bundle that a file is; single collateral is made one of the given channel."""
    data = read_bytes(options.bundle, BUNDLE_BYTES_MAX)
    kind = kind_of(data)
    if kind is Kind.COLLATERAL:
        return write_bundle_entry(Update(options.update or Update.STANDARD), Collateral.from_json(data.strip()))
    if kind not in (None, Kind.BUNDLE):
        raise CollateralBundleError(f"{options.bundle}: this looks like {kind}, expected {Kind.BUNDLE} or collateral")
    if options.update is not None:
        raise ConfigError("--update: is for single collateral; a bundle says it of each")
    return data


def list_held(options: argparse.Namespace) -> int:
    """Show the newest collateral of every platform: which, till when it can be used, its digest."""
    place, now = _place(options), now_s()
    _require_readable(place.folder)
    entries = [_entry(key, held, place.root, now) for key, held in place.store.newest_of_all().items()]
    text = "\n\n".join(table(entry) for entry in entries) or f"{place.folder}: no collateral is held"
    return answer(options, {"folder": str(place.folder), "collateral": entries}, text)


def _require_readable(folder: Path) -> None:
    """The store takes what cannot be read for what is not there; whoever looks into it wants to know."""
    try:
        for path in folder.iterdir():
            if path.is_file():
                path.open("rb").close()
    except FileNotFoundError as error:
        raise OperationError(f"{folder}: no such folder: nothing was fetched or imported yet") from error
    except OSError as error:
        raise OperationError(f"{folder}: cannot be read: {why(error)}") from error


def _place(options: argparse.Namespace, instead: str = "--dir DIR") -> _Place:
    if options.dir is not None:
        return _Place(folder=options.dir.absolute(), root=read_root(options.root))
    config = settings(options.config, instead)
    root = pool_root(config) if options.root is None else read_root(options.root)
    return _Place(folder=config.data_dir / COLLATERAL_FOLDER, root=root)


def _service(options: argparse.Namespace) -> PcsService:
    return PcsService() if options.url is None else PcsService.pccs(options.url, ca_file=options.ca_file)


def _verify(collateral: Collateral, key: CollateralKey, root: bytes) -> VerifiedCollateral:
    """Demand of what was fetched what the store would."""
    verified = verify_collateral(collateral, root=root)
    verified.require_valid(now_s())
    found = key_of(verified, key.update)
    if found != key:
        raise CollateralMismatchError(f"collateral: of {found}, expected {key}")
    return verified


def _entry(key: CollateralKey, collateral: Collateral | None, root: bytes, now: int) -> Tree:
    value = _key_value(key)
    if collateral is None:
        return value | {"message": "its file is damaged or gone; it is fetched anew"}
    value["digest"] = collateral.digest.hex()
    try:
        verified = verify_collateral(collateral, root=root)
        value = _summary(key, verified)
        verified.require_valid(now)
    except AttestationError as error:
        return value | error_value(error)
    return value


def _key_value(key: CollateralKey) -> Tree:
    return {"fmspc": key.fmspc.hex(), "ca": key.ca.value, "update": key.update.value}


def _summary(key: CollateralKey, verified: VerifiedCollateral) -> Tree:
    return {
        **_key_value(key),
        "digest": verified.digest.hex(),
        "valid_until": moment(min(validity.not_after_s for validity in verified.validities)),
        "tcb_info_evaluation": verified.tcb_info.evaluation,
        "qe_identity_evaluation": verified.qe_identity.evaluation,
    }
