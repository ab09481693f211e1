"""What bash, zsh and fish complete, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import main
from agent.command_line import SHELLS, build_parser
from agent.completing import completion_script
from agent.verbs import walk

BASH = """source "$1"; shift
compopt() { :; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gpupool; printf '%s\\n' "${COMPREPLY[@]}" """

ZSH = """zmodload zsh/zpty
zpty shell 'zsh -f -i'
zpty -w shell 'PROMPT=; autoload -Uz compinit; compinit -u -D; stty cols 200; LISTMAX=10000'
zpty -w shell "source $1"
zpty -w shell 'shown() { compadd() { if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
typeset -a hits; builtin compadd -A hits "$@"; print -l -- "HIT:"${^hits}; builtin compadd "$@"; }
_main_complete; print THE END; }; zle -C shown complete-word shown; bindkey "^I" shown; print REA""DY'
zpty -r -m shell out '*READY*'
zpty -n -w shell "$2"$'\\t'
zpty -r -m shell out '*THE END*'
print -r -- "$out" | tr -d '\\r' | sed -n 's/^.*HIT://p'
zpty -d shell"""

CASES = [
    ("", {"init", "run", "status", "pool", "doctor", "completions"}),
    ("po", {"pool"}),
    ("pool stake ", {"add"}),
    ("attest policy ", {"check", "hash", "explain"}),
    ("--debug status --w", {"--watch"}),
    ("devnet --chaos ", {"kill", "restart", "chain"}),
    ("pool top-up ", {"pool", "registry", "rewards"}),
    ("init --policy-file pol", {"policy.toml"}),
    ("init --dir fol", {"folder"}),
    ("attest verify --gpu fi", {"file.bin"}),
    ("run --config agent.toml --fr", {"--fresh"}),
]


def complete(shell: str, place: Path, line: str) -> set[str]:
    """The words that a shell offers at the end of `gpupool LINE`, in the folder `place`."""
    script = place / f"completions.{shell}"
    script.write_text(completion_script(build_parser(), shell))
    match shell:
        case "bash":
            command = ["bash", "-c", BASH, "bash", str(script), *f"gpupool {line}".split(" ")]
        case "zsh":
            command = ["zsh", "-f", "-c", ZSH, "zsh", str(script), f"gpupool {line}"]
        case _:
            command = ["fish", "-N", "-c", f"source {script}; complete -C 'gpupool {line}'"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return {each.split("\t")[0].rstrip("/") for each in done.stdout.splitlines()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("policy.toml", "file.bin"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_a_shell_completes(place: Path, shell: str, line: str, words: set[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    offered = complete(shell, place, line)
    assert words <= offered
    assert line.split(" ")[-1] == "" or words == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_verb_and_every_option_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completions", shell]) == 0
    said = capsys.readouterr().out
    for parser in walk(build_parser()):
        assert parser.prog.split()[-1] in said
        for option in parser._option_string_actions:
            assert (option if shell != "fish" else option.lstrip("-")) in said
