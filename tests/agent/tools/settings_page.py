"""`make settings`: writes docs/configuration.md from the settings' own tables (`agent.tables`).

Every key with its type, default, unit and meaning: the type and the default are those that the decoder uses, the
meaning is the key's docstring, the unit the last word of its name. A test compares the page, and tries the ranges.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent import tables
from agent.config import _File

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"

_HEAD = """# Settings, key by key

<!-- written by `make settings` from agent/tables.py: change it there -->

One file, TOML: `/etc/gpupool/agent.toml`, or the one that `--config` names. `gpupool init` writes a first one. Whatever
is unknown, of a wrong type or out of range is refused, with a line that names file, key and what is expected;
`gpupool config check FILE` tries a file before an agent does. Relative paths are relative to the file's
folder. It names key files, and holds no secret but `cocoon.access_hash`. It is read when the agent starts: `systemctl
restart gpupool-agent` after a change; `gpupool doctor` says when it is newer than the agent that runs.

`gpupool pool` takes the same file, or one with `[pool]`, `[chain]`, `[wallet]` and `[identity]` alone
([mainnet](../packaging/config.mainnet.toml), [testnet](../packaging/config.testnet.toml)). What all agents of a pool
must agree on stands in the pool's policy instead ([example](../packaging/policy.example.toml)).
"""

_FIRST = {
    "data_dir": "Folder of journal, ledger, collateral and addresses; the packaged service has `/var/lib/gpupool`."
}
"""The keys above all tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: `name` within its table, its type in words, its default as TOML ("required": none), its docstring."""

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table: its header in the file, what it is about, its keys."""

    header: str
    about: str
    keys: tuple[Key, ...]


def page() -> str:
    """The page, whole."""
    parts = [_HEAD]
    for section in sections():
        rows = [f"| `{key.name}` | {key.kind} | {key.default} | {key.meaning} |" for key in section.keys]
        title = [f"## `{section.header}`", ""] if section.header else []
        about = [section.about, ""] if section.about else []
        parts.append("\n".join([*title, *about, "| key | type | default | |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def sections() -> Iterator[Section]:
    """All tables, in the order of the file; a list of tables follows the table that it is in."""
    hints = typing.get_type_hints(_File)
    kinds = {name: _table(hint) for name, hint in hints.items()}
    plain = [Key(name=name, kind="path", default="required", meaning=text) for name, text in _FIRST.items()]
    yield Section(header="", about="", keys=tuple(plain))
    for name, kind in kinds.items():
        if kind is not None:
            yield from _section(f"[{name}]", name, kind)


def _section(header: str, path: str, kind: type[msgspec.Struct]) -> Iterator[Section]:
    meanings = docstrings(kind)
    hints = typing.get_type_hints(kind)
    keys, below = [], []
    for field in msgspec.structs.fields(kind):
        inner = _table(hints[field.name])
        if inner is not None:
            below.append((f"[[{path}.{field.name}]]", f"{path}.{field.name}", inner))
        default = "required" if field.required else _toml(field.default)
        kind_name = (
            f"tables, see `[[{path}.{field.name}]]`" if inner is not None else _words(field.name, hints[field.name])
        )
        keys.append(Key(name=field.name, kind=kind_name, default=default, meaning=meanings[field.name]))
    yield Section(header=header, about=" ".join((inspect.getdoc(kind) or "").split()), keys=tuple(keys))
    for inner_header, inner_path, inner_kind in below:
        yield from _section(inner_header, inner_path, inner_kind)


def docstrings(kind: type) -> dict[str, str]:
    """The docstring of each key of a table, those of the table that it extends first; empty where there is none."""
    found: dict[str, str] = {}
    trees = {node.name: node for node in ast.parse(inspect.getsource(tables)).body if isinstance(node, ast.ClassDef)}
    for base in reversed(kind.__mro__):
        body = trees[base.__name__].body if base.__name__ in trees else []
        for node, after in itertools.pairwise([*body, ast.Pass()]):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = found.get(node.target.id, "")
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    text = str(after.value.value)
                found[node.target.id] = " ".join(text.split())
    return found


def _table(hint: object) -> type[msgspec.Struct] | None:
    """The table that a key is, or is a list of."""
    for each in (hint, *typing.get_args(hint)):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return each
    return None


def _words(name: str, hint: object) -> str:
    """A type in words; a number has its unit."""
    unit = {"s": ", seconds", "days": ", days"}.get(name.rpartition("_")[2], "")
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f'`"{each}"`' for each in typing.get_args(hint))
    if isinstance(hint, types.UnionType):
        return " or ".join(_words(name, each) for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is tuple:
        return f"list of {_words(name, typing.get_args(hint)[0])}"
    if hint is str:
        return "path" if name.rpartition("_")[2] in ("file", "dir") else "text"
    return {int: "whole number", float: "number", bool: "`true` or `false`"}[typing.cast(type, hint)] + unit


def _toml(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`[{', '.join(_toml(each).strip('`') for each in value)}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
