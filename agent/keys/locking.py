"""What a backup is encrypted with, as the options of a command say."""

from __future__ import annotations

import argparse

from agent.errors import ConfigError
from agent.keys.asking import choose_passphrase
from agent.keys.sealing import Passphrase, Recipients, require_recipient


def lock(options: argparse.Namespace) -> Passphrase | Recipients:
    """The recipients that were named, else a passphrase: of a file, or asked for.

    Raises:
        ConfigError: both, a recipient that is no age public key, or no good passphrase.
        KeyFileError: the passphrase's file cannot be used.
    """
    if not options.recipient:
        return choose_passphrase(options.passphrase_file)
    if options.passphrase_file is not None:
        raise ConfigError("--recipient: takes no passphrase besides")
    for text in options.recipient:
        require_recipient(text)
    return Recipients(tuple(options.recipient))
