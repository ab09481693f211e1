"""Writes every number of the contracts from one place to where it is needed: `python -m contracts.codes [--check]`.

Decides nothing at run time. Sources are `codes.toml` (kinds, refusals, numbers of others) and `schema.tlb`
(names, order, fields); written are `src/errors.tolk` and `src/kinds.tolk`, the prefixes of the structs in
`src/{messages,events,certificate}.tolk` and of the constructors in `schema.tlb`, `opcodes.py`, and the tables
between `<!-- codes:NAME -->` and `<!-- /codes:NAME -->` in `docs/contracts.md`, where that exists.

1. An op or event is crc32(name in snake case) & 0x7fffffff, unless `codes.toml` gives its number.
2. The payload `<Name>Payload` of a command begins with the kind `<name>`.
3. No two ops or events, no two refusals and no two kinds have the same number.
4. With `--check` nothing is written; the exit code is 1 when a file differs.
"""

from __future__ import annotations

import re
import sys
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent

_OPS, _EVENTS, _PAYLOADS = "InternalMsgBody", "ExternalMsgBody", "CertPayload"
_STRUCT = re.compile(r"^struct \(0x(\w+)\) (\w+)", re.MULTILINE)
_TAG = re.compile(r"^(\w+)#(\w+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constructor:
    """One TL-B constructor: fields are (name, type) in their order, a type as the schema writes it."""

    name: str
    tag: str | None
    fields: tuple[tuple[str, str], ...]
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """All numbers by name in snake case; `refusals` are (number, meaning) in groups."""

    ops: Mapping[str, int]
    events: Mapping[str, int]
    foreign: frozenset[str]
    tags: Mapping[str, int]
    kinds: Mapping[str, int]
    refusals: Mapping[str, Mapping[str, tuple[int, str]]]

    def prefix(self, name: str) -> str:
        """Hexadecimal digits with which a struct or constructor of this name begins."""
        if name.endswith("_payload"):
            return f"{self.kinds[name.removesuffix('_payload')]:02x}"
        return f"{({**self.tags, **self.ops, **self.events})[name]:08x}"


def written(root: Path = ROOT) -> dict[Path, str]:
    """What each file that carries numbers has to contain, by its path; files without a change are among them."""
    schema = (root / "schema.tlb").read_text("utf-8")
    numbers = read_numbers((root / "codes.toml").read_text("utf-8"), schema)
    source = root / "src"
    files = {
        root / "schema.tlb": _TAG.sub(lambda m: _tagged(m, numbers), schema),
        root / "opcodes.py": _opcodes(numbers),
        source / "errors.tolk": _errors(numbers),
        source / "kinds.tolk": _kinds(numbers),
    }
    for name in ("messages.tolk", "events.tolk", "certificate.tolk"):
        text = (source / name).read_text("utf-8")
        files[source / name] = _STRUCT.sub(lambda m: f"struct (0x{numbers.prefix(snake(m[2]))}) {m[2]}", text)
    document = root.parent / "docs" / "contracts.md"
    if document.exists():
        files[document] = _documented(document.read_text("utf-8"), numbers)
    return files


def read_numbers(codes: str, schema: str) -> Numbers:
    """Read both sources.

    Raises:
        ValueError: two names have one number, or `codes.toml` numbers an op that the schema has not.
    """
    table = tomllib.loads(codes)
    foreign: dict[str, int] = table["foreign_ops"]
    names: dict[str, list[str]] = {_OPS: [], _EVENTS: []}
    for constructor in constructors(schema):
        if constructor.result in names:
            names[constructor.result].append(constructor.name)
    ops = {name: foreign.get(name, crc(name)) for name in names[_OPS]}
    events = {name: crc(name) for name in names[_EVENTS]}
    refusals = {
        group: {name: (int(number), str(meaning)) for name, (number, meaning) in members.items()}
        for group, members in table["errors"].items()
    }
    if not foreign.keys() <= ops.keys():
        raise ValueError(f"codes.toml: not in the schema: {sorted(foreign.keys() - ops.keys())}")
    _require_distinct("ops and events", [*ops.values(), *events.values()])
    _require_distinct("kinds", table["kinds"].values())
    _require_distinct("errors", [number for members in refusals.values() for number, _ in members.values()])
    return Numbers(
        ops=ops,
        events=events,
        foreign=frozenset(foreign),
        tags=table["tags"],
        kinds=table["kinds"],
        refusals=refusals,
    )


def constructors(schema: str) -> Iterator[Constructor]:
    """The constructors of a TL-B text, in their order."""
    text = re.sub(r"//[^\n]*", "", schema)
    for statement in text.split(";"):
        match = re.fullmatch(r"\s*(\w+)(?:#(\w*)|\$\w*)(.*)=\s*(\w+)\s*", statement, re.DOTALL)
        if match:
            fields = re.findall(r"(\w+):(\([^()]*(?:\([^()]*\)[^()]*)*\)|[\^\w]+)", match[3])
            yield Constructor(name=match[1], tag=match[2], fields=tuple(fields), result=match[4])
        elif statement.strip():
            raise ValueError(f"schema: cannot read {statement.strip()[:80]!r}")


def crc(name: str) -> int:
    """The number of an op or event of ours."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def snake(name: str) -> str:
    """`PoolInit` -> `pool_init`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def camel(name: str) -> str:
    """`pool_init` -> `PoolInit`."""
    return "".join(part.capitalize() for part in name.split("_"))


def _require_distinct(what: str, numbers: Iterable[int]) -> None:
    values = list(numbers)
    if len(set(values)) != len(values):
        raise ValueError(f"codes.toml: two {what} have the same number")


def _tagged(match: re.Match[str], numbers: Numbers) -> str:
    if len(match[2]) == 2 and not match[1].endswith("_payload"):
        return match[0]  # a storage's own tag
    return f"{match[1]}#{numbers.prefix(match[1])} "


def _errors(numbers: Numbers) -> str:
    groups = [
        "".join(f"    {camel(name)} = {number}\n" for name, (number, _) in members.items())
        for members in numbers.refusals.values()
    ]
    head = "// Why a message is refused. Written by `make codes` from `contracts/codes.toml`, which has the meanings.\n"
    return head + "enum Err {\n" + "\n".join(groups) + "}\n"


def _kinds(numbers: Numbers) -> str:
    head = "// What a certificate commands: first byte of its payload. Written by `make codes`.\n"
    return head + "".join(f"const KIND_{name.upper()} = 0x{kind:02x}\n" for name, kind in numbers.kinds.items())


def _opcodes(numbers: Numbers) -> str:
    own = {name: number for name, number in numbers.ops.items() if name not in numbers.foreign}
    foreign = {name: numbers.ops[name] for name in numbers.ops if name in numbers.foreign}
    refusals = {name: entry for members in numbers.refusals.values() for name, entry in members.items()}
    return _OPCODES.format(
        ops=_members(own) + "    # Numbers that others have given.\n" + _members(foreign),
        foreign=", ".join(f"Op.{name.upper()}" for name in foreign),
        events=_members(numbers.events),
        kinds=_members(numbers.kinds, digits=2),
        refusals="".join(f"    {name.upper()} = {number}\n" for name, (number, _) in refusals.items()),
        meanings="".join(f'    Refusal.{name.upper()}: "{meaning}",\n' for name, (_, meaning) in refusals.items()),
    )


def _members(values: Mapping[str, int], digits: int = 8) -> str:
    return "".join(f"    {name.upper()} = 0x{number:0{digits}X}\n" for name, number in values.items())


def _documented(text: str, numbers: Numbers) -> str:
    tables = {
        "ops": _table(("op", "number"), ((f"`{n}`", f"`{v:08x}`") for n, v in numbers.ops.items())),
        "events": _table(("event", "number"), ((f"`{n}`", f"`{v:08x}`") for n, v in numbers.events.items())),
        "kinds": _table(("command", "kind"), ((f"`{n}`", f"`{v:02x}`") for n, v in numbers.kinds.items())),
        "errors": _table(
            ("code", "name", "meaning"),
            ((str(v), f"`{n}`", text) for group in numbers.refusals.values() for n, (v, text) in group.items()),
        ),
    }
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- codes:{name} -->\n).*?(<!-- /codes:{name} -->)", re.DOTALL)
        text = pattern.sub(lambda m, table=table: m[1] + table + m[2], text)  # type: ignore[misc]
    return text


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


