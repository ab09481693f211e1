"""Files that are whole or not there, and durable."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put a file with this content and mode in the place of whatever stands at `path`; durable on return.

    No link is followed: root may write in a folder of the agent's user.

    Raises:
        OSError: it cannot be written; what stood there still does.
    """
    aside = path.with_name(f"{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    sync_folder(path.parent)


def write_new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a new file of this mode, whole or not at all, never over another; durable on return.

    What root writes belongs to the owner of its folder: a command of root's must not lock the agent's own user out.

    Raises:
        OSError: it cannot be written; FileExistsError if something stands at `path`, a dangling link even.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def is_there(path: Path) -> bool:
    """Whether something stands at `path`. What this user may not see counts: whoever opens it says why that fails."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def give_to_folders_owner(path: Path) -> None:
    """What root made belongs to the owner of its folder, as `write_new` has it. Raises OSError."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)


def _link(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        # A file system without links, as on a USB stick: nothing there keeps two programs apart.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        aside.rename(path)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
