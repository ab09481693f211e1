"""Errors of the gossip package. Subclasses answer who is at fault and what comes next."""


class GossipError(Exception):
    """Root of every error that this package raises on purpose."""


class InvalidMessageError(GossipError):
    """Bytes that no honest peer sends: the sender is at fault; drop, count, lower its score."""


class InvalidPolicyError(GossipError):
    """A pool policy document that is not allowed: whoever wrote it is at fault; the message names the key."""


class PeerUnavailableError(GossipError):
    """The peer cannot be reached or did not answer in time: retry later, or ask another."""


class PeerNotConnectedError(PeerUnavailableError):
    """There is no connection with the peer: it is off, cannot be reached, or does not reach us."""


class PeerMisbehavedError(GossipError):
    """The peer answered outside the protocol: drop the answer and lower its score."""


class DataUnavailableError(GossipError):
    """Something that a decision needs is not here yet: `missing` says what to fetch, then decide again."""

    def __init__(self, message: str, missing: frozenset[object] = frozenset()) -> None:
        super().__init__(message)
        self.missing = missing


class ListenFailedError(GossipError):
    """An address to listen on is taken, not ours, or malformed: mend the configuration."""


class OwnForkError(GossipError):
    """The own log would fork: the key signed something that this node does not hold. Stop signing; the
    owner restores the newer database, or has the registry name a new node key."""


class KeyInUseError(GossipError):
    """Another agent runs with this node key: stop one of them. The message says where it was heard."""
