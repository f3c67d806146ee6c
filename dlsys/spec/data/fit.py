"""Which sources a workload can learn from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dlsys.spec.data import SECTIONS, OwnSource
from dlsys.spec.data.section import SourceSection
from dlsys.spec.rows import Rows


def fitting(taken: Sequence[Rows]) -> list[str]:
    """The sources whose rows hold one of the kinds that are taken, with the setting that it takes."""
    found = []
    for name, source in SECTIONS.items():
        settings = [key for key, rows in source.GIVES.items() if any(map(rows.hold, taken))]
        if settings and len(settings) == len(source.GIVES):
            found.append(name)
        else:
            found += [f"{name} with {setting}" for setting in settings]
    return sorted(found)


def without_files(taken: Sequence[Rows]) -> list[str]:
    """Of the sources that fit by themselves, those that need nothing to be said about them."""
    found = []
    for name, source in SECTIONS.items():
        needed = [key for key, info in source.model_fields.items() if info.is_required()]
        if needed == ["source"] and any(map(source(source=name).gives.hold, taken)):  # type: ignore[call-arg]
            found.append(name)
    return found


def misfit(source: SourceSection, taken: Sequence[Rows], owner: str) -> str:
    """Why rows of a source are not what `owner` takes, and which are; empty where they are, or may be."""
    if isinstance(source, OwnSource) or any(map(source.gives.hold, taken)):
        return ""
    name = f"{source.source}{' with ' * bool(source.setting)}{source.setting}"  # type: ignore[attr-defined]
    wanted = " or ".join(rows.words for rows in taken)
    return (
        f"{owner} takes {wanted}, and {name} gives {source.gives.words}. "
        f"Sources that fit: {', '.join(fitting(taken)) or 'none'}"
    )


def misfit_of_fields(fields: Collection[str], taken: Sequence[Rows], owner: str) -> str:
    """Why rows with these fields are not what `owner` takes; empty where they are."""
    if any(rows.fields.keys() <= set(fields) for rows in taken):
        return ""
    wanted = " or ".join(f"{rows.words} ({', '.join(rows.fields)})" for rows in taken)
    return f"{owner} takes {wanted}, and these rows have {', '.join(fields)}"
