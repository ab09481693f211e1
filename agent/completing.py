"""What makes bash, zsh and fish complete `gpupool`: scripts made from the tree of parsers, complete in themselves.

Every word of a verb, every option, choices, files and folders are completed; summaries are shown where the shell shows
any. Pure: a parser in, a text out.

Own code, for the library at hand (shtab 1.13) leaves out trees of three levels in zsh, and verbs that the help lists
in its own way. Source: the manuals of bash ("Programmable Completion"), zsh (zshcompsys, `_arguments`) and fish
(`complete`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.verbs import help_text

Values = tuple[str, ...] | Literal["file", "folder", "other"]
"""What an argument takes: one of these words, a file, a folder, or what no shell can know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """`values` is None for a flag. `is_repeatable`: it may be given again."""

    names: tuple[str, ...]
    help: str
    values: Values | None
    is_repeatable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One parser: its words after `gpupool`, what may follow (word to summary), options, and positional arguments."""

    path: tuple[str, ...]
    children: dict[str, str]
    options: tuple[Option, ...]
    places: tuple[tuple[str, Values], ...]


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for "bash", "zsh" or "fish"."""
    nodes = list(read_nodes(parser, ()))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](nodes)


def read_nodes(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[Node]:
    """The parser and all below it."""
    children: dict[str, argparse.ArgumentParser] = {}
    summaries: dict[str, str] = {}
    options, places = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children = dict(action.choices)
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
        elif action.option_strings:
            values = None if action.nargs == 0 else _values(action)
            is_repeatable = isinstance(action, argparse._AppendAction)
            names = tuple(action.option_strings)
            options.append(Option(names=names, help=help_text(action), values=values, is_repeatable=is_repeatable))
        else:
            places.append((help_text(action) or str(action.metavar or action.dest), _values(action)))
    yield Node(
        path=path,
        children={word: summaries.get(word, "") for word in children},
        options=tuple(options),
        places=tuple(places),
    )
    for word, child in children.items():
        yield from read_nodes(child, (*path, word))


def _values(action: argparse.Action) -> Values:
    if action.choices is not None:
        return tuple(map(str, action.choices))
    name = str(action.metavar or "")
    if name.startswith("DIR"):
        return "folder"
    return "file" if action.type is Path or name.startswith("FILE") else "other"


def _at(node: Node, word: str = "") -> str:
    """A path, perhaps with one more word: what the scripts look up."""
    return " ".join((*node.path, word)) if word else " ".join(node.path)


def _valued(nodes: list[Node]) -> Iterator[tuple[Node, str, Values]]:
    """Every name of an option that takes a value."""
    for node in nodes:
        for option in node.options:
            if option.values is not None:
                yield from ((node, name, option.values) for name in option.names)


# bash


def _bash(nodes: list[Node]) -> str:
    paths = "|".join(f'"{_at(node)}"' for node in nodes if node.path)
    by_values: dict[Values, list[str]] = {}
    for node, name, values in _valued(nodes):
        by_values.setdefault(values, []).append(f'"{_at(node, name)}"')
    valued = "|".join(pattern for patterns in by_values.values() for pattern in patterns)
    after = [
        f"        {'|'.join(patterns)}) {_bash_values(values)}; return ;;" for values, patterns in by_values.items()
    ]
    words = [
        f'        "{_at(node)}") words="{" ".join((*node.children, *_names(node)))}" ;;' for node in nodes if node.path
    ]
    root = nodes[0]
    places = [
        f'        "{_at(node)} {i}") {_bash_values(values)} ;;'
        for node in nodes
        for i, (_, values) in enumerate(node.places)
    ]
    return "\n".join(
        [
            "# bash completion for gpupool, made by `gpupool completions bash`",
            "_gpupool() {",
            '    local cur=${COMP_WORDS[COMP_CWORD]} path="" option="" place=0 words="" word at i',
            "    COMPREPLY=()",
            '    [[ $cur == "=" ]] && cur=""',
            "    for ((i = 1; i < COMP_CWORD; i++)); do",
            "        word=${COMP_WORDS[i]}",
            '        [[ $word == "=" ]] && continue',
            '        if [[ -n $option ]]; then option=""; continue; fi',
            '        at="${path:+$path }$word"',
            '        case "$at" in',
            f"            {paths}) path=$at; continue ;;",
            f"            {valued}) option=$at; continue ;;",
            "        esac",
            "        [[ $word == -* ]] || place=$((place + 1))",
            "    done",
            '    case "$option" in',
            *after,
            "    esac",
            '    case "$path" in',
            f'        "") words="{" ".join((*root.children, *_names(root)))}" ;;',
            *words,
            "    esac",
            "    # An option is offered once one is begun, or where nothing else can follow.",
            "    if [[ $cur != -* ]]; then",
            '        case "$path $place" in',
            *("    " + line for line in places),
            "        esac",
            "        [[ ${#COMPREPLY[@]} -gt 0 ]] && return",
            "    fi",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")',
            "}",
            "complete -F _gpupool gpupool",
        ]
    )


def _bash_values(values: Values) -> str:
    if values == "other":
        return ":"
    if values in ("file", "folder"):
        kind = "f" if values == "file" else "d"
        return f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -{kind} -- "$cur")'
    return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(values)}" -- "$cur")'


