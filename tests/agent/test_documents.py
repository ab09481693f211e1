"""What the documents show can be typed, and what they link to is there."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import main
from agent.command_line import build_parser
from agent.doctor.findings import FindingClass
from agent.errors import UsageError
from agent.output import EXIT_CODES
from agent.pool.certificate_view import IRREVERSIBLE
from agent.pool.verb import Needs, Verb
from agent.pool.verbs import VERBS
from agent.verbs import walk

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for folder in ("", "docs/**/", "packaging/", "systemd/") for page in ROOT.glob(f"{folder}*.md"))


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str) -> Iterator[str]:
    """What stands between fences, and what is indented by four spaces after an empty line."""
    yield from re.findall(r"(?ms)^```[a-z]*\n(.*?)^```", text)
    outside = re.sub(r"(?ms)^```.*?^```", "", text)
    yield from re.findall(r"(?m)(?:^\n)((?:^ {4}\S.*\n)+)", outside)


def lines(block: str) -> list[str]:
    """The lines of a block; one that goes on, or whose remark does, is one."""
    return re.sub(r"\n\s+#", " #", re.sub(r"\\\n\s*", "", block)).splitlines()


def commands(block: str) -> Iterator[list[str]]:
    """The commands of ours in a block, without prompt, `sudo`, redirections, and remarks."""
    for line in lines(block):
        found = re.match(r"\s*(?:\$ )?(?:sudo )?gpupool( .*|)$", line)
        if found is None:
            continue
        lexer = shlex.shlex(found[1], posix=True, punctuation_chars=";&|<>")
        lexer.commenters = "#"
        lexer.whitespace_split = True
        words = list(lexer)
        end = next((i for i, word in enumerate(words) if set(word) <= set(";&|<>")), len(words))
        # What a descriptor is opened for stands before the sign: `3< FILE`.
        yield words[: end - (end < len(words) and words[end - 1].isdigit())]


def lenient() -> argparse.ArgumentParser:
    """The parser of the command, to which every placeholder is a number and a path."""
    parser = build_parser()
    for each in walk(parser):
        for action in each._actions:
            action.type = None
    return parser


def check(words: list[str]) -> None:
    """Raise `UsageError` for what is not taken; of what is cut short by "..." only verb and options are looked at."""
    if "..." not in words and words[-1:] not in (["--help"], ["--version"]):
        _, unknown = lenient().parse_known_args(words)
        if unknown:
            raise UsageError(f"unknown: {unknown}")
        return
    parser, rest = leaf(words)
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in parser._option_string_actions:
            raise UsageError(f"unknown: {option}")


def leaf(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser to which the first words lead, and the other words."""
    parser = build_parser()
    for i, word in enumerate(words):
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not below:
            return parser, words[i:]
        if word.startswith("-"):
            continue
        if word in ("...", "COMMAND"):
            return parser, []
        for each in word.split("|"):  # several at once, as `certificate sign|merge`
            if each not in below[0].choices:
                raise UsageError(f"no such command: {each}")
            parser = below[0].choices[each]
    return parser, []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_that_is_shown_can_be_typed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = []
    for words in (words for block in blocks(text) for words in commands(block)):
        try:
            check(words)
        except UsageError as error:
            wrong.append(f"gpupool {' '.join(words)}: {error}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_that_is_named_is_there(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    wrong = []
    for shown in re.findall(r"`(?:sudo )?gpupool ([^`]+)`", text):
        try:
            check([*shown.replace("\n", " ").split(), "..."])
        except UsageError as error:
            wrong.append(f"gpupool {shown}: {error}")
    assert wrong == []


LASTING = {frozenset(re.findall("[A-Z][a-z]+", each.__name__)) for each in IRREVERSIBLE}
"""The words of what cannot be undone: its verb has the same (`FeesTo`: `fees-to`)."""


def lasts(verb: Verb) -> bool:
    """Whether this verb of `gpupool pool` commands what cannot be undone."""
    return frozenset(word.capitalize() for word in re.findall(r"\w+", verb.name)) in LASTING


DRAFTING = {f"gpupool pool {verb.name}": lasts(verb) for verb in VERBS if verb.needs & Needs.DRAFTS}
"""By command: whether the certificate that it drafts cannot be undone once it has landed."""


def unagreed(text: str) -> Iterator[str]:
    """The commands in a page that ask for --yes, and are not shown with it, nor said to show what they would do."""
    for block in blocks(text):
        drafted = True  # what is submitted was drafted above it; elsewhere it may be anything
        for line in lines(block):
            for words in commands(line):
                parser, _ = leaf(words)
                drafted = DRAFTING.get(parser.prog, drafted)
                asks = {"gpupool pool certificate submit": drafted, "gpupool run": "--fresh" in words}
                is_asked = "--yes" in parser._option_string_actions and asks.get(parser.prog, True)
                if is_asked and not {"--yes", "--dry-run"} & set(words) and "show" not in line.partition("#")[2]:
                    yield line
    for shown, rest in re.findall(r"\| `(?:sudo )?gpupool ([^`|]+)`([^|]*)\|", text):  # a cell of a table
        if "--yes" in leaf(shown.split())[0]._option_string_actions and "--yes" not in shown + rest:
            yield f"gpupool {shown}"


def test_every_command_that_cannot_be_undone_has_its_verb() -> None:
    assert sum(DRAFTING.values()) == len(IRREVERSIBLE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_command_that_is_shown_does_what_it_is_shown_for(page: Path) -> None:
    assert list(unagreed(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "gpupool pool fees-to ADDRESS 1",
        "gpupool pool hand-over",
        "gpupool pool certificate sign FILE",
        "gpupool pool certificate submit FILE",
        "gpupool pool set accept FILE\ngpupool pool certificate submit FILE",
        "gpupool keys rotate",
        "gpupool run --fresh",
    ],
)
def test_a_command_that_is_shown_without_yes_is_found(line: str) -> None:
    assert len(list(unagreed(f"```\n{line}\n```\n"))) == 1
    agreed = f"```\n{line} --yes\n```\n"
    assert list(unagreed(agreed)) == []


def test_a_cell_that_is_a_command_without_yes_is_found() -> None:
    assert list(unagreed("| fees | `sudo gpupool pool fees-to ADDRESS 1` |\n")) == ["gpupool pool fees-to ADDRESS 1"]
    assert list(unagreed("| fees | `sudo gpupool pool fees-to ADDRESS 1` shows; with `--yes` it pays |\n")) == []


def test_what_asks_first_is_on_the_page() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    table = page.partition("## What asks first\n")[2].partition("**Everything else")[0]
    asking = {
        parser.prog.removeprefix("gpupool ")
        for parser in walk(build_parser())
        if "--yes" in parser._option_string_actions
    }
    named = re.findall(r"`([a-z][a-z-]*(?: [a-z][a-z-]*)*)(?: --[a-z]+)?`", re.sub(r"(?m)^(\|[^|]*\|).*", r"\1", table))
    assert sorted(named) == sorted(asking)


OWN_FILES = {"--config", "--pool", "--key", "--dir", "--provider"}
"""With one of these a command does without the settings of the package."""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_reads_the_packages_settings_is_shown_with_sudo(page: Path) -> None:
    """They are root's and the agents' (/etc/gpupool, 0750), and journal and ledger the agents' alone."""
    wrong = []
    for line in (line for block in blocks(page.read_text(encoding="utf-8")) for line in lines(block)):
        for words in commands(line):
            parser, _ = leaf(words)
            own = OWN_FILES | ({"--out"} if parser.prog == "gpupool attest collateral fetch" else set())
            is_read = "--config" in parser._option_string_actions and words[-1] != "--help"
            if is_read and not own & set(words) and "sudo " not in line:
                wrong.append(line)
    assert wrong == []


def test_nobody_is_told_to_leave_a_wallet_behind_for_a_node_key() -> None:
    """Stake, reputation and wait go with the wallet: a node key is replaced in its entry (`gpupool keys rotate`)."""
    found = []
    sources = (
        file for folder in ("agent", "gossip", "attestation", "contracts") for file in ROOT.glob(f"{folder}/**/*.py")
    )
    rules = (file for file in (ROOT / "packaging").glob("*/*") if file.suffix in (".yml", ".json"))
    for file in (*sources, *rules, *PAGES):
        text = re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8"))  # a sentence over several literals
        for hit in re.finditer(r"(?i)new\s+wallet\b|wallet\s+and\s+node\s+key", text):
            item = text[: hit.start()].rpartition("\n* ")[2]
            if not item.startswith("**A wallet key cannot be replaced:**"):
                found.append(f"{name(file)}: {hit[0]}")
    assert found == []


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ (.*)$", text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            wrong.append(target)
    assert wrong == []


def test_every_page_is_on_the_map() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in text} == set()


def test_the_exit_codes_are_those_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for code, meaning in EXIT_CODES.items():
        assert f"\n  {code:<4}{meaning}" in said
        assert f"\n| {code} | {meaning} |" in page
    assert all(f"{clazz.value} {clazz.name.lower()}" in " ".join(page.split()) for clazz in FindingClass)
    assert not set(EXIT_CODES) & {int(clazz) for clazz in FindingClass}
