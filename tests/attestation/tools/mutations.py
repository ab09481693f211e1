"""The rules of a Python source, each taken out in turn: what `mutate` tries.

1. A `raise` becomes `pass`.
2. A call whose result nobody uses, of a function that is named after what it demands, becomes `pass`.
3. `a and b` and `a or b` lose one operand.
4. `<` becomes `<=`, `>` becomes `>=`, and the other way round.
5. The condition of an `if` that does more than raise becomes false.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_DEMANDS = re.compile(r"_*(require|verify|refuse|appraise|check|expect|finish|validate)(_|$)")
_SWAPPED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`start` to `end` (bytes of the source) become `inserted`; in words: `statement` becomes
    `replacement`. `status`: killed or survived; `why`: the test
    that noticed, or how many tests did not."""

    file: str
    line: int
    last_line: int = 0
    function: str
    statement: str
    replacement: str
    inserted: str = ""
    status: str = ""
    why: str = ""
    start: int = 0
    end: int = 0
    count: int = 0
    """How often the same stands before it in this function."""

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self.file, self.function, self.statement, self.replacement, self.count

    @property
    def title(self) -> str:
        return f"{self.function}: {self.statement} -> {self.replacement}"


def mutants(source: bytes, file: str) -> list[Mutant]:
    """Every mutant of `source`, in its order."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def span(node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.stmt | ast.expr)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    found: list[Mutant] = []
    seen: dict[tuple[str, str, str], int] = {}
    for function, node, replacement, context in _mutations(ast.parse(source), "", source):
        start, end = span(node)
        shown = _line(source[slice(*span(context))])
        changed = _line(source[span(context)[0] : start] + replacement.encode() + source[end : span(context)[1]])
        name = (function, shown, changed)
        seen[name] = seen.get(name, -1) + 1
        found.append(
            Mutant(
                file=file,
                line=getattr(node, "lineno", 0),
                last_line=getattr(node, "end_lineno", 0),
                function=function,
                statement=shown,
                replacement=changed,
                inserted=replacement,
                start=start,
                end=end,
                count=seen[name],
            )
        )
    return found


def _line(text: bytes) -> str:
    return " ".join(text.decode().split())


def _mutations(tree: ast.AST, function: str, source: bytes) -> Iterator[tuple[str, ast.AST, str, ast.AST]]:
    """(function, what is replaced, by what, what to show around it) of everything below `tree`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{function}.{node.name}" if function else node.name
            yield from _mutations(node, name, source)
            continue
        if function:
            yield from ((function, *it) for it in _here(node, source))
        yield from _mutations(node, function, source)


def _here(node: ast.AST, source: bytes) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    match node:
        case ast.Raise():
            yield node, "pass", node
        case ast.Expr(value=ast.Call(func=called)) if _DEMANDS.match(_name(called)):
            yield node, "pass", node
        case ast.Expr(value=ast.Await(value=ast.Call(func=called))) if _DEMANDS.match(_name(called)):
            yield node, "pass", node
        case ast.BoolOp(values=values, op=op):
            word = " and " if isinstance(op, ast.And) else " or "
            for left_out in values:
                kept = [_source(value, source) for value in values if value is not left_out]
                yield node, word.join(kept), node
        case ast.Compare(left=left, ops=ops, comparators=right):
            operands = [left, *right]
            for i, operator in enumerate(ops):
                if type(operator) in _SWAPPED:
                    signs = [_SIGNS[type(it)] for it in ops]
                    signs[i] = _SWAPPED[type(operator)]
                    texts = [_source(operand, source) for operand in operands]
                    pairs = zip(signs, texts[1:], strict=True)
                    yield node, texts[0] + "".join(f" {sign} {text}" for sign, text in pairs), node
        case ast.If(test=test, body=body) if not isinstance(body[0], ast.Raise):
            yield test, "False", test
        case _:
            pass


_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}


def _source(node: ast.expr, source: bytes) -> str:
    text = ast.get_source_segment(source.decode(), node)
    assert text is not None
    return f"({text})" if isinstance(node, ast.BoolOp | ast.IfExp | ast.Compare | ast.NamedExpr | ast.Lambda) else text


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
