"""Golden values: what is pinned is demanded of every GPU, and an entry that pins nothing is none."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from attestation.errors import GpuMeasurementRefusedError, InvalidPolicyError
from attestation.errors.gpu import GpuCountError, GpuDeniedError
from attestation.gpu_policy import (
    BLOCK_VIDEO_DECODER,
    GpuGolden,
    GpuGoldenTable,
    appraise_gpus,
    golden_of,
    read_goldens,
    write_golden,
)
from tests.support.gpu_forge import BLOCKS, FWID, verified

ONE, THREE = BLOCKS[1], BLOCKS[3]
OTHER = hashlib.sha384(b"other").digest()
GOLDEN = GpuGolden(name="H100", measurements={1: frozenset({ONE}), 3: frozenset({THREE, OTHER})})
PINNED = replace(
    GOLDEN, drivers=frozenset({"550.90.07"}), vbioses=frozenset({"96.00.9F.00.01"}), fwids=frozenset({FWID})
)


def read(**table: Any) -> GpuGolden:
    tables = [{"name": "H100", "blocks": {"1": ONE.hex()}} | table]
    return read_goldens(msgspec.convert(tables, list[GpuGoldenTable]))[0]


def test_a_gpu_that_matches_is_allowed_by_name() -> None:
    gpus = [verified(), verified(measurements=BLOCKS | {3: OTHER})]
    appraised = appraise_gpus(gpus, [PINNED], gpus_min=2)
    assert [(entry.gpu, entry.golden) for entry in appraised] == [(gpus[0], "H100"), (gpus[1], "H100")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measurements": BLOCKS | {1: OTHER}}, "block 1"),
        ({"measurements": BLOCKS | {1: bytes(48)}}, "block 1"),
        ({"measurements": {3: THREE}}, "block 1"),
        ({"measurements": {}}, "block 1, block 3"),
        ({"driver": "550.90.08"}, "driver 550.90.08"),
        ({"vbios": "96.00.9F.00.02"}, "VBIOS 96.00.9F.00.02"),
        ({"fwid": OTHER}, "firmware id"),
        ({"protected_pcie": True}, "protected PCIe"),
    ],
)
def test_what_is_pinned_is_demanded(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GpuMeasurementRefusedError, match=said):
        appraise_gpus([verified(), verified(**changes)], [PINNED], gpus_min=1)


def test_what_is_not_pinned_may_be_anything() -> None:
    gpu = verified(driver="1.2", vbios="00.00.00.00.00", fwid=OTHER, measurements={1: ONE, 3: OTHER, 200: OTHER})
    assert appraise_gpus([gpu], [GOLDEN], gpus_min=0)[0].golden == "H100"


def test_protected_pcie_by_opt_in() -> None:
    assert appraise_gpus([verified(protected_pcie=True)], [replace(GOLDEN, protected_pcie=True)], gpus_min=1)


def test_entries_are_alternatives_and_are_not_mixed() -> None:
    newer = replace(GOLDEN, name="newer", measurements={1: frozenset({OTHER}), 3: frozenset({OTHER})})
    exact = replace(GOLDEN, measurements={1: frozenset({ONE}), 3: frozenset({THREE})})
    gpus = [verified(measurements={1: OTHER, 3: OTHER}), verified()]
    assert [entry.golden for entry in appraise_gpus(gpus, [exact, newer], gpus_min=2)] == ["newer", "H100"]
    with pytest.raises(GpuMeasurementRefusedError, match='nearest is "H100", differs in block 3'):
        appraise_gpus([verified(measurements={1: ONE, 3: OTHER})], [exact, newer], gpus_min=1)


def test_no_entries_allow_nothing() -> None:
    with pytest.raises(GpuMeasurementRefusedError, match="no golden entry"):
        appraise_gpus([verified()], [], gpus_min=0)
    assert appraise_gpus([], [], gpus_min=0) == ()


def test_too_few_gpus() -> None:
    with pytest.raises(GpuCountError, match="1 in confidential mode, the policy demands 2"):
        appraise_gpus([verified()], [GOLDEN], gpus_min=2)


def test_a_denied_gpu() -> None:
    with pytest.raises(GpuDeniedError):
        appraise_gpus([verified()], [GOLDEN], gpus_min=1, denied={bytes(32)})
    assert appraise_gpus([verified()], [GOLDEN], gpus_min=1, denied={bytes(31) + b"\x01"})


def test_the_table_form() -> None:
    golden = read(
        blocks={"1": ONE.hex().upper(), "3": [THREE.hex(), OTHER.hex(), OTHER.hex()]},
        driver="550.90.07",
        vbios=["96.00.9f.00.01"],
        fwid=FWID.hex(),
    )
    assert golden == PINNED
    table = write_golden(golden)
    assert read(**table) == golden
    assert list(table["blocks"]) == ["1", "3"]
    assert write_golden(read(**table)) == table


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"blocks": {}}, "pins no block"),
        ({"blocks": {"1": []}}, "an empty list allows nothing"),
        ({"driver": []}, "an empty list allows nothing"),
        ({"vbios": []}, "an empty list allows nothing"),
        ({"fwid": []}, "an empty list allows nothing"),
        ({"blocks": {"1": "00" * 48}}, "zeros, which mean"),
        ({"blocks": {"1": [ONE.hex(), "00" * 48]}}, "zeros, which mean"),
        ({"blocks": {"0": ONE.hex()}}, "expected 1 to 254"),
        ({"blocks": {"01": ONE.hex()}}, "expected 1 to 254"),
        ({"blocks": {"255": ONE.hex()}}, "expected 1 to 254"),
        ({"blocks": {"\u0663": ONE.hex()}}, "expected 1 to 254"),
        ({"blocks": {"1": "zz"}}, "not hex"),
        ({"blocks": {"1": ONE.hex()[:-2]}}, "not 48 bytes"),
        ({"fwid": "00"}, "not 48 bytes"),
        ({"driver": "some"}, "is no version"),
        ({"vbios": "96.00.9F.00"}, "is no version"),
    ],
)
def test_tables_that_are_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidPolicyError, match=said):
        read(**table)


def test_two_entries_of_one_name() -> None:
    table = GpuGoldenTable(name="a", blocks={"1": ONE.hex()})
    with pytest.raises(InvalidPolicyError, match="two entries of one name"):
        read_goldens([table, table])


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        read(drivers="550.90.07")


def test_a_golden_entry_from_reports() -> None:
    first = verified(measurements=BLOCKS | {BLOCK_VIDEO_DECODER: OTHER})
    second = verified(driver="550.90.12", measurements=BLOCKS | {5: OTHER, BLOCK_VIDEO_DECODER: OTHER})
    table = golden_of([first, second], name="ours")
    assert sorted(table["blocks"]) == ["1", "3", "7"]
    assert table["driver"] == ["550.90.07", "550.90.12"]
    assert len(appraise_gpus([first, second], [read(**table)], gpus_min=2)) == 2


def test_a_golden_entry_of_nothing() -> None:
    for gpus in ([], [verified(measurements={1: bytes(48)})], [verified(), verified(measurements={1: OTHER})]):
        with pytest.raises(InvalidPolicyError):
            golden_of(gpus, name="ours")
