"""Why a text is not the TOML that was expected, for whoever wrote it: the whole key, its line, what belongs there.

Pure. The text is untrusted. What is refused is decided by `tomllib` and msgspec, strictly; their messages are said here
in other words. A line is shown where key or table stand in lines of their own, as TOML is mostly written; else that of
the table around it, or none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import msgspec
from msgspec import inspect

NAME_LENGTH_MAX = 64
"""Of a name that another is looked for in the place of."""

_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<place>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_CHOICE = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)
_TYPE = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_HEADER = re.compile(r"\s*(?P<open>\[\[?)\s*(?P<name>[\w.-]+)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*(?P<name>[\w.-]+)\s*=")
_WORDS = {
    "str": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
"""What TOML's readers call the types, and msgspec does not."""
_GOT = _WORDS | {"float": "a fraction"}


def explained(error: msgspec.ValidationError, text: str, form: type) -> str:
    """A message of msgspec's about this text, which shall have this form, with the whole key in front."""
    found = _MESSAGE.fullmatch(str(error))
    what, place = (str(error), "") if found is None else (found["what"], found["place"] or "")
    if (field := _FIELD.fullmatch(what)) is not None:
        key = joined(place, field["name"])
        if field["how"] == "missing required":
            said = "missing"
        else:
            names = _keys(_type_at(form, place))
            said = f"unknown key{meant(field['name'], names) or f'; known here are {listed(names)}'}"
    else:
        key = place or "top level"
        said = _of_value(what, _type_at(form, place))
    line = _line(text, key)
    return f"{key}: {said}" if line is None else f"{key}: {said} (line {line})"


def not_toml(error: Exception) -> str:
    """Why a text cannot be read as TOML at all."""
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"not TOML: what stands in line {line} is not text in UTF-8"
    if isinstance(error, RecursionError):
        return "not TOML: nested too deeply"
    if text.startswith(("Cannot overwrite a value", "Cannot declare", "Cannot mutate")):
        return f"not TOML: a key or table stands twice: {text[:1].lower()}{text[1:]}"
    return f"not TOML: {text[:1].lower()}{text[1:]}"


def joined(place: str, key: str) -> str:
    """A key in its place, as "attestation.gpus_min"."""
    return ".".join(part for part in (place, key) if part)


def meant(name: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown name, as the end of a sentence; nothing if none is near."""
    close = difflib.get_close_matches(name[:NAME_LENGTH_MAX], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def listed(words: Iterable[str]) -> str:
    """Words as "a, b or c"."""
    *rest, last = words
    return f"{', '.join(rest)} or {last}" if rest else last


def _of_value(what: str, kind: inspect.Type | None) -> str:
    if (choice := _CHOICE.fullmatch(what)) is not None:
        allowed = [
            f'"{value}"' for each in _kinds(kind) if isinstance(each, inspect.LiteralType) for value in each.values
        ]
        if allowed:
            return f"expected {listed(allowed)}, not {choice['value']}"
    if (types := _TYPE.fullmatch(what)) is not None:
        expected = [_WORDS[name] for name in types["expected"].split(" | ") if name in _WORDS]
        if expected:
            return f"expected {listed(expected)}, not {_GOT.get(types['got'], types['got'])}"
    return f"{what[:1].lower()}{what[1:]}"


def _type_at(form: type, place: str) -> inspect.Type | None:
    """What belongs at a place, as "p2p.peers[0]"."""
    kind: inspect.Type | None = inspect.type_info(form)
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", place):
        kind = next((found for each in _kinds(kind) if (found := _inner(each, step)) is not None), None)
    return kind


def _inner(kind: inspect.Type, step: str) -> inspect.Type | None:
    if step.startswith("["):
        return kind.item_type if isinstance(kind, inspect.CollectionType) else None
    fields = kind.fields if isinstance(kind, inspect.StructType) else ()
    return next((field.type for field in fields if field.encode_name == step), None)


def _kinds(kind: inspect.Type | None) -> tuple[inspect.Type, ...]:
    """The alternatives of a union."""
    if isinstance(kind, inspect.UnionType):
        return kind.types
    return () if kind is None else (kind,)


def _keys(kind: inspect.Type | None) -> list[str]:
    return [field.encode_name for each in _kinds(kind) if isinstance(each, inspect.StructType) for field in each.fields]


def _line(text: str, key: str) -> int | None:
    """The line (from 1 on) of a key, or else of the nearest table around it."""
    lines = _lines(text)
    while key:
        if key in lines:
            return lines[key]
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return None


def _lines(text: str) -> dict[str, int]:
    """The lines of all keys and tables that have one of their own."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        if (header := _HEADER.fullmatch(line)) is not None:
            table = header["name"]
            if header["open"] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{counts[table]}]"
            lines.setdefault(table, number)
        elif (found := _KEY.match(line)) is not None:
            lines.setdefault(joined(table, found["name"]), number)
    return lines
