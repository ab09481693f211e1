"""Two verifiers and one input: where do they part?

    python -m tests.attestation.tools.differential [--inputs 100000] [--seed 1] [--jobs 2]

Every input is a real quote with real collateral and one thing changed: half of them as anybody could
(`quote_mutations`), half of them signed again under a root of our own (`resigned_quotes`), so that the change gets
past the signatures. The other verifier is dcap-qvl, asked for its claims, so that it says what it found and keeps
most of its own policy out. What may differ, and why, is listed in `test_differential`.

Prints one JSON line; exit code 1 if this verifier accepted what the other one refused for no listed reason, or both
accepted and told different facts. An exception that is not an `AttestationError` ends the run, and names the input.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from random import Random
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]

from attestation.collateral import Collateral
from attestation.errors import AttestationError
from attestation.types import VerifiedQuote
from attestation.verify import Verifier
from tests.support.quote_mutations import DOCUMENTS, Input, mutant, real_cases
from tests.support.resigned_quotes import rank, resigned

CHUNK = 500
ACCEPTED_HERE_ONLY = (
    ("Debug mode is enabled", "", "policy: debug"),
    ("TD profiling is enabled", "", "policy: debug"),
    ("Invalid MR service TD", "", "policy: service TD"),
    ("SERVTD_EXT is enabled", "", "policy: service TD"),
    ("TD migration is enabled", "", "policy: TD attributes"),
    ("SEPT_VE_DISABLE", "", "policy: TD attributes"),
    ("Reserved bits", "", "policy: TD attributes"),
    ("Invalid QE auth data length", "", "QE authentication data of another length"),
    ("Failed to verify certificate chain", "_crl due 0 s from now", "the second of the next update"),
    ("CrlExpired", "_crl due 0 s from now", "the second of the next update"),
)
"""(in the other one's complaint, in the change, what it is about): accepted here, refused there, and why it may be."""


@dataclass(slots=True)
class Tally:
    """How often what happened, and one example of everything that must not happen."""

    inputs: int = 0
    both_accept: int = 0
    both_refuse: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    """Accepted here alone or with other facts, for a listed reason."""
    stricter: Counter[str] = field(default_factory=Counter)
    """Our error's code -> how often refused here alone."""
    refused: Counter[str] = field(default_factory=Counter)
    """Our error's code -> how often refused here at all."""
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.both_accept += other.both_accept
        self.both_refuse += other.both_refuse
        for name in ("excused", "stricter", "refused", "wrong"):
            getattr(self, name).update(getattr(other, name))


def compare(inputs: Sequence[Input]) -> Tally:
    """Ask both verifiers about every input."""
    tally = Tally()
    verifiers: dict[bytes, Verifier] = {}
    for number, it in enumerate(inputs):
        verifier = verifiers.setdefault(it.root, Verifier(it.root))
        try:
            mine = ours(it, verifier)
        except Exception as error:
            error.add_note(f"input {number}: {it.how}")
            raise
        _record(tally, it, mine, theirs(it))
    return tally


def ours(it: Input, verifier: Verifier) -> VerifiedQuote | str:
    """Our verdict: the verified quote, or the error's code."""
    try:
        return verifier.verify_quote(it.raw, Collateral(**it.parts), now=it.now)
    except AttestationError as error:
        return error.code


def theirs(it: Input) -> dict[str, Any] | str:
    """dcap-qvl's verdict: its claims, or its complaint."""
    try:
        binary = ("crl", "signature")
        parts = {name: part if name.endswith(binary) else part.decode() for name, part in it.parts.items()}
        collateral = dcap_qvl.QuoteCollateralV3(**parts)
        policy = dcap_qvl.QuotePolicy.claims_only(it.now)
        claims = dcap_qvl.QuoteVerifier(it.root).verify_with_policy(it.raw, collateral, it.now, policy)
        found: dict[str, Any] = json.loads(claims.to_json())
        return found
    except ValueError as refusal:
        return str(refusal)


def differences(verified: VerifiedQuote, claims: Mapping[str, Any]) -> dict[str, str]:
    """Name -> what either tells, of the facts that they tell differently."""
    td = next(iter(claims["report"].values()))
    while "base" in td:
        td = td["base"]
    pck = claims["platform"]["pck"]
    pairs = {
        "status": (verified.status, claims["tcb"]["status"]),
        "advisories": (set(verified.advisories), set(claims["tcb"]["advisory_ids"])),
        "TCB evaluation": (min(verified.tcb_evaluation, verified.qe_evaluation), claims["tcb"]["eval_data_number"]),
        "QE evaluation": (verified.qe_evaluation, claims["qe"]["tcb_eval_data_number"]),
        "PPID": (verified.platform.ppid, bytes(pck["ppid"])),
        "FMSPC": (verified.platform.fmspc, bytes(pck["fmspc"])),
        "PCE": (verified.platform.pce_id, bytes(pck["pce_id"])),
        "SGX components": (verified.platform.sgx_svns, tuple(pck["cpu_svn"])),
        "PCESVN": (verified.platform.pce_svn, pck["pce_svn"]),
        "flags": (
            {flag.value for flag in verified.platform.flags},
            {name for name in ("dynamic_platform", "cached_keys", "smt_enabled") if pck[name] == "True"},
        ),
        "version": (verified.quote_version, claims["header"]["version"]),
        "TEE_TCB_SVN": (verified.td.tee_tcb_svn.hex(), td["tee_tcb_svn"]),
        "MRTD": (verified.td.mr_td.hex(), td["mr_td"]),
        "RTMRs": ([rtmr.hex() for rtmr in verified.td.rtmrs], [td[f"rt_mr{i}"] for i in range(4)]),
        "report data": (verified.td.report_data.hex(), td["report_data"]),
        "TD attributes": (verified.td.td_attributes.to_bytes(8, "little").hex(), td["td_attributes"]),
        "XFAM": (verified.td.xfam.to_bytes(8, "little").hex(), td["xfam"]),
    }
    return {name: f"{mine} / {other}" for name, (mine, other) in pairs.items() if mine != other}


def _record(tally: Tally, it: Input, mine: VerifiedQuote | str, other: dict[str, Any] | str) -> None:
    tally.inputs += 1
    if isinstance(mine, str):
        tally.refused[mine] += 1
        if isinstance(other, str):
            tally.both_refuse += 1
        else:
            tally.stricter[mine] += 1
    elif isinstance(other, str):
        excuse = _excuse(it, other)
        if excuse is None:
            tally.wrong[f"accepted here ({mine.status}), refused there ({other}): {it.how}"] += 1
        else:
            tally.excused[excuse] += 1
    else:
        tally.both_accept += 1
        for name, told in differences(mine, other).items():
            excuse = _excuse_difference(it, name, mine, other)
            if excuse is None:
                tally.wrong[f"{name}: {told}: {it.how}"] += 1
            else:
                tally.excused[excuse] += 1


def _excuse(it: Input, complaint: str) -> str | None:
    for said, change, reason in ACCEPTED_HERE_ONLY:
        if said in complaint and change in it.how:
            return reason
    return "levels out of order" if "TCB" in complaint and not _in_order(it) else None


def _excuse_difference(it: Input, name: str, mine: VerifiedQuote, other: Mapping[str, Any]) -> str | None:
    if name == "advisories" and "Relaunch" in mine.status and set(mine.advisories) > set(other["tcb"]["advisory_ids"]):
        return "advisories of the TCB that a relaunch would give"
    return "levels out of order" if name in ("status", "advisories") and not _in_order(it) else None


def _in_order(it: Input) -> bool:
    """Whether all levels stand in descending order, as Intel serves them."""
    for name in DOCUMENTS:
        tree = json.loads(it.parts[name])
        for levels in (tree["tcbLevels"], *(module["tcbLevels"] for module in tree.get("tdxModuleIdentities", ()))):
            ranks = [rank(level) for level in levels]
            if ranks != sorted(ranks, reverse=True):
                return False
    return True


def inputs_of(seed: int, chunk: int, count: int, cases: Sequence[Input]) -> list[Input]:
    """The inputs of one chunk, half of them signed again; the same for the same numbers."""
    dice = Random(f"{seed}/{chunk}")
    return [mutant(dice, cases) if i % 2 else resigned(dice, cases) for i in range(count)]


def run_chunk(seed: int, chunk: int, count: int) -> Tally:
    return compare(inputs_of(seed, chunk, count, real_cases()))


def run(inputs: int, *, seed: int, jobs: int) -> Tally:
    """Compare that many inputs in `jobs` processes."""
    total = Tally()
    chunks = range(-(-inputs // CHUNK))
    counts = [min(CHUNK, inputs - chunk * CHUNK) for chunk in chunks]
    if jobs == 1:
        for tally in map(run_chunk, repeat(seed), chunks, counts):
            total.add(tally)
        return total
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for tally in pool.map(run_chunk, repeat(seed), chunks, counts):
            total.add(tally)
    return total


def summary(tally: Tally) -> dict[str, Any]:
    return {
        "inputs": tally.inputs,
        "both_accept": tally.both_accept,
        "both_refuse": tally.both_refuse,
        "excused": dict(tally.excused.most_common()),
        "refused_here_only": dict(tally.stricter.most_common()),
        "refused_here": dict(tally.refused.most_common()),
        "wrong": dict(tally.wrong.most_common()),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="differential", description="Compare the verifier with dcap-qvl.")
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default: 100000)")
    parser.add_argument("--seed", type=int, default=1, help="other dice (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    options = parser.parse_args(arguments)
    tally = run(options.inputs, seed=options.seed, jobs=options.jobs)
    sys.stdout.write(json.dumps(summary(tally)) + "\n")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
