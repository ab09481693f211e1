"""Writes the tables, diagrams and numbered rules of `docs/protocol.md` from the code.

    PYTHONPATH=tests/support python -m tests.gossip.tools.protocol_page

Limits are read from the sources of `gossip`: every constant whose name ends with `_MAX`, with what the source says
of it, or, where it says nothing, `MEANINGS`. Wire forms are those of samples that the code makes: each field is held
against the form that `FIELDS` gives it, so a field that comes or goes stops the writer. Rules are those that the
modules' docstrings number. A test compares the page.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

from pool_fixture import POOL, Author, evidence, key, policy

from gossip import codec, sync
from gossip.addresses import make_address_record
from gossip.admission import ConnectionLimits, MessageLimits
from gossip.epoch_events import ObjectId
from gossip.log_chain import GENESIS, Head, RecordRange
from gossip.messages import ListedObservation, ObservedLog, make_attest, make_observation, make_proposal
from gossip.settlement import encode_checkpoint
from gossip.transport.values import TransportConfig
from gossip.wire import RECORD, encode_gossip
from tests.gossip.tools import close_drawn

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
    "COUNTERS_MAX": "counters of a work record",
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


# ---- wire forms ----

Form = Callable[[object], bool]
FORMS: Mapping[str, Form] = {
    "text": lambda value: type(value) is str,
    "int": lambda value: type(value) is int,
    "uint": lambda value: type(value) is int and value >= 0,
    "bool": lambda value: type(value) is bool,
    "bytes": lambda value: type(value) is bytes,
    "16 bytes": lambda value: type(value) is bytes and len(value) == 16,
    "32 bytes": lambda value: type(value) is bytes and len(value) == 32,
    "64 bytes": lambda value: type(value) is bytes and len(value) == 64,
    "nil": lambda value: value is None,
    "array": lambda value: type(value) is tuple,
}
FIELDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "envelope": (("signed", "bytes"), ("signature", "64 bytes")),
    "record": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("node_key", "32 bytes"),
        ("seq", "uint"),
        ("prev_hash", "32 bytes"),
        ("kind", "uint"),
        ("body", "array"),
    ),
    "evidence body": (("quote", "bytes"), ("attached", "array"), ("anchor", "array")),
    "attached": (
        ("collateral_digest", "32 bytes"),
        ("gpu_digest", "32 bytes/nil"),
        ("handshake_digest", "32 bytes/nil"),
    ),
    "anchor": (("seqno", "uint"), ("root_hash", "32 bytes"), ("time_s", "uint")),
    "work body": (
        ("start_s", "uint"),
        ("end_s", "uint"),
        ("source", "text"),
        ("provenance", "text"),
        ("counters", "array"),
        ("gpu_seconds", "uint/nil"),
        ("energy_mj", "uint/nil"),
        ("failed", "uint/nil"),
        ("latency_ms", "array/nil"),
        ("gap_s", "uint"),
        ("evidence", "32 bytes/nil"),
    ),
    "observation": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("operator", "32 bytes"),
        ("epoch", "uint"),
        ("set_id", "uint"),
        ("policy_hash", "32 bytes"),
        ("base", "32 bytes"),
        ("logs", "array"),
        ("forks", "array"),
    ),
    "observed log": (
        ("node_key", "32 bytes"),
        ("seq", "uint"),
        ("hash", "32 bytes"),
        ("witnessed_s", "uint"),
        ("worker_tokens", "uint"),
    ),
    "proposal": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("leader", "32 bytes"),
        ("epoch", "uint"),
        ("view", "uint"),
        ("set_id", "uint"),
        ("listed", "array"),
        ("cert_hash", "32 bytes"),
    ),
    "listed": (("index", "uint"), ("digest", "32 bytes")),
    "attest": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("operator", "32 bytes"),
        ("epoch", "uint"),
        ("cert_hash", "32 bytes"),
        ("cert_signature", "64 bytes"),
    ),
    "gossip": (("kind", "text"), ("wire", "bytes")),
    "request": (("tag", "text"), ("body", "array")),
    "watermark": (("node_key", "32 bytes"), ("seq", "uint"), ("hash", "32 bytes")),
    "range": (("node_key", "32 bytes"), ("first", "uint"), ("last", "uint")),
    "object": (("kind", "text"), ("id", "32 bytes")),
    "answer about a close": (("observations", "array"), ("proposals", "array"), ("attests", "array")),
    "address record": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("node_key", "32 bytes"),
        ("issued_s", "uint"),
        ("addresses", "array"),
    ),
    "addresses asked for": (("first", "uint"), ("digests", "bytes"), ("own", "bytes/nil")),
    "answer about addresses": (("next", "uint"), ("records", "array")),
    "checkpoint": (("tag", "text"), ("payload", "bytes"), ("leaves", "array"), ("readings", "array")),
    "leaf": (
        ("participant", "32 bytes"),
        ("earned_nanoton", "16 bytes"),
        ("score", "16 bytes"),
        ("tokens", "uint"),
        ("tasks", "uint"),
        ("uptime_s", "uint"),
        ("quality", "uint"),
        ("reputation", "uint"),
        ("flags", "uint"),
    ),
    "reading": (
        ("node_key", "32 bytes"),
        ("seq", "uint"),
        ("hash", "32 bytes"),
        ("work_end_s", "uint"),
        ("witnessed_s", "uint"),
        ("credited_s", "uint"),
        ("worker_tokens", "uint"),
        ("dead", "bool"),
        ("evidence", "array"),
    ),
    "evidence window": (("record", "32 bytes"), ("from_s", "uint"), ("until_s", "uint"), ("machine", "32 bytes")),
}


@cache
def samples() -> Mapping[str, codec.Value]:
    """One value of every wire form, made by the code itself and decoded."""
    author = Author(0)
    proof, work = _signed(author.append(evidence()).wire), _signed(author.work().wire)
    log = ObservedLog(head=GENESIS, witnessed_s=0, worker_tokens=0)
    observed = make_observation(
        key(0), POOL, epoch=1, set_id=1, policy_hash=policy().hash, base=bytes(32), logs={key(0).public: log}, forks=()
    )
    listed = (ListedObservation(index=0, digest=observed.digest),)
    proposed = make_proposal(key(0), POOL, epoch=1, view=0, set_id=1, listed=listed, cert_hash=bytes(32))
    said, stated = _signed(observed.wire), _signed(proposed.wire)
    heads = _decoded(sync.encode_heads({key(0).public: Head(1, bytes(32))}))
    ranges = _decoded(sync.encode_request(sync.RecordsRequest((RecordRange(key(0).public, 1, 2),))))
    wanted = _decoded(sync.encode_request(sync.ObjectRequest(ObjectId(kind="checkpoint", id=bytes(32)))))
    told = make_address_record(key(0), POOL, issued_s=0, addresses=["/ip4/203.0.113.7/tcp/4001"])
    digests = bytes(sync.ADDRESS_RANGES * sync.RANGE_DIGEST_BYTES)
    asked = _decoded(sync.encode_request(sync.AddressesRequest(first=0, digests=digests, own=told)))
    checkpoint = _decoded(encode_checkpoint(close_drawn.said_of_one_epoch().outcome))
    return {
        "envelope": _decoded(observed.wire),
        "record": work,
        "evidence body": _at(proof, 7),
        "attached": _at(proof, 7, 1),
        "anchor": _at(proof, 7, 2),
        "work body": _at(work, 7),
        "observation": said,
        "observed log": _at(said, 8, 0),
        "proposal": stated,
        "listed": _at(stated, 7, 0),
        "attest": _signed(make_attest(key(0), POOL, epoch=1, cert_hash=bytes(32)).wire),
        "gossip": _decoded(encode_gossip(RECORD, observed.wire)),
        "request": ranges,
        "watermark": _at(heads, 0),
        "range": _at(ranges, 1, 1, 0),
        "object": _at(wanted, 1, 1),
        "answer about a close": _decoded(sync.encode_close(sync.CloseState())),
        "address record": _signed(told),
        "addresses asked for": _at(asked, 1, 1),
        "answer about addresses": _decoded(sync.encode_page(sync.AddressPage(next=1, wires=(told,)))),
        "checkpoint": checkpoint,
        "leaf": _at(checkpoint, 2, 0),
        "reading": _at(checkpoint, 3, 0),
        "evidence window": _at(checkpoint, 3, 0, 8, 0),
    }


def _decoded(data: bytes) -> codec.Value:
    return codec.decode(data, bytes_max=1 << 20)


def _signed(wire: bytes) -> codec.Value:
    return _decoded(codec.open_envelope(wire, bytes_max=1 << 20)[0])


def _at(value: codec.Value, *path: int) -> codec.Value:
    for index in path:
        value = codec.as_array(value, "sample")[index]
    return value


def wire() -> str:
    rows = ["| form | fields, in order |", "|---|---|"]
    for name, named in FIELDS.items():
        values = codec.as_array(samples()[name], name, len(named))
        for value, (field, form) in zip(values, named, strict=True):
            if not any(FORMS[each](value) for each in form.split("/")):
                raise AssertionError(f"{name}.{field} is no {form}")
        rows.append(f"| {name} | {', '.join(f'`{field}` {form}' for field, form in named)} |")
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
    "wire": wire,
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
