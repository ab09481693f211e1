"""A language model of random weights that llama.cpp loads: two layers, a vocabulary of ASCII, 0.4 MB.

What it says makes no sense, but costs what a model's tokens cost: they are computed one by one, counted, cached.
Written without any library, the same bytes for the same seed.

Source: GGUF specification, ggml `docs/gguf.md`; names of a llama model's tensors, llama.cpp `src/llama-arch.cpp`.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

EMBEDDING = 64
FEED_FORWARD = 128
HEADS = 4
LAYERS = 2
CONTEXT = 2048
_ALIGNMENT = 32
_F32 = 0
_U32_TYPE, _I32_TYPE, _F32_TYPE, _STRING_TYPE, _ARRAY_TYPE = 4, 5, 6, 8, 9
_UNKNOWN, _NORMAL, _CONTROL, _BYTE = 2, 1, 3, 6

# Bytes beyond ASCII are left out: an answer is valid UTF-8 wherever it is cut.
_WORDS = "\N{LOWER ONE EIGHTH BLOCK}abcdefghijklmnopqrstuvwxyz"
_TOKENS = (
    [("<unk>", _UNKNOWN), ("<s>", _CONTROL), ("</s>", _CONTROL)]
    + [(f"<0x{byte:02X}>", _BYTE) for byte in range(128)]
    + [(letter, _NORMAL) for letter in _WORDS]
)


def write_model(path: Path, seed: int = 1) -> None:
    """Write the model as a GGUF file."""
    numbers = random.Random(seed)
    shapes = dict(_shapes())
    settings = list(_settings())
    infos, data = bytearray(), bytearray()
    for name, shape in shapes.items():
        infos += _string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        infos += struct.pack("<IQ", _F32, len(data))
        weights = (numbers.uniform(-0.5, 0.5) if len(shape) > 1 else 1.0 for _ in range(_size(shape)))
        data += array("f", weights).tobytes()
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(settings)) + b"".join(settings) + infos
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors with their dimensions, the fastest first."""
    yield "token_embd.weight", (EMBEDDING, len(_TOKENS))
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_norm.weight", (EMBEDDING,)
        for part in ("q", "k", "v", "output"):
            yield f"blk.{layer}.attn_{part}.weight", (EMBEDDING, EMBEDDING)
        yield f"blk.{layer}.ffn_norm.weight", (EMBEDDING,)
        yield f"blk.{layer}.ffn_gate.weight", (EMBEDDING, FEED_FORWARD)
        yield f"blk.{layer}.ffn_up.weight", (EMBEDDING, FEED_FORWARD)
        yield f"blk.{layer}.ffn_down.weight", (FEED_FORWARD, EMBEDDING)
    yield "output_norm.weight", (EMBEDDING,)
    yield "output.weight", (EMBEDDING, len(_TOKENS))


def _settings() -> Iterator[bytes]:
    def setting(key: str, kind: int, value: bytes) -> bytes:
        return _string(key) + struct.pack("<I", kind) + value

    yield setting("general.architecture", _STRING_TYPE, _string("llama"))
    yield setting("tokenizer.ggml.model", _STRING_TYPE, _string("llama"))
    counts = {
        "llama.context_length": CONTEXT,
        "llama.embedding_length": EMBEDDING,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.rope.dimension_count": EMBEDDING // HEADS,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    for key, count in counts.items():
        yield setting(key, _U32_TYPE, struct.pack("<I", count))
    yield setting("llama.attention.layer_norm_rms_epsilon", _F32_TYPE, struct.pack("<f", 1e-5))

    def listed(kind: int, items: list[bytes]) -> bytes:
        return struct.pack("<IQ", kind, len(items)) + b"".join(items)

    texts = [_string(text) for text, _ in _TOKENS]
    yield setting("tokenizer.ggml.tokens", _ARRAY_TYPE, listed(_STRING_TYPE, texts))
    scores = [struct.pack("<f", 0.0) for _ in _TOKENS]
    yield setting("tokenizer.ggml.scores", _ARRAY_TYPE, listed(_F32_TYPE, scores))
    kinds = [struct.pack("<i", kind) for _, kind in _TOKENS]
    yield setting("tokenizer.ggml.token_type", _ARRAY_TYPE, listed(_I32_TYPE, kinds))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
