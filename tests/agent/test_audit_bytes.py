"""Verifying whatever bytes: an answer each time, and never another settlement that is called the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from audit_bundles import first, scene, with_account
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.audit.bundle import Bundle
from agent.audit.verifying import verify

__all__ = ["first", "scene"]


def parts(bundle: Bundle) -> dict[str, Callable[[bytes], Bundle]]:
    """Every blob of a bundle, and how to put another in its place."""
    chain = bundle.chain

    def header(at: int) -> Callable[[bytes], Bundle]:
        def put(data: bytes) -> Bundle:
            headers = list(chain.headers)
            headers[at] = replace(headers[at], proof=data)
            return replace(bundle, chain=replace(chain, headers=tuple(headers)))

        return put

    def link(at: int, name: str) -> Callable[[bytes], Bundle]:
        def put(data: bytes) -> Bundle:
            links = list(chain.links)
            links[at] = replace(links[at], **{name: data})
            return replace(bundle, chain=replace(chain, links=tuple(links)))

        return put

    def listed(name: str, at: int) -> Callable[[bytes], Bundle]:
        def put(data: bytes) -> Bundle:
            blobs = list(getattr(bundle, name))
            blobs[at] = data
            return replace(bundle, **{name: tuple(blobs)})

        return put

    found: dict[str, Callable[[bytes], Bundle]] = {}
    for at in range(len(chain.headers)):
        found[f"header {at}"] = header(at)
    for at in range(len(chain.links)):
        for name in ("proof", "state_proof"):
            found[f"link {at} {name}"] = link(at, name)
    for at in range(len(chain.accounts)):
        for name in ("shard", "shard_proof", "proof", "state"):
            found[f"account {at} {name}"] = lambda data, at=at, name=name: with_account(bundle, at, **{name: data})
    for name in ("root", "base", "settled", "proposal"):
        found[name] = lambda data, name=name: replace(bundle, **{name: data})
    for name in ("observations", "records", "attachments"):
        for at in range(len(getattr(bundle, name))):
            found[f"{name} {at}"] = listed(name, at)
    return found


def blob(bundle: Bundle, name: str) -> bytes:
    kind, *rest = name.split()
    if kind == "header":
        return bundle.chain.headers[int(rest[0])].proof
    if kind in ("account", "link"):
        found: bytes = getattr(getattr(bundle.chain, kind + "s")[int(rest[0])], rest[1])
        return found
    value = getattr(bundle, kind)
    return value[int(rest[0])] if rest else value


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_byte_anywhere_is_an_answer_and_never_another_settlement(first: Bundle, data: st.DataObject) -> None:
    changeable = parts(first)
    name = data.draw(st.sampled_from([name for name in sorted(changeable) if name != "base"]))
    changed = bytearray(blob(first, name))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.sampled_from([len(changed), len(changed) // 2]))
    found = verify(changeable[name](bytes(changed[:cut])))
    # Bytes of a bag of cells that nothing depends on may differ; what landed never does.
    assert not found.is_same or found.landed == found.recomputed == verify(first).landed
