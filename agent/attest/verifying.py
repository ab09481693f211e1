"""`gpupool attest verify`: the verdict on a quote, from files.

Exit codes: 0 the quote is authentic (and the policy allows it, with `--policy`); 1 it is refused; 2 wrong usage.
Nothing else ends in one of these two: an answer that cannot be written has 74 or 141, an error in the program 70.
"""

from __future__ import annotations

import argparse

from agent.attest.certificates import CERTIFICATES_MAX, pem_blocks
from agent.attest.inputs import (
    QUOTE_FILE_BYTES_MAX,
    REPORT_DATA_BYTES,
    parse_hex,
    parse_time,
    read_binary,
    read_bytes,
    read_root,
)
from agent.attest.judging import Given, judge
from agent.attest.kinds import Kind, kind_of
from agent.attest.policies import read_policy_file
from agent.attest.telling import outcome_text, outcome_value
from agent.errors import ConfigError, OperationError
from agent.output import EXIT_FAILED, answer
from attestation.collateral import COLLATERAL_BYTES_MAX
from attestation.errors import RootRefusedError
from attestation.gpu import GPU_EVIDENCE_BYTES_MAX
from attestation.gpu_chain import CERTIFICATE_BYTES_MAX
from attestation.gpu_report import NONCE_BYTES

_GPU_FILE_BYTES_MAX = 3 * GPU_EVIDENCE_BYTES_MAX
"""In hex, with line ends."""
_CHAIN_BYTES_MAX = 2 * CERTIFICATES_MAX * CERTIFICATE_BYTES_MAX


def verify(options: argparse.Namespace) -> int:
    """Verify a quote, and appraise it if there is a policy."""
    gpu, gpu_chain = _read_gpu(options)
    given = Given(
        raw=read_binary(options.quote, QUOTE_FILE_BYTES_MAX),
        collateral=read_bytes(options.collateral, COLLATERAL_BYTES_MAX),
        root=read_root(options.root),
        now=parse_time(options.at),
        report_data=parse_hex("--report-data", options.report_data, REPORT_DATA_BYTES),
        gpu=gpu,
        gpu_chain=gpu_chain,
        gpu_nonce=parse_hex("--gpu-nonce", options.gpu_nonce, NONCE_BYTES),
        policy=None if options.policy is None else read_policy_file(options.policy),
    )
    try:
        outcome = judge(given)
    except RootRefusedError as error:
        raise ConfigError(f"--root {options.root}: {error}") from error
    answer(options, outcome_value(given, outcome), outcome_text(given, outcome))
    return 0 if outcome.error is None else EXIT_FAILED


def _read_gpu(options: argparse.Namespace) -> tuple[bytes | None, tuple[bytes, ...] | None]:
    """GPU evidence, or a report and its certificates (DER)."""
    if options.gpu is None:
        for option, value in (("--gpu-nonce", options.gpu_nonce), ("--gpu-chain", options.gpu_chain)):
            if value is not None:
                raise ConfigError(f"{option}: needs --gpu FILE, what the GPUs reported")
        return None, None
    gpu = read_binary(options.gpu, _GPU_FILE_BYTES_MAX)
    is_report = kind_of(gpu) is Kind.GPU_REPORT
    if options.gpu_chain is None:
        if is_report:
            raise ConfigError(
                f"--gpu {options.gpu}: this is a GPU report, not evidence: name its certificates with --gpu-chain"
            )
        return gpu, None
    if not is_report:
        raise ConfigError(f"--gpu-chain: is for a GPU report alone, which {options.gpu} is not")
    chain = read_bytes(options.gpu_chain, _CHAIN_BYTES_MAX)
    try:
        return gpu, tuple(pem_blocks(chain))
    except OperationError as error:
        raise ConfigError(f"--gpu-chain {options.gpu_chain}: {error}") from error
