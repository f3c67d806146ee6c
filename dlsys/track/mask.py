"""What looks like a secret is never logged."""

from __future__ import annotations

import re

_SECRET_NAME = re.compile(r"(?i)(secret|token|passw|api[_-]?key|credential|private)")
_SECRET_TEXT = re.compile(
    r"(?i)(://[^/\s:@]+:)[^@\s]+(?=@)|"  # the password in a URL
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})"
)


def mask(name: str, value: str) -> str:
    """The value, without what looks like a secret."""
    if name and _SECRET_NAME.search(name):
        return "***"
    return _SECRET_TEXT.sub(lambda found: f"{found[1] or ''}***", value)
