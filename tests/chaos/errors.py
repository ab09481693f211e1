"""What ends a scenario."""

from __future__ import annotations


class ViolationError(Exception):
    """Something does not hold that must: a bug of the agents, not of the run."""
