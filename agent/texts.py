"""Texts that come from others, on their way to a terminal."""

from __future__ import annotations


def legible(text: str) -> str:
    """A text that comes from others: nothing in it moves the cursor, and letters beyond ASCII also by their numbers."""
    if text.isascii() and text.isprintable():
        return text
    return f"{text} ({text!a})" if text.isprintable() else ascii(text)
