"""Signs of life: whoever plays or learns in this process tells of each step, so that nobody takes it for
hung."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_stepped: Callable[[], None] = lambda: None  # noqa: E731


@contextmanager
def stepping(told: Callable[[], None]) -> Iterator[None]:
    """Within it, `told` is called after each step of an environment, and after each of an optimizer."""
    global _stepped
    before, _stepped = _stepped, told
    try:
        yield
    finally:
        _stepped = before


def stepped() -> None:
    """A sign of life."""
    _stepped()
