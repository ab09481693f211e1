"""Fuzzes one target in this process, for `fuzz`, which starts it and says what comes of it.

    python -m tests.attestation.tools.fuzz_one TARGET FOLDER [libFuzzer's options ...]

FOLDER holds the corpus, and takes the seeds; libFuzzer ends the process.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["attestation", "gossip"]):
    from attestation.errors import AttestationError
    from gossip.errors import GossipError
    from tests.attestation.tools import fuzz_targets
    from tests.gossip.tools import fuzz_targets as wire_targets


def main(name: str, folder: Path, options: list[str]) -> None:
    warnings.simplefilter("ignore")  # of the X.509 library, about certificates that no CA would make
    target = (fuzz_targets.TARGETS | wire_targets.TARGETS)[name]
    for seed in target.seeds():
        (folder / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    words = folder.with_name(f"{name}.dict")
    words.write_text("".join(_quoted(word) for word in (*target.words, b"\0")))

    def attempt(data: bytes) -> None:
        try:
            target.run(data)
        except (AttestationError, GossipError):
            return

    atheris.Setup([name, f"-dict={words}", *options, str(folder)], attempt)
    atheris.Fuzz()


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
