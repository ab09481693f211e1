"""`gpupool attest policy`: what is a policy, its hash, what is dangerous in one, every option in words."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attest_place import run_json, table_text
from pool_fixture import POLICY_TEXT, policy

from agent.attest.policy_words import WORDS, remarks
from agent.cli import main
from attestation.gpu_policy import GpuGolden
from attestation.policy import AttestationPolicy, Measurement
from attestation.providers.software import SOFTWARE_MEASUREMENT
from attestation.types import TcbStatus, TdAttribute
from gossip.policy import (
    GuaranteedScore,
    HybridScore,
    PoolPolicy,
    ProportionalScore,
    Score,
    TieredScore,
    WeightedScore,
    parse_policy,
)

EXAMPLE = Path(__file__).resolve().parents[2] / "packaging" / "policy.example.toml"
ONES = b"\1" * 48
IMAGE = Measurement(name="image", mr_td=ONES, rtmrs=(bytes(48),) * 4)
GOLDEN = GpuGolden(name="H100", measurements={3: frozenset({ONES})}, fwids=frozenset({ONES}))
TEXT = POLICY_TEXT + "evidence_age_max_s = 86400\n"
STRICT: dict[str, Any] = {
    "measurements": (IMAGE,),
    "tcb_evaluation_min": 20,
    "qe_evaluation_min": 19,
    "mr_seams": frozenset({bytes(48)}),
    "fmspcs": frozenset({bytes(6)}),
    "ppids_allowed": frozenset({bytes(16)}),
    "gpu_evidence_required": True,
    "gpu_measurements": (GOLDEN,),
}
PCIE = replace(GOLDEN, protected_pcie=True)

POOLS = ("work.machine_nodes_max", "work.anchor_age_max_s")


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return str(path)


def test_a_policy_without_fault_has_no_remarks() -> None:
    assert remarks(AttestationPolicy(**STRICT), None) == ()


@pytest.mark.parametrize(
    ("changes", "level", "key"),
    [
        ({"measurements": ()}, "danger", "measurements"),
        ({"measurements": (SOFTWARE_MEASUREMENT,)}, "danger", "measurements"),
        (
            {"measurements": (Measurement(name="open", mr_td=ONES, rtmrs=(None, *(bytes(48),) * 3)),)},
            "danger",
            "measurements",
        ),
        ({"measurements": (replace(IMAGE, mr_td=bytes(48)),)}, "danger", "measurements"),
        ({"measurements": (IMAGE, replace(IMAGE, name="other"))}, "note", "measurements"),
        ({"tcb_statuses": frozenset()}, "danger", "tcb_statuses"),
        ({"tcb_statuses": frozenset({TcbStatus.OUT_OF_DATE})}, "danger", "tcb_statuses"),
        ({"tcb_statuses": frozenset({TcbStatus.SW_HARDENING_NEEDED})}, "note", "tcb_statuses"),
        ({"out_of_date_grace_s": 86_400}, "note", "out_of_date_grace_s"),
        ({"out_of_date_grace_s": 91 * 86_400}, "danger", "out_of_date_grace_s"),
        ({"tcb_evaluation_min": 0}, "danger", "tcb_evaluation_min"),
        ({"qe_evaluation_min": 0}, "danger", "qe_evaluation_min"),
        ({"evidence_age_max_s": 599}, "danger", "evidence_age_max_s"),
        ({"evidence_age_max_s": 3 * 86_400}, "danger", "evidence_age_max_s"),
        ({"debug_allowed": True}, "danger", "debug_allowed"),
        ({"td_attributes_required": TdAttribute(0)}, "danger", "td_attributes_required"),
        ({"td_attributes_allowed": TdAttribute.MIGRATABLE}, "note", "td_attributes_allowed"),
        ({"mr_service_tds": frozenset({bytes(48)})}, "note", "mr_service_tds"),
        ({"guest_handshake_allowed": True}, "danger", "guest_handshake_allowed"),
        ({"mr_seams": None}, "note", "mr_seams"),
        ({"fmspcs": None}, "note", "fmspcs"),
        ({"ppids_allowed": None}, "note", "ppids_allowed"),
        ({"ppids_allowed": frozenset()}, "danger", "ppids_allowed"),
        ({"gpu_evidence_required": False}, "note", "gpu_evidence_required"),
        ({"gpu_measurements": ()}, "danger", "gpu_measurements"),
        ({"gpu_measurements": (PCIE,)}, "note", "gpu_measurements"),
        ({"gpu_measurements": (replace(GOLDEN, fwids=frozenset()),)}, "note", "gpu_measurements"),
    ],
)
def test_each_danger_and_choice_is_remarked_on(changes: dict[str, Any], level: str, key: str) -> None:
    found = remarks(AttestationPolicy(**(STRICT | changes)), None)
    assert [(remark.level, remark.key) for remark in found] == [(level, f"attestation.{key}")]


def vouched(**work: object) -> PoolPolicy:
    """A pool in which others vouch for all that is paid for, with these keys of [work]."""
    sane = {"gpu_tokens_per_s": {"GH100": 5000}, "witness_carry_s": 900}
    return replace(
        policy(),
        work=msgspec.structs.replace(policy().work, **(sane | work)),
        receipts=msgspec.structs.replace(policy().receipts, ceiling="receipts", signers=("ab" * 32,)),
        score=ProportionalScore(),
    )


def test_many_nodes_on_any_machine_are_remarked_on() -> None:
    pool = vouched(machine_nodes_max=8)
    assert remarks(AttestationPolicy(**STRICT), pool) == ()
    found = remarks(AttestationPolicy(**(STRICT | {"ppids_allowed": None})), pool)
    assert [(remark.level, remark.key) for remark in found] == [
        ("note", "attestation.ppids_allowed"),
        ("note", "work.machine_nodes_max"),
    ]


def test_evidence_that_outlives_its_anchor_is_remarked_on() -> None:
    pool = vouched(anchor_age_max_s=3600)
    found = remarks(AttestationPolicy(**(STRICT | {"evidence_age_max_s": 3600})), pool)
    assert [(remark.level, remark.key) for remark in found] == [("danger", "work.anchor_age_max_s")]
    assert remarks(AttestationPolicy(**(STRICT | {"evidence_age_max_s": 3599})), pool) == ()


def test_work_that_nobody_vouches_for_is_remarked_on() -> None:
    found = remarks(AttestationPolicy(**STRICT), policy())
    assert [(remark.level, remark.key) for remark in found] == [
        ("danger", "receipts.ceiling"),
        ("note", "work.gpu_tokens_per_s"),
        ("note", "work.witness_carry_s"),
        ("note", "score.quality"),
    ]


EVEN: dict[str, int] = {"quality_min": 1000, "quality_max": 1000, "reliability_min": 500, "reliability_max": 1500}


@pytest.mark.parametrize(
    ("score", "keys"),
    [
        (WeightedScore(tokens=500, uptime=200, tasks=200, quality=100), ["score.quality"]),
        (WeightedScore(tokens=600, uptime=200, tasks=200, quality=0), []),
        (TieredScore(base=850, top=500, next=300), ["score.base"]),
        (TieredScore(base=1000, top=500, next=300), []),
        (HybridScore(tokens=700, uptime=200, tasks=100, **(EVEN | {"quality_max": 1001})), ["score.quality_max"]),
        (HybridScore(tokens=700, uptime=200, tasks=100, **EVEN), []),
        (GuaranteedScore(minimum=500), []),
        (ProportionalScore(), []),
    ],
)
def test_quality_that_is_paid_for_is_remarked_on(score: Score, keys: list[str]) -> None:
    found = remarks(AttestationPolicy(**STRICT), replace(vouched(), score=score))
    assert [(remark.level, remark.key) for remark in found] == [("note", key) for key in keys]


def test_dangers_come_first() -> None:
    levels = [remark.level for remark in remarks(AttestationPolicy(), policy())]
    assert levels == sorted(levels)
    assert {"danger", "note"} == set(levels)


def test_every_option_is_explained() -> None:
    assert set(WORDS) == set(AttestationPolicy().to_mapping())


def test_a_good_policy_is_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, digest = write(tmp_path, TEXT), parse_policy(TEXT).hash.hex()
    code, value = run_json(capsys, ["attest", "policy", "check", path])
    assert (code, value["ok"], value["kind"], value["hash"]) == (0, True, "pool", digest)
    assert value["remarks"][0]["level"] == "danger"
    assert main(["attest", "policy", "check", path]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"ok: the policy of a pool, hash {digest}\n")
    assert "\ndanger  attestation.measurements: none is pinned, so every quote is refused\n" in said


@pytest.mark.parametrize("header", ["", "[attestation]"])
def test_a_table_alone_is_ok_and_has_no_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str) -> None:
    path = write(tmp_path, table_text(header))
    code, value = run_json(capsys, ["attest", "policy", "check", path])
    assert (code, value["ok"], value["kind"], value["hash"]) == (0, True, "attestation", None)
    assert main(["attest", "policy", "hash", path]) == 2
    assert "has the attestation table alone; the pool commits to the hash of the whole" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no policy: it has no key of [attestation]"),
        ("[attestation]", "holds no policy: "),
        (POLICY_TEXT, "holds no policy: "),
        ("colour = 1", "attestation.colour: unknown key"),
        ("gpu_min = 1", "attestation.gpu_min: unknown key; did you mean gpus_min?"),
        ("gpus_min = 0", "attestation.gpus_min: expected `int` >= 1"),
        ("[attestation]\ngpus_min = 'one'", "attestation.gpus_min: expected `int`, got `str`"),
        ("[[measurements]]\nmrtd = ''", "attestation.measurements[0].mrtd: unknown key; did you mean mr_td?"),
        ("tcb_statuses = ['UpTodate']", "attestation.tcb_statuses[0]: 'UpTodate', expected one of: UpToDate, "),
        ("platform_flags_allowed = ['smt']", "expected one of: dynamic_platform, "),
        ("mr_seams = 'all'", "attestation.mr_seams: 'all', expected one of: \"any\", a list"),
        ("mr_seams = ['zz']", "attestation.mr_seams: 'zz' is not hex"),
        ("td_attributes_allowed = ['PKSS']", "known are LASS, SEPT_VE_DISABLE, "),
        ("gpus_min = 1\ngpus_min = 2", "a key or table stands twice: "),
        ("[attestation]\n[attestation]", "a key or table stands twice: "),
        (POLICY_TEXT.replace("collect_s", "colect_s"), "timing.colect_s: unknown key; did you mean collect_s?"),
        (POLICY_TEXT.replace("stage_s = 5", ""), "timing.stage_s: missing"),
        ("attestation = 1", "attestation: expected `object`, got `int`"),
        ("[attestation]\ntcb_statuses = ['Revoked']", "tcb_statuses: Revoked can never be allowed"),
        (POLICY_TEXT.replace("tokens = 500", "tokens = 501"), "policy: score: "),
        (POLICY_TEXT + "evidence_age_max_s = 0", "attestation.evidence_age_max_s: expected `int` >= 1"),
        ("= 1", "not TOML: "),
        ("\0", "not TOML: "),
    ],
)
def test_a_bad_policy_is_told_with_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = write(tmp_path, text)
    code, value = run_json(capsys, ["attest", "policy", "check", path])
    assert (code, value["ok"]) == (1, False)
    assert said in value["error"]
    assert main(["attest", "policy", "check", path]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"gpupool: {path}: ")
    assert output.err.count("\n") == 1
    for verb in ("hash", "explain"):
        assert main(["attest", "policy", verb, path]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "hash", "explain"])
def test_a_missing_file_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main(["attest", "policy", verb, str(tmp_path / "none")]) == 2
    assert "cannot be read: No such file or directory" in capsys.readouterr().err


def test_the_hash_is_the_pools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, digest = write(tmp_path, TEXT), parse_policy(TEXT).hash.hex()
    assert main(["attest", "policy", "hash", path]) == 0
    assert capsys.readouterr().out == f"{digest}\n"
    assert run_json(capsys, ["attest", "policy", "hash", path]) == (0, {"hash": digest})


def test_explained_are_value_and_meaning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, POLICY_TEXT + "fmspcs = ['00806f050000']\n")
    assert main(["attest", "policy", "explain", path]) == 0
    said = capsys.readouterr().out
    assert '\nfmspcs = ["00806f050000"]\nprocessor families that may take part, by FMSPC\n' in said
    assert "\nxfam_allowed = 0x6dbe7\n" in said
    assert "\nwork.machine_nodes_max = 1\n" in said
    code, value = run_json(capsys, ["attest", "policy", "explain", path])
    assert (code, value["hash"]) == (0, parse_policy(Path(path).read_text()).hash.hex())
    assert [each["key"] for each in value["options"]] == [*AttestationPolicy().to_mapping(), *POOLS]


def test_the_example_is_a_policy_that_names_every_option_and_admits_nobody() -> None:
    text = EXAMPLE.read_text()
    example = parse_policy(text)
    rules = AttestationPolicy.from_mapping(example.attestation)
    found = remarks(rules, example)
    assert {remark.key for remark in found if remark.level == "danger"} == {
        "attestation.measurements",
        "attestation.gpu_measurements",
        "receipts.ceiling",
    }
    written = tomllib.loads(text)["attestation"]
    assert set(WORDS) - set(written) == {"measurements", "gpu_measurements", "xfam_allowed"}


def test_the_examples_tables_can_be_filled_in() -> None:
    text = EXAMPLE.read_text()
    head, _, tables = text.partition("# [[attestation.measurements]]")
    filled = head + ("# [[attestation.measurements]]" + tables).replace("\n# ", "\n").removeprefix("# ")
    filled = filled.replace('"..."', f'"{"11" * 48}"')
    rules = AttestationPolicy.from_mapping(parse_policy(filled).attestation)
    assert [measurement.name for measurement in rules.measurements] == ["worker image 1.0"]
    assert [golden.name for golden in rules.gpu_measurements] == ["H100, driver 550.90.07"]
