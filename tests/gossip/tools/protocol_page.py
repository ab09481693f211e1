"""Writes the tables, diagrams and numbered rules of `docs/protocol.md` from the code.

    PYTHONPATH=tests/support python -m tests.gossip.tools.protocol_page

Limits are read from the sources of `gossip`: every constant whose name ends with `_MAX`, with what the source says
of it, or, where it says nothing, `MEANINGS`. Wire forms are those of samples (`wire_forms`). Rules are those that the
modules' docstrings number. A test compares the page.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path

from gossip.admission import ConnectionLimits, MessageLimits
from gossip.transport.values import TransportConfig
from tests.gossip.tools import close_drawn, wire_forms

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "protocol.md"
SOURCES = sorted((ROOT / "gossip").rglob("*.py"))

# ---- limits ----

MEANINGS = {
    "BATCHES_PER_SYNC_MAX": "answers with records that one exchange with a peer asks for",
    "BRANCHES_MAX": "records of one number in one log",
    "CHAIN_ACTIONS_MAX": "finalizations and submissions that wait to be sent",
    "HEAD_RANGES_MAX": "ranges of keys in which heads are compared",
    "CLOSE_BYTES_MAX": "an answer about a close",
    "HAVE_BYTES_MAX": "names of messages that the asker holds",
    "FETCHES_MAX": "requests for what is wanted that are under way at once",
    "REASONS_MAX": "reasons by which dropped messages are counted; all further ones count as one",
    "STREAMS_PER_PEER_MAX": "gossip streams that one peer may have open",
    "OUTBOX_MAX": "messages that wait to be published; more go by anti-entropy alone",
    "RECORD_BYTES_MAX": "a record",
    "QUOTE_BYTES_MAX": "the quote in evidence",
    "COUNTERS_MAX": "counters of one source in a work record",
    "RECEIPTS_MAX": "receipts in one record",
    "QUALITY_MAX": "quality, if nothing was wrong",
    "RELIABILITY_MAX": "reliability, if nobody was missed",
    "GPUS_MAX": "GPUs that one piece of evidence proves",
    "OBSERVATION_BYTES_MAX": "an observation",
    "PROPOSAL_BYTES_MAX": "a proposal",
    "ATTEST_BYTES_MAX": "an attest",
    "ENTRIES_MAX": "logs that an observation names",
    "FORKS_MAX": "fork proofs in an observation",
    "OBSERVATIONS_PER_OPERATOR_MAX": "observations of one operator held of an epoch; the oldest not listed gives way",
    "PROPOSALS_PER_LEADER_MAX": "proposals of one leader held of an epoch; its oldest gives way",
    "ATTESTS_PER_OPERATOR_MAX": "attests of one operator held of an epoch; its oldest gives way",
    "OUTCOMES_MAX": "computed settlements held of an epoch; the oldest without a certificate gives way",
    "CHECKPOINT_BYTES_MAX": "a checkpoint",
    "PARTICIPANTS_MAX": "leaves, and readings, in a checkpoint",
    "EVIDENCE_KEPT_MAX": "pieces of evidence per participant that a settlement carries on",
    "REQUEST_BYTES_MAX": "a request",
    "RESPONSE_BYTES_MAX": "an answer",
    "RECORDS_BYTES_MAX": "the records in an answer",
    "RECORDS_MAX": "records in an answer",
    "RANGES_MAX": "ranges in a request for records",
    "MESSAGES_MAX": "messages of one kind in an answer about a close",
    "GOSSIP_BYTES_MAX": "a gossip message",
    "POLICY_BYTES_MAX": "a policy document, in characters",
    "DEPTH_MAX": "how deep arrays may nest",
    "RPC_BYTES_MAX": "one GossipSub frame",
    "RPC_MESSAGES_MAX": "messages in one GossipSub frame",
    "CONTROL_ENTRIES_MAX": "control entries of one kind in a GossipSub frame",
    "CONTROL_IDS_MAX": "message ids in a control entry",
    "SEEN_MAX": "message ids remembered as seen",
    "STREAM_WINDOW_BYTES_MAX": "bytes that a peer may have under way on one stream",
    "NEGOTIATION_BYTES_MAX": "a line of protocol negotiation",
    "OUTBOUND_RPCS_MAX": "GossipSub frames that wait for one peer",
    "STREAMS_PER_CONNECTION_MAX": "streams that a peer may have open on one connection",
    "ADDRESSES_PER_PEER_MAX": "addresses remembered of one peer",
    "CONNECTIONS_MAX": "connections in all",
    "READ_BYTES_MAX": "bytes read from a stream at once",
    "ATTACH_RETRY_MAX_S": "longest wait before a gossip stream is opened again",
}


def limits() -> str:
    rows = ["| limit | value | of |", "|---|---|---|"]
    rows += [f"| `{module}.{name}` | {_amount(name, value)} | {said} |" for module, name, value, said in found_limits()]
    return "\n".join(rows) + "\n"


def found_limits() -> Iterator[tuple[str, str, float, str]]:
    """(module, name, value, what it bounds) of every limit in `gossip`, by module."""
    for path in SOURCES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        statements = ast.parse(path.read_text()).body
        for statement, following in zip(statements, [*statements[1:], None], strict=True):
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)]) if re.search(r"^[A-Z].*_MAX(_S)?$", name):
                    value = getattr(importlib.import_module(module), name)
                    yield module.removeprefix("gossip."), name, value, _meaning(name, following)


def _meaning(name: str, following: ast.stmt | None) -> str:
    match following:
        case ast.Expr(value=ast.Constant(value=str(said))) if name not in MEANINGS:
            text = " ".join(said.split()).rstrip(".")
            return text[0].lower() + text[1:]
        case _ if name in MEANINGS:
            return MEANINGS[name]
        case _:
            raise AssertionError(f"{name}: say below the constant, or in `MEANINGS`, what it bounds")


def _amount(name: str, value: float) -> str:
    if "_BYTES_" in name:
        return next(
            f"{value / size:g} {unit}"
            for size, unit in ((1 << 20, "MiB"), (1024, "KiB"), (1, "bytes"))
            if value >= size
        )
    return f"{value:,g} s" if name.endswith("_S") or "_S_" in name else f"{value:,}"


def transport() -> str:
    """The transport's own bounds, but for the sizes, which the agent sets to the limits above."""
    rows = ["| setting | value |", "|---|---|"]
    rows += [
        f"| `{settings.__name__}.{field.name}` | {field.default:g} |"
        for settings in (TransportConfig, MessageLimits, ConnectionLimits)
        for field in fields(settings)
        if type(field.default) in (int, float) and not field.name.endswith("_bytes_max")
    ]
    return "\n".join(rows) + "\n"


