"""What a verb of the command line is, and the parser that is built of it.

1. A verb's function is named as "package.module.function" and imported when it runs: `gpupool version` loads neither
   libp2p nor the chain client.
2. Every verb explains itself with an example, and takes --json; one that does not says so (`has_json`).

The whole tree stands in `agent.command_line`; how a verb's error ends is for `agent.cli`.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

DEFAULT_CONFIG = Path("/etc/gpupool/agent.toml")

Verbs = argparse._SubParsersAction
"""What argparse gives for a parser's subcommands."""

_HELP_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Argument:
    """What `add_argument` is given."""

    flags: tuple[str, ...]
    settings: Mapping[str, Any]


def arg(*flags: str, **settings: Any) -> Argument:
    """An argument as argparse takes it."""
    return Argument(flags, settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb. A name of two words is the second of a family; `example` follows the name; `detail` the summary."""

    name: str
    run: str
    summary: str
    example: str
    detail: str = ""
    arguments: tuple[Argument, ...] = ()
    has_config: bool = True
    has_json: bool = True


def add_verb(verbs: Verbs[argparse.ArgumentParser], verb: Verb, *, config: Path) -> argparse.ArgumentParser:
    """Add one verb under the last word of its name; `config` is the settings file if none is named."""
    parser = verbs.add_parser(
        verb.name.split()[-1],
        help=verb.summary,
        description=filled(f"{sentence(verb.summary)} {verb.detail}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lines = verb.example.split("\n")
    parser.epilog = "example:\n" + "\n".join(f"  {parser.prog} {line}" if _begins(line) else line for line in lines)
    parser.set_defaults(run=runner(verb.run), parser=parser)
    for argument in verb.arguments:
        parser.add_argument(*argument.flags, **argument.settings)
    if verb.has_config:
        add_config(parser, config)
    if verb.has_json:
        add_json(parser)
    return parser


def _begins(line: str) -> bool:
    """Whether a line of an example is a command of its own: one that goes on is indented."""
    return not line.startswith(" ")


def add_verbs(
    verbs: Verbs[argparse.ArgumentParser], table: Iterable[Verb], families: Mapping[str, str], *, config: Path
) -> None:
    """Add all verbs of a table; `families` says what the first words of those of two words are about."""
    made: dict[str, Verbs[argparse.ArgumentParser]] = {}
    for verb in table:
        first, _, second = verb.name.partition(" ")
        if second and first not in made:
            made[first] = add_family(verbs, first, families[first])
        add_verb(made[first] if second else verbs, verb, config=config)


def add_family(
    verbs: Verbs[argparse.ArgumentParser], name: str, summary: str, description: str = ""
) -> Verbs[argparse.ArgumentParser]:
    """Add a word that only leads to further verbs; what these are added to."""
    family = verbs.add_parser(name, help=summary, description=description or sentence(summary))
    return family.add_subparsers(title="commands", required=True, metavar="COMMAND")


def add_config(parser: argparse.ArgumentParser, config: Path) -> None:
    """Add --config."""
    parser.add_argument("--config", type=Path, default=config, metavar="FILE", help="settings (default: %(default)s)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def runner(target: str) -> Callable[[argparse.Namespace], int]:
    """The function "package.module.function", imported when it is called."""
    module, _, name = target.rpartition(".")

    def run(options: argparse.Namespace) -> int:
        outcome: int = getattr(import_module(module), name)(options)
        return outcome

    return run


def sentence(summary: str) -> str:
    """A summary as a sentence."""
    return f"{summary[:1].upper()}{summary[1:]}."


def filled(text: str) -> str:
    """Paragraphs filled to the width of help; one that is indented is a list, and stays as it is."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(each if "\n  " in each else textwrap.fill(each, _HELP_WIDTH) for each in paragraphs)


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and all below it, in the order of the help."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from walk(child)


def subcommands(parser: argparse.ArgumentParser) -> list[str]:
    """The words that may follow, in the order of the help."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [word for action in found for word in action.choices]


def subparser(parser: argparse.ArgumentParser, word: str) -> argparse.ArgumentParser:
    """What parses the arguments after this word, one of `subcommands`."""
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    inner: argparse.ArgumentParser = next(choices[word] for choices in found if word in choices)
    return inner


def help_text(action: argparse.Action) -> str:
    """What an argument's help says, with its default."""
    return (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
