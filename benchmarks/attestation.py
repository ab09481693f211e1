"""Quotes verified per second, cold and warm, against dcap-qvl in the same run; and what a verifier remembers.

"cold" reads and checks everything anew (`verify_quote`), "warm" has certificate and collateral checks from before
(`Verifier`), as an agent has that sees the same participants again; dcap-qvl has no such memory. Real quotes where
they stand beside the repository, else quotes of the software platform; "quotes" says which.

"memory" gives one verifier 2,000 machines, each with a PCK of its own, under 200 collaterals, and reads by how much
the process has grown: the limits of the caches must bound it.
"""

from __future__ import annotations

import gc
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]

from attestation.collateral import Collateral
from attestation.roots import INTEL_ROOT
from attestation.verify import Verifier, verify_quote
from tests.attestation.conftest import NOW, Forge

VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors" / "tdx"
SECONDS = 9.0
"""So long the three are asked in turn, so that whatever else the machine does slows all of them."""
MACHINES, COLLATERALS = 2_000, 200

Question = tuple[bytes, Collateral, int]


def run() -> Iterator[dict[str, Any]]:
    real = _real_questions()
    if real:
        yield _rates(real, INTEL_ROOT, "real, each with its own collateral")
    yield _rates(_forged_questions(), _forge().root.der, "forged, all with one collateral")
    yield _memory()


def _rates(questions: Sequence[Question], root: bytes, quotes: str) -> dict[str, Any]:
    verifier = Verifier(root)
    others = [dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json().decode()) for _, collateral, _ in questions]

    def cold() -> None:
        for raw, collateral, now in questions:
            verify_quote(raw, collateral, now=now, root=root)

    def warm() -> None:
        for raw, collateral, now in questions:
            verifier.verify_quote(raw, collateral, now=now)

    def reference() -> None:
        for (raw, _, now), other in zip(questions, others, strict=True):
            dcap_qvl.verify_with_root_ca(raw, other, root, now)

    cold_s, warm_s, reference_s = _seconds_each([cold, warm, reference])
    count = len(questions)
    return {
        "quotes": quotes,
        "distinct": count,
        "cold_per_s": round(count / cold_s),
        "warm_per_s": round(count / warm_s),
        "reference": f"dcap-qvl {version('dcap-qvl')} on the same quotes, on one core as well",
        "reference_per_s": round(count / reference_s),
        "cold_ratio": round(reference_s / cold_s, 2),
        "warm_ratio": round(reference_s / warm_s, 2),
    }


def _seconds_each(rounds: Sequence[Callable[[], None]]) -> list[float]:
    """How long one call of each takes on average; each is called once before the clock starts."""
    for call in rounds:
        call()
    spent, count, started = [0.0] * len(rounds), 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        count += 1
        for i, call in enumerate(rounds):
            before = time.perf_counter()
            call()
            spent[i] += time.perf_counter() - before
    return [total / count for total in spent]


def _real_questions() -> list[Question]:
    """The real quotes that both verifiers accept, each with one collateral."""
    if not VECTORS.is_dir():
        return []
    questions = []
    for quote in json.loads((VECTORS / "manifest.json").read_text())["quotes"]:
        for case in [case for case in quote["cases"] if case["status"] and case["dcap_qvl_0_7_0"] == "ok"][:1]:
            collateral = Collateral.from_json((VECTORS / "collateral" / case["collateral"]).read_bytes())
            questions.append(((VECTORS / quote["file"]).read_bytes(), collateral, case["now"]))
    return questions


@cache
def _forge() -> Forge:
    return Forge.new()


def _forged_questions() -> list[Question]:
    forge = _forge()
    collateral = forge.collateral()
    return [(forge.quote_of(forge.pck_of(forge.pck_issuer)), collateral, NOW) for _ in range(10)]


def _memory() -> dict[str, Any]:
    forge = _forge()
    collaterals = [_collateral(forge, number) for number in range(COLLATERALS)]
    verifier = Verifier(forge.root.der)
    grown: list[float] = []
    before = _rss_mib()
    for number in range(MACHINES):
        raw = forge.quote_of(forge.pck_of(forge.pck_issuer))
        verifier.verify_quote(raw, collaterals[number % COLLATERALS], now=NOW)
        if (number + 1) % (MACHINES // 4) == 0:
            gc.collect()
            grown.append(round(_rss_mib() - before, 1))
    return {
        "machines": MACHINES,
        "collaterals": COLLATERALS,
        "grown_mib_by_quarter": grown,
        "reference": "the caches' limits: they are full after half of the machines",
    }


def _collateral(forge: Forge, number: int) -> Collateral:
    return forge.collateral(lambda tree: tree.update(tcbEvaluationDataNumber=number))


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