# ---- rules ----

MODULES = (
    "records",
    "log_chain",
    "node",
    "pull",
    "fetching",
    "roster",
    "addresses",
    "address_book",
    "finding",
    "witness",
    "probing",
    "epoch_close",
    "cut",
    "coverage",
    "tally",
    "credit",
    "receipts",
    "audit",
    "settlement",
    "pinning",
)


def rules(name: str) -> str:
    """The numbered rules of a module of `gossip`, as its docstring has them."""
    text = importlib.import_module(f"gossip.{name}").__doc__ or ""
    found = re.search(r"^1\. .*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise AssertionError(f"gossip/{name}.py numbers no rules")
    return f"{found[0]}\n"


# ---- the page ----

BLOCKS: Mapping[str, Callable[[], str]] = {
    "sequence": close_drawn.sequence,
    "close": close_drawn.states,
    "placements": close_drawn.placements,
    "limits": limits,
    "transport": transport,
    "wire": wire_forms.wire,
} | {f"rules of gossip/{name}.py": partial(rules, name) for name in MODULES}


def documented(text: str) -> str:
    """`text` with each block between its markers written anew."""
    for name, write in BLOCKS.items():
        block = f"<!-- written:{name} -->\n{write()}<!-- /written:{name} -->"
        pattern = re.compile(rf"<!-- written:{name} -->\n.*?<!-- /written:{name} -->", re.DOTALL)
        text, count = pattern.subn(lambda _, block=block: block, text)  # type: ignore[misc]
        if count != 1:
            raise AssertionError(f"docs/protocol.md: {count} blocks {name}, expected one")
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(documented(DOCUMENT.read_text()))
