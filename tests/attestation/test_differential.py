"""Our verifier beside dcap-qvl 0.7.0, on real quotes with one thing changed (`tools.differential`).

Nothing is accepted here that dcap-qvl refuses, and where both accept both tell the same facts, with these exceptions:

| accepted here alone, or with other facts | why it may be |
|---|---|
| policy: debug, service TD, TD attributes | dcap-qvl forces a policy; here `attestation.appraisal` has the pool's |
| QE authentication data of another length | the quote's format leaves the length free; dcap-qvl wants 32 bytes |
| the second of the next update | a list is good until then, that second included, as in Intel's library |
| levels out of order | sorted here, as in Intel's library; taken as they stand there; Intel serves them in order |
| advisories of the TCB that a relaunch would give | added here: a policy that rejects one means this machine too |

Refused here alone, by our error's code, and why (`STRICTER`): what Intel's library refuses as well, or what only
somebody who altered the quote could have made.
"""

from __future__ import annotations

import dataclasses

import pytest

from attestation.collateral import Collateral
from attestation.errors import AttestationError
from attestation.types import VerifiedQuote
from attestation.verify import Verifier, verify_quote
from tests.attestation.tools import differential
from tests.support.quote_mutations import Input, Pieces, real_cases
from tests.support.resigned_world import draft_of

pytestmark = pytest.mark.skipif(not real_cases(), reason="the TDX vectors (../shared/vectors/tdx) are not here")

STRICTER = {
    "quote_slack": "bytes that no length covers, or that a length covers and no field",
    "quote_too_long": "more than 16 KiB",
    "certification_data": "the outer certification data is of another type than 6",
    "qe_report_data": "the second half of the QE's report data is not zero",
    "qe_attributes": "the QE identity has bits outside its own mask",
    "pce_id_mismatch": "the PCK's PCE is not the TCB info's",
    "pck_chain_form": "the quote's chain is not exactly [PCK, PCK CA, root], in that order, with nothing between",
    "pck_chain_root": "it ends in another root, though the pinned one vouches as well",
    "pck_chain_name": "a certificate has a name that Intel's PKI does not have there",
    "pck_chain_usage": "a CA or leaf whose usage says that it is another kind of certificate",
    "pck_chain_signature": "a certificate is not issued by the next one, but by another one in the chain",
    "pck_certificate": "a certificate that is not strictly of Intel's profile",
    "pck_extension": "the SGX extension is not strict DER, or an entry that dcap-qvl does not read is wrong",
    "pck_extension_missing": "another extension stands in the SGX extension's place",
    "collateral_chain_form": "an issuer chain is not exactly [issuer, root]; dcap-qvl does not read the CRL's",
    "collateral_chain_root": "it ends in another root",
    "collateral_chain_name": "a certificate has a name that Intel's PKI does not have there",
    "collateral_chain_usage": "an issuer whose usage says that it may not issue this",
    "collateral_chain_signature": "dcap-qvl does not read the chain of the PCK revocation list's issuer",
    "collateral_certificate": "dcap-qvl does not read the chain of the PCK revocation list's issuer",
    "crl_not_yet_valid": "a revocation list from the future",
    "tcb_info_kind": "a document of another version or type",
    "tcb_info_form": "a document with a key of another type, a bad date or hex, or a number out of range",
    "tcb_info_duplicate_key": "a key stands twice: two readers could take two values",
    "tcb_status_unknown": "a status that a level of this kind cannot have",
}


def require_agreement(tally: differential.Tally) -> None:
    assert tally.wrong == {}
    assert set(tally.stricter) <= set(STRICTER)
    assert tally.both_accept > tally.inputs // 10, "the inputs do not reach deep"


def test_2000_inputs_have_one_verdict() -> None:
    tally = differential.run(2_000, seed=0, jobs=1)
    require_agreement(tally)
    assert tally.inputs == 2_000


@pytest.mark.long
@pytest.mark.timeout(900)
def test_100000_inputs_have_one_verdict() -> None:
    tally = differential.run(100_000, seed=1, jobs=2)
    print(differential.summary(tally))  # noqa: T201 (the figures of the run)
    require_agreement(tally)
    assert tally.inputs == 100_000


def verdict(case: Input) -> VerifiedQuote | str:
    return differential.ours(case, Verifier(case.root))


def test_what_is_signed_again_unchanged_keeps_its_verdict() -> None:
    for case in real_cases():
        assert Pieces.of(case.raw).join() == case.raw
        real, again = verdict(case), verdict(draft_of(case).sign())
        if isinstance(real, str) or isinstance(again, str):
            assert real == again == case.how
        else:
            assert real.status == again.status == case.how


def test_a_verdict_does_not_depend_on_what_was_asked_before() -> None:
    remembering: dict[bytes, Verifier] = {}
    accepted = 0
    for it in differential.inputs_of(2, 0, 300, real_cases()):
        verifier = remembering.setdefault(it.root, Verifier(it.root, collaterals_max=4, pcks_max=2))
        try:
            fresh: object = verify_quote(it.raw, Collateral(**it.parts), now=it.now, root=it.root)
            accepted += 1
        except AttestationError as error:
            fresh = error.code
        assert differential.ours(it, verifier) == differential.ours(it, verifier) == fresh, it.how
    assert accepted > 30


def test_the_inputs_are_the_same_every_time() -> None:
    for first, second in zip(*(differential.inputs_of(3, 1, 40, real_cases()) for _ in range(2)), strict=True):
        assert (first.how, first.now) == (second.how, second.now)
        if not first.how.startswith("signed"):
            assert dataclasses.asdict(first) == dataclasses.asdict(second)
