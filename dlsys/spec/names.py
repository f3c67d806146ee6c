"""What MLflow takes for the name of a metric or a parameter."""

from __future__ import annotations

import posixpath
import re

_LONGEST = 250
_TAKEN = re.compile(r"[\w/.\- :]+")


def wrong_name(name: str) -> str | None:
    """What is wrong with a name, as the end of a sentence; None where MLflow takes it."""
    if not _TAKEN.fullmatch(name):
        odd = " ".join(sorted(set(re.sub(r"[\w/.\- :]", "", name)))) or "nothing"
        return f"has {odd}, and MLflow takes letters, digits, blanks and _ - . / : alone: rename it"
    if posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        return "reads as a path, and MLflow takes those alone that are their own shortest form: rename it"
    if len(name) > _LONGEST:
        return f"has {len(name)} characters, and MLflow takes {_LONGEST}: rename it"
    return None
