"""Errors of the contracts package. Subclasses answer who is at fault and what comes next."""


class ContractsError(Exception):
    """Root of every error that this package raises on purpose."""


class InvalidValueError(ContractsError):
    """A value does not fit its type on chain (length, range, order): whoever made it is at fault."""


class InvalidCellError(ContractsError):
    """A cell, BoC or proof does not decode to what was expected: its sender is at fault."""


class ChainUnavailableError(ContractsError):
    """No liteserver answered in time, or none is connected: retry with back-off."""


class ChainConflictError(ContractsError):
    """A liteserver's answer does not match its proof, or two liteservers disagree: drop that server."""


class UnreadableStateError(ContractsError):
    """An account's state is too large to be read, or does not decode: its maker may be at fault, no server is."""


class ContractAbsentError(ContractsError):
    """No active account of the expected code stands at the address: deploy it, or mend the address."""


class MessageRefusedError(ContractsError):
    """The chain refused an external message before any transaction (bad wallet seqno, no balance)."""


class GetMethodFailedError(ContractsError):
    """A get-method ended with `exit_code`, not 0: its arguments or the contract are at fault."""

    def __init__(self, method: str, exit_code: int) -> None:
        super().__init__(f"{method}: exit code {exit_code}")
        self.exit_code = exit_code


class TransferExpiredError(ContractsError):
    """A wallet's transfer did not land before it expired, and never will: send it anew."""


class WalletBusyError(ContractsError):
    """The wallet's lock file cannot be used: its folder is missing or not writable; the message names it."""
