"""Which sources a workload can learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from dlsys.spec.data import Source
from dlsys.spec.data.section import SourceSection
from dlsys.spec.rows import Rows


def fitting(taken: Sequence[Rows]) -> list[str]:
    """The sources whose rows hold one of the kinds that are taken, with the setting that it takes."""
    found = []
    for source in _sources():
        name = _name(source)
        settings = [key for key, rows in source.GIVES.items() if any(map(rows.hold, taken))]
        if settings and len(settings) == len(source.GIVES):
            found.append(name)
        else:
            found += [f"{name} with {setting}" for setting in settings]
    return sorted(found)


def without_files(taken: Sequence[Rows]) -> list[str]:
    """Of the sources that fit by themselves, those that need nothing to be said about them."""
    found = []
    for source in _sources():
        needed = [key for key, info in source.model_fields.items() if info.is_required()]
        if needed == ["source"] and any(map(source(source=_name(source)).gives.hold, taken)):  # type: ignore[call-arg]
            found.append(_name(source))
    return found


def misfit(source: SourceSection, taken: Sequence[Rows], owner: str) -> str:
    """Why rows of a source are not what `owner` takes, and which are; empty where they are."""
    if any(map(source.gives.hold, taken)):
        return ""
    name = f"{source.source}{' with ' * bool(source.setting)}{source.setting}"  # type: ignore[attr-defined]
    wanted = " or ".join(rows.words for rows in taken)
    return (
        f"{owner} takes {wanted}, and {name} gives {source.gives.words}. "
        f"Sources that fit: {', '.join(fitting(taken)) or 'none'}"
    )


def _sources() -> Sequence[type[SourceSection]]:
    (union, _) = get_args(Source)
    return get_args(union)


def _name(source: type[SourceSection]) -> str:
    (name,) = get_args(source.model_fields["source"].annotation)
    return str(name)
