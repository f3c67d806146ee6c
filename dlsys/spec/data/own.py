"""Sources of the user's own: a function or a class that gives the rows. Calling it is in `dlsys.data.own`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from dlsys.registry import SOURCES
from dlsys.spec.data.images import ImageSection
from dlsys.spec.data.tables import ColumnsSection
from dlsys.spec.rows import Rows
from dlsys.spec.section import Count, Int, Section, Text

#: What stands for all of them where sources are listed.
OWN = "module:function"


class OwnSource(ImageSection, ColumnsSection):
    """Your own `package.module:function`, or a plug-in's name; other keys are the function's own options."""

    model_config = ConfigDict({**Section.model_config, "extra": "allow"})
    # What it gives is known when it is called.
    GIVES: ClassVar[Mapping[str, Rows]] = {}

    source: Annotated[Text, Field(json_schema_extra={"pattern": r"^[^\s:]+:[^\s:]+$"})]
    """A function or class that returns rows: a torch dataset, arrays, a table … , or `train`, `valid` and
    `test` of these."""
    fields: tuple[Text, ...] = ()
    """Names for what rows hold that are tuples: `[image, label]`."""
    classes: Count | None = None
    """How many classes `label` has, where that cannot be seen."""
    target: Text = ""
    """Of a table: the column to predict."""
    pad_with: dict[Text, Int] = Field(default_factory=dict)
    """Fields whose rows are lists of unequal length, each with the number that pads it on the right:
    `{input_ids: 0}`. A batch of a worker is as long as its longest row, rounded up to a multiple of 8; where
    rows have no `attention_mask`, they get one."""

    @property
    def registered(self) -> str:
        return OWN

    @property
    def ragged(self) -> str:
        return "pad_with" if self.pad_with else ""

    @property
    def place(self) -> str:
        """`module:attribute` of the function."""
        return self.source if ":" in self.source else SOURCES.target(self.source)

    @property
    def given(self) -> list[str]:
        """What dlsys gives to a function that has parameters of these names."""
        return ["folder", *(name for name in type(self).model_fields if name != "source")]

    @property
    def options(self) -> dict[str, Any]:
        """The function's own."""
        return dict(self.model_extra or {})


def tag_of(section: Any) -> str | None:
    """Which of the sources a `data:` section is of; None where it names none."""
    named = section.get("source") if isinstance(section, dict) else getattr(section, "source", None)
    if named is None:
        return None
    name = str(named)
    return OWN if ":" in name or (name not in SOURCES.own and name in SOURCES) else name
