"""Where a backup's passphrase comes from: the terminal, or a file; and yes or no.

1. A passphrase is never an argument: every user of the host could read it.
2. One that is chosen has at least `LENGTH_MIN` characters; what characters is the owner's choice.
3. A file with a secret in it is refused if others can read it, like a key. A pipe has no such readers.

Source: NIST SP 800-63B-4, section 3.1.1.2 (15 characters where nothing else protects; no rules of composition).
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path

from agent.errors import ConfigError, KeyFileError
from agent.keys.sealing import Identities, Passphrase
from agent.output import note

LENGTH_MIN = 15
_SECRET_BYTES_MAX = 4096
_TRIES = 3


def is_asking_possible() -> bool:
    """Whether somebody sits at a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def ask(question: str) -> str:
    """What is typed, without blanks around it; nothing where the input ends."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline(1024).strip()


def choose_passphrase(file: Path | None) -> Passphrase:
    """A new passphrase: from the first line of a file, else asked for twice.

    Raises:
        ConfigError: too short, there is no terminal, or it was not typed twice.
        KeyFileError: the file cannot be used.
    """
    if file is not None:
        text = _from_file(file)
        if len(text) < LENGTH_MIN:
            raise ConfigError(f"{file}: {_TOO_SHORT}")
        return Passphrase(text)
    for _ in range(_TRIES):
        text = _typed(f"passphrase for the backup ({LENGTH_MIN} characters or more): ")
        if len(text) < LENGTH_MIN:
            note(_TOO_SHORT)
        elif _typed("the same again: ") != text:
            note("these were not the same")
        else:
            return Passphrase(text)
    raise ConfigError("no passphrase was chosen; nothing was written")


def passphrase(file: Path | None) -> Passphrase:
    """The passphrase of a backup that is there. Raises as `choose_passphrase` does."""
    return Passphrase(_from_file(file) if file is not None else _typed("passphrase of the backup: "))


def identities(file: Path) -> Identities:
    """The secret keys of an age identity file: one a line, beside comments.

    Raises:
        KeyFileError: the file cannot be used.
    """
    lines = [line.strip() for line in _secret_text(file).splitlines()]
    return Identities(tuple(line for line in lines if line and not line.startswith("#")))


_TOO_SHORT = f"a passphrase has at least {LENGTH_MIN} characters: six random words make a good one"


def _typed(prompt: str) -> str:
    if not is_asking_possible():
        raise ConfigError("a passphrase is needed, and there is no terminal to ask at: give --passphrase-file FILE")
    try:
        text = getpass.getpass(prompt, stream=sys.stderr)
        text.encode()
    except EOFError:
        raise ConfigError("no passphrase was typed") from None
    except UnicodeError:
        raise ConfigError("the passphrase is not in UTF-8") from None
    return text


def _from_file(file: Path) -> str:
    """The first line, without its end."""
    lines = _secret_text(file).splitlines()
    if not lines or not lines[0]:
        raise KeyFileError(f"{file}: its first line shall be the passphrase, and is empty")
    return lines[0]


def _secret_text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(_SECRET_BYTES_MAX)
    except OSError as error:
        raise KeyFileError(f"{file}: cannot be read: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"{file}: readable by others (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {file}")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise KeyFileError(f"{file}: not a text in UTF-8") from None