_OPCODES = '''\
"""Numbers of the contracts: ops, events, kinds of command, refusals. Written by `make codes`; change `codes.toml`.

`describe_exit` and `explain_exit` turn an exit code that a transaction shows into a name for a log and a
sentence for a screen.

Source: `contracts/codes.toml`, `contracts/schema.tlb`; TON documentation "TVM exit codes" for the codes below 128.
"""

from __future__ import annotations

from enum import IntEnum


class Op(IntEnum):
    """First 32 bits of a message body: crc32 of the name in lower case, without its highest bit."""

{ops}

FOREIGN_OPS = frozenset({{{foreign}}})
"""Ops whose number is not the crc32 of a name of ours: Cocoon's payout and excesses, TEP-74's, the usual top-up."""


class Event(IntEnum):
    """First 32 bits of an external log message; numbered like an op."""

{events}

class CertificateKind(IntEnum):
    """First byte of what a certificate, or before the hand-over the owner, commands."""

{kinds}

class Refusal(IntEnum):
    """Exit codes of our own: why a contract refuses a message."""

{refusals}

MEANINGS = {{
{meanings}}}
"""What each refusal means to who sent the message."""

_TVM_EXITS = {{
    2: ("stack_underflow", "the contract's code is broken"),
    4: ("integer_overflow", "a number is too large to reckon with"),
    5: ("integer_out_of_range", "a number does not fit its field"),
    7: ("type_check", "the contract's code is broken"),
    8: ("cell_overflow", "more data than a cell holds"),
    9: ("cell_underflow", "the message's body is malformed"),
    10: ("dictionary_error", "a dictionary in the message is malformed"),
    -14: ("out_of_gas", "the operation ran out of gas"),
    13: ("out_of_gas", "the operation ran out of gas"),
    37: ("not_enough_toncoin", "the contract cannot send that much"),
    38: ("not_enough_extra_currencies", "the contract has no such currency"),
    40: ("cannot_process_message", "an outgoing message does not have what its delivery costs"),
    63: ("wrong_tag", "the message, or a part of it, is of another kind than expected"),
}}


def describe_exit(code: int) -> str:
    """Name of an exit code in lower case: a refusal of ours, TVM's own, or `exit_<code>`."""
    try:
        return Refusal(code).name.lower()
    except ValueError:
        return "ok" if code in (0, 1) else _TVM_EXITS.get(code, (f"exit_{{code}}", ""))[0]


def explain_exit(code: int) -> str:
    """What an exit code means to who sent the message, in a few words."""
    try:
        return MEANINGS[Refusal(code)]
    except ValueError:
        return "done" if code in (0, 1) else _TVM_EXITS.get(code, ("", "no exit code of these contracts"))[1]
'''


def main(arguments: list[str]) -> int:
    """Write what differs, or with `--check` name it; the process's exit code."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write("usage: python -m contracts.codes [--check]\n")
        return 2
    files = written()
    differing = [path for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in differing:
        sys.stderr.write(f"{path}: {'differs; run make codes' if check else 'written'}\n")
        if not check:
            path.write_text(files[path], "utf-8")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
