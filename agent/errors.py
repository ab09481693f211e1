"""Errors of the agent package. Subclasses answer who is at fault and what comes next."""

DENIED = "this user may not read it; run the command with sudo"
"""What is said of a file that its owner protects on purpose."""


class AgentError(Exception):
    """Root of every error that this package raises on purpose."""


class UsageError(AgentError):
    """The command line has an argument that is not taken, or lacks one: its help says what is."""


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


class AddressAwayError(AgentError):
    """The address to listen on is none of this host now: try again, as a tunnel's comes late, or configure another."""


class JournalError(AgentError):
    """The journal is missing, damaged, in use or cannot be written: the agent stops; the message says what to do."""


class UnusableJournalError(JournalError):
    """There is no journal, or none that this agent can start with: no new attempt mends that, only a person does."""


class ForeignJournalError(UnusableJournalError):
    """The journal is of another node key or pool than the settings name: the file is good, the settings are wrong."""


class DamagedRowError(UnusableJournalError):
    """A row of the journal is not what was written: the disk, or whoever changed the file, is at fault."""


class InvalidExportError(AgentError):
    """An exported journal is cut short, was changed, or is of another key or pool: nothing was imported."""


class KeyFileError(AgentError):
    """A key file is missing, malformed or readable by others: its owner mends it."""


class KeyDeniedError(KeyFileError):
    """This user may not read a key file, with which nothing needs to be wrong: who may runs the command."""


class InvalidBackupError(AgentError):
    """A backup of keys cannot be opened: wrong passphrase, damaged, or no backup; nothing was written."""


class PoolMismatchError(AgentError):
    """The chain does not show the pool that the config describes (address, policy, registration)."""


class OperationError(AgentError):
    """What the user asked for cannot be done now; the message says why and what would help."""