def _names(node: Node) -> list[str]:
    return [name for option in node.options for name in option.names]


# zsh


def _zsh(nodes: list[Node]) -> str:
    functions = [_zsh_function(node) for node in nodes]
    return "\n".join(
        [
            "#compdef gpupool",
            "# zsh completion for gpupool, made by `gpupool completions zsh`",
            *functions,
            # Autoloaded, the file is the function's body and is run with the words; sourced, it registers it.
            'if [[ $funcstack[1] == _gpupool ]]; then _gpupool "$@"; else compdef _gpupool gpupool; fi',
        ]
    )


def _zsh_function(node: Node) -> str:
    name = _zsh_name(node.path)
    specs = [_zsh_option(option) for option in node.options]
    if not node.children:
        specs += [_quoted(f"{i}:{_zsh_escaped(told)}:{_zsh_values(v)}") for i, (told, v) in enumerate(node.places, 1)]
        return "\n".join([f"{name}() {{", "  _arguments -s \\", *_joined(specs), "}"])
    specs += ["'1: :->command'", "'*:: :->rest'"]
    commands = [f"    {_quoted(_zsh_escaped(word) + ':' + summary)}" for word, summary in node.children.items()]
    cases = [f"        {word}) {_zsh_name((*node.path, word))} ;;" for word in node.children]
    return "\n".join(
        [
            f"{name}() {{",
            '  local curcontext="$curcontext" state line',
            "  local -a commands",
            "  commands=(",
            *commands,
            "  )",
            "  _arguments -C -s \\",
            *_joined(specs),
            "  case $state in",
            f"    command) _describe -t commands {_quoted(' '.join(('gpupool', *node.path, 'command')))} commands ;;",
            "    rest)",
            "      case $words[1] in",
            *cases,
            "      esac ;;",
            "  esac",
            "}",
        ]
    )


def _joined(specs: list[str]) -> list[str]:
    return [f"    {spec} \\" for spec in specs[:-1]] + [f"    {specs[-1]}"]


def _zsh_name(path: tuple[str, ...]) -> str:
    return "_".join(("_gpupool", *(word.replace("-", "_") for word in path)))


def _zsh_option(option: Option) -> str:
    told = f"[{_zsh_escaped(option.help)}]"
    value = "" if option.values is None else f":value:{_zsh_values(option.values)}"
    star = "*" if option.is_repeatable else ""
    if len(option.names) > 1:
        return f"'(- *)'{{{','.join(option.names)}}}{_quoted(told + value)}"
    return _quoted(f"{star}{option.names[0]}{told}{value}")


def _zsh_values(values: Values) -> str:
    if values == "other":
        return " "
    if values == "file":
        return "_files"
    return "_files -/" if values == "folder" else f"({' '.join(values)})"


def _zsh_escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _quoted(text: str) -> str:
    """A word for zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


# fish


def _fish(nodes: list[Node]) -> str:
    lines = [
        "# fish completion for gpupool, made by `gpupool completions fish`",
        f"set -g __gpupool_paths {' '.join(_fish_quoted(_at(node)) for node in nodes if node.path)}",
        f"set -g __gpupool_valued {' '.join(_fish_quoted(_at(node, name)) for node, name, _ in _valued(nodes))}",
        "# Whether the words so far are those of this verb, with so many arguments (any number if none is given).",
        "function __gpupool_at",
        "    set -l path",
        "    set -l place 0",
        "    set -l skip 0",
        "    for word in (commandline -opc)[2..-1]",
        "        if test $skip = 1",
        "            set skip 0",
        '        else if contains -- (string join -- " " $path $word) $__gpupool_paths',
        "            set -a path $word",
        '        else if contains -- (string join -- " " $path $word) $__gpupool_valued',
        "            set skip 1",
        "        else if not string match -q -- '-*' $word",
        "            set place (math $place + 1)",
        "        end",
        "    end",
        '    test "$path" = "$argv[1]"; and test -z "$argv[2]" -o "$argv[2]" = $place',
        "end",
        "complete -c gpupool -f",
    ]
    for node in nodes:
        here = f"-n {_fish_quoted(f'__gpupool_at {_fish_quoted(_at(node))}')}"
        for word, summary in node.children.items():
            lines.append(f"complete -c gpupool {here} -a {word} -d {_fish_quoted(summary)}")
        for i, (told, values) in enumerate(node.places):
            if values != "other":
                there = f"-n {_fish_quoted(f'__gpupool_at {_fish_quoted(_at(node))} {i}')}"
                lines.append(f"complete -c gpupool {there} {_fish_values(values)} -d {_fish_quoted(told)}")
        for option in node.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            takes = "" if option.values is None else f" {_fish_values(option.values)}"
            lines.append(f"complete -c gpupool {here} {names}{takes} -d {_fish_quoted(option.help)}")
    return "\n".join(lines)


def _fish_values(values: Values) -> str:
    """How an option's value, or an argument, is completed: by nothing else, but for files."""
    if values == "other":
        return "-x"
    if values == "file":
        return "-r -F"
    words = "(__fish_complete_directories)" if values == "folder" else " ".join(values)
    return f"-x -a {_fish_quoted(words)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
