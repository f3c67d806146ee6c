"""Python's own help texts."""

from __future__ import annotations

from pathlib import Path

from dlsys.data.dataset import Splits
from dlsys.data.text.windows import windows
from dlsys.spec.data import Pydoc


def pydoc(options: Pydoc, folder: Path) -> Splits:  # noqa: ARG001
    """The topics of Python's `help()`, joined in the order of their names.

    The text, and so the vocabulary, is that of the running Python's version.
    """
    from pydoc_data.topics import topics

    text = "".join(topics[name] for name in sorted(topics))
    return windows(text[: options.limit or None], options, "pydoc")
