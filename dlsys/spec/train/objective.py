"""`loss:` and `metrics:` — what a plain model, a classifier or a segmenter learns by, and what else is
measured of the first two."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from dlsys.spec.section import Fraction, NonNegative, Positive, Section, Text

# What stands for all functions of the user's own.
OWN_LOSS = "module:function"


class _Weighted(Section):
    class_weights: tuple[NonNegative, ...] | Literal["balanced"] | None = None
    """A factor for each class's rows; `balanced` weighs each class alike, by its rows for training. The loss
    is the mean over rows of factor × loss, whatever the factors' sum: the same for any number of workers."""


class CrossEntropy(_Weighted):
    """Cross-entropy of logits, for classes."""

    name: Literal["cross-entropy"]
    label_smoothing: Fraction = 0.0
    """The share of each label that is spread over all classes (Szegedy et al. 2016)."""


class Focal(_Weighted):
    """Cross-entropy that minds certain rows less (Lin et al. 2017): × (1 − p)^gamma, for classes."""

    name: Literal["focal"]
    gamma: NonNegative = 2.0
    """How much less; 0 is cross-entropy."""


class Hinge(_Weighted):
    """A support vector machine's: how far a row's own class falls short of standing `margin` above the
    others, for classes."""

    name: Literal["hinge"]
    way: Literal["crammer-singer", "one-vs-rest"] = "crammer-singer"
    """Above the largest other score (Crammer and Singer 2001), or each class for itself: its score above the
    margin in its own rows, below −margin in all others, summed over classes."""
    margin: Positive = 1.0
    """How far; a linear model's weights are scaled with it."""


class Dice(Section):
    """1 − Dice's coefficient of what is likely and what is so (Milletari et al. 2016): the mean over the
    classes but the first, of each row; for a class for each pixel, where few pixels are not ground."""

    name: Literal["dice"]
    smooth: Positive = 1.0
    """Pixels that are added to what both have and to each: a row without a class then has a loss too."""


class SquaredError(Section):
    """The mean squared error, for a `target`."""

    name: Literal["mse"]


class AbsoluteError(Section):
    """The mean absolute error, for a `target`."""

    name: Literal["mae"]


class Huber(Section):
    """Squared up to `delta`, and straight beyond (Huber 1964), for a `target`."""

    name: Literal["huber"]
    delta: Positive = 1.0
    """Where the square ends, in the target's unit."""


class OwnLoss(Section):
    """Your own `package.module:function`: of outputs, labels and its own options, the loss of each row or its
    mean."""

    model_config = ConfigDict({**Section.model_config, "extra": "allow"})

    name: Annotated[Text, Field(json_schema_extra={"pattern": r"^[^\s:]+:[^\s:]+$"})]
    """The function; other keys are its options."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _tag(section: Any) -> str | None:
    named = section.get("name") if isinstance(section, dict) else getattr(section, "name", None)
    return None if named is None else OWN_LOSS if ":" in str(named) else str(named)


def _told_apart(schema: dict[str, Any]) -> None:
    tags = ["cross-entropy", "focal", "hinge", "dice", "mse", "mae", "huber", OWN_LOSS]
    mapping = {tag: branch["$ref"] for tag, branch in zip(tags, schema["oneOf"], strict=True)}
    schema["discriminator"] = {"propertyName": "name", "mapping": mapping}


Objective = Annotated[
    Annotated[CrossEntropy, Tag("cross-entropy")]
    | Annotated[Focal, Tag("focal")]
    | Annotated[Hinge, Tag("hinge")]
    | Annotated[Dice, Tag("dice")]
    | Annotated[SquaredError, Tag("mse")]
    | Annotated[AbsoluteError, Tag("mae")]
    | Annotated[Huber, Tag("huber")]
    | Annotated[OwnLoss, Tag(OWN_LOSS)],
    Discriminator(_tag),
    Field(json_schema_extra=_told_apart),
]

# Losses by what they are for.
FOR_CLASSES, FOR_TARGETS = ("cross-entropy", "focal", "hinge"), ("mse", "mae", "huber")
FOR_PIXELS = ("cross-entropy", "focal", "dice")
