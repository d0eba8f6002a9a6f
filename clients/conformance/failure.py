"""What ends a scenario or a random run before its end."""

from __future__ import annotations


class Failure(Exception):
    """Something that the kit expected did not happen, or something happened that must not."""


class Skipped(Exception):
    """A scenario cannot run here; the text says what is missing."""
