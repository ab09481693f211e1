"""The backup at `gpupool init`: asked for at a terminal, named by --backup in a script, missed aloud otherwise."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.errors import ConfigError, KeyFileError
from agent.keys.asking import ask, choose_passphrase, is_asking_possible
from agent.keys.backing_up import gather_agent, require_vacant, write_backup
from agent.keys.locking import lock
from agent.keys.sealing import Passphrase, Recipients
from agent.output import note

_MISSED = (
    "the keys are not backed up yet: whoever loses the wallet key loses the stake and what was earned; "
    "run `gpupool keys backup FILE --config {config}`"
)


def prepare(options: argparse.Namespace) -> Passphrase | Recipients | None:
    """What --backup encrypts with, checked before anything is made; None if it was not given.

    Raises:
        ConfigError, KeyFileError: passphrase or recipients cannot be used, or the file exists.
    """
    if options.backup is None:
        if options.recipient or options.passphrase_file is not None:
            raise ConfigError("--recipient, --passphrase-file: are for --backup FILE")
        return None
    require_vacant(options.backup.absolute())
    return lock(options)


def offer(options: argparse.Namespace, config: Path, prepared: Passphrase | Recipients | None) -> Path | None:
    """Write the backup of a new agent, if its owner wants one now; where it stands.

    Raises:
        KeyFileError: the file that --backup names cannot be written.
    """
    if prepared is not None:
        target: Path = options.backup.absolute()
        write_backup(target, gather_agent(config), prepared)
        return target
    while is_asking_possible() and not options.json:
        typed = ask("write an encrypted backup of the keys now? FILE, best on another disk (Enter: not now): ")
        if not typed:
            break
        target = Path(typed).expanduser().absolute()
        try:
            require_vacant(target)
            write_backup(target, gather_agent(config), choose_passphrase(None))
        except (ConfigError, KeyFileError) as error:
            note(str(error))
        else:
            return target
    note(_MISSED.format(config=config))
    return None
