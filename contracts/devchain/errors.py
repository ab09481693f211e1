"""Errors of the embedded chain. Subclasses answer who is at fault and what comes next."""

from __future__ import annotations

from contracts.errors import ContractsError, MessageRefusedError


class DevchainError(ContractsError):
    """Root of what the embedded chain raises on purpose."""


class EmulatorUnavailableError(DevchainError):
    """The emulator's files are missing or changed, or it cannot be compiled here: mend the installation."""


class EmulatorTrapError(DevchainError):
    """The emulator stopped inside its own code on this input. It is already replaced by a fresh one."""


class InvalidMessageError(DevchainError):
    """The message does not decode, is too deep or too large: its sender is at fault."""


class NotAcceptedError(MessageRefusedError, DevchainError):
    """The account did not accept the external message; nothing was charged and nothing changed.

    `exit_code` is the TVM exit code, or None when no code ran (no balance, no code, bad state init).
    """

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason if exit_code is None else f"{reason} (exit code {exit_code})")
        self.exit_code = exit_code


class StorageCorruptError(DevchainError):
    """The directory does not hold a chain that this program wrote: restore it, or start with an empty one."""


class StorageBusyError(DevchainError):
    """Another process has this chain open: stop it, or use another directory."""


class BlockUnknownError(DevchainError):
    """No such block, or it is older than the history that is kept."""


class InvalidQueryError(DevchainError):
    """A query does not decode: the client is at fault."""
