"""What looks like a secret is never logged."""

from __future__ import annotations

import re

# `tokenizer` and `max_tokens` are none.
_NAME = r"(?:secret|token(?!iz|s)|passw|(?:api|access|private)[_-]?key(?!_id)|credential)"
_SECRET_NAME = re.compile(rf"(?i){_NAME}")
_SECRET_LINE = re.compile(rf"(?im)([\w-]*{_NAME}[\w-]*[\"']?[ \t]*[:=][ \t]*)[^\s,}}{{\[]+")
# A command's option and the word behind it, on a line or as two items of YAML. (dlsys's own --secret is
# followed by a name.)
_BETWEEN = r"(?:[ \t]+|,[ \t]*|[ \t]*\n[ \t]*-[ \t]+)[\"']?"
_SECRET_WORD = re.compile(
    rf"(?i)(--(?!secret[ \t])[\w-]*{_NAME}[\w-]*[\"']?{_BETWEEN})[^\s\"',\]=-][^\s\"',\]]*"
)
_SECRET_TEXT = re.compile(
    r"(?i)(://[^/\s:@]+:)[^@\s]+(?=@)|"  # the password in a URL
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})"
)


def mask(name: str, value: str) -> str:
    """The value, without what looks like a secret."""
    if is_secret(name):
        return "***"
    return _SECRET_TEXT.sub(lambda found: f"{found[1] or ''}***", value)


def mask_settings(text: str) -> str:
    """A job file or a command line: its values are masked by their names, too."""
    return mask("", _SECRET_WORD.sub(r"\1***", _SECRET_LINE.sub(r"\1***", text)))


def is_secret(name: str, value: str = "") -> bool:
    """Whether a setting's name, or its value, looks like a secret's."""
    return bool(_SECRET_NAME.search(name) or _SECRET_TEXT.search(value))
