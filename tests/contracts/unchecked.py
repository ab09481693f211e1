"""Values that the classes of `contracts.model` would refuse to hold, to see the contracts refuse them."""

from __future__ import annotations

import copy
from typing import TypeVar

T = TypeVar("T")


def unchecked(value: T, **over: object) -> T:
    """A copy of a frozen value with attributes that its class would refuse, to see the contracts refuse them."""
    changed = copy.copy(value)
    for name, attribute in over.items():
        object.__setattr__(changed, name, attribute)
    return changed
