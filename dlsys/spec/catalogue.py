"""The catalogue: a workload's name stands for its card, which needs no torch.

The names are in `dlsys.zoo.table`, one line each. Installed packages add their own through entry points
in the group `dlsys.workloads`, whose values are `module:attr` of a `Card`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from dlsys.registry import Registry, import_string, known
from dlsys.spec.card import Card


class Catalogue(Registry):
    """The workloads by name.

    Args:
        table: `module:attr` of the names: each stands for `family.folder` of the zoo, or for
            `family.folder:preset` where it means one preset of that workload.
    """

    def __init__(self, table: str) -> None:
        self.kind, self._group = "workload", "dlsys.workloads"
        self._place = table

    @cached_property
    def _lines(self) -> dict[str, str]:
        lines: dict[str, str] = import_string(self._place)
        return lines

    @cached_property
    def own(self) -> dict[str, str]:  # type: ignore[override]  # made when it is asked for
        return {name: f"dlsys.zoo.{line.partition(':')[0]}.card:CARD" for name, line in self._lines.items()}

    def load(self, name: str) -> Card:
        """The card of a workload, under the name given.

        Raises:
            UsageError: unknown name.
        """
        card: Card = super().load(name)
        preset = self._lines.get(name, "").partition(":")[2]
        if not preset:
            return card
        return replace(card, name=name, preset=preset, paper=card.papers.get(preset, card.paper))

    def unknown(self, name: str) -> str:
        more = f"dlsys zoo list --like {name}" if name.isprintable() and " " not in name else "dlsys zoo list"
        return f"unknown workload {name!r}.{known(name, self.names(), more=more)}"


WORKLOADS = Catalogue("dlsys.zoo.table:WORKLOADS")
