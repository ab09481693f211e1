"""Keys that systemd hands to the service (`LoadCredential=`, `LoadCredentialEncrypted=`).

Decides which file a key of the settings is read from. A unit's credentials lie in a folder of their own, in memory that
is never swapped, which this service alone can read; so a key's file may be root's, or encrypted to this host's TPM. The
settings name the same file with and without systemd: `gpupool pool claim`, run by root, reads what the unit loads.

Whether a file may be used as a key is for `agent.identity`; that the key's own file is nobody else's holds for a
credential of it, too.

Source: systemd.exec(5), "Credentials".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from agent.errors import KeyFileError


def key_file(named: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where to read the key file that the settings name: the credential of its name, if one was handed over.

    Raises:
        KeyFileError: the credential is of a file that others can read.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        return named
    credential = Path(folder) / named.name
    if credential == named or not credential.exists():
        return named
    try:
        mode = stat.S_IMODE(named.stat().st_mode)
    except OSError:
        return credential  # it is elsewhere, or encrypted
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"{named}: readable by others (mode {mode:04o}); run: chmod 600 {named}")
    return credential
