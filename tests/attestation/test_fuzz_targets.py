"""The fuzzing targets (`tools.fuzz_targets`) stand on good seeds, and hold without a fuzzer too."""

from __future__ import annotations

import contextlib
from random import Random

import pytest

from attestation.errors import AttestationError
from tests.attestation.tools.fuzz_targets import TARGETS
from tests.support.quote_mutations import edited

REFUSED = {"revocation_list": 1, "tls_records": 1}
"""Seeds that are refused at the very end: a list of another issuer, records that no such key decrypts."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_to_the_end(name: str) -> None:
    refused = 0
    for seed in TARGETS[name].seeds():
        try:
            TARGETS[name].run(seed)
        except AttestationError:
            refused += 1
    assert refused == REFUSED.get(name, 0)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_edited_seeds_are_read_or_refused(name: str) -> None:
    dice, seeds, answered = Random(name), list(TARGETS[name].seeds()), 0
    for seed in seeds:
        for _ in range(20):
            with contextlib.suppress(AttestationError):
                TARGETS[name].run(edited(dice, seed))
            answered += 1
    assert answered == 20 * len(seeds) > 0
