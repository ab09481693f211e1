"""Texts that come from others, on their way to a terminal."""

from __future__ import annotations


def legible(text: str) -> str:
    """A text that comes from others: nothing in it moves the cursor, and letters beyond ASCII also by their numbers."""
    if text.isascii() and text.isprintable():
        return text
    return f"{text} ({text!a})" if text.isprintable() else ascii(text)


def one_line(text: str) -> str:
    """A text that may quote others, in one line: what does not print, or moves the cursor, is escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
