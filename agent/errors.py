"""Errors of the agent package. Subclasses answer who is at fault and what comes next."""


class AgentError(Exception):
    """Root of every error that this package raises on purpose."""


class ConfigError(AgentError):
    """The operator's settings are at fault: one line that names file, key and what is expected there."""


class SourceUnavailableError(AgentError):
    """A source of measurements cannot be read now: count a gap, try again at the next sample."""


class InvalidSourceError(AgentError):
    """A source answered with what it should not: count a gap; its operator must look at it."""


class InvalidReceiptError(AgentError):
    """A receipt, or a request with receipts, is refused: whoever handed it in is told why."""


class PortInUseError(AgentError):
    """Another process holds the address to listen on: stop it, or configure another port."""


class JournalError(AgentError):
    """The journal is missing, damaged, in use or cannot be written: the agent stops; the message says what to do."""


class DamagedRowError(JournalError):
    """A row of the journal is not what was written: the disk, or whoever changed the file, is at fault."""


class InvalidExportError(AgentError):
    """An exported journal is cut short, was changed, or is of another key or pool: nothing was imported."""


class KeyFileError(AgentError):
    """A key file is missing, malformed or readable by others: its owner mends it."""


class PoolMismatchError(AgentError):
    """The chain does not show the pool that the config describes (address, policy, registration)."""


class OperationError(AgentError):
    """What the user asked for cannot be done now; the message says why and what would help."""
