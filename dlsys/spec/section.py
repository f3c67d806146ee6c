"""The base of every typed section of a file, and the small types that sections share."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic.functional_serializers import PlainSerializer

from dlsys.paths import NAME


class Section(BaseModel):
    """A part of a file: unknown keys and inexact types are errors, and nothing changes later."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=False,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _as_strict(cls, data: Any) -> Any:
        return {key: _strict(value) for key, value in data.items()} if isinstance(data, dict) else data


def _strict(value: Any) -> Any:
    """What strict types take for what YAML reads: a tuple for a list, since sections are frozen,
    and a whole number for `1e4`. (Strict floats take whole numbers too.)"""
    if isinstance(value, list):
        return tuple(_strict(item) for item in value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def show(value: Any) -> str:
    """A value as messages show it: short, in one line, in the words of YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return repr(value)


Int = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Bool = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, max_length=4096)]


class NamesFile:
    """Marks a field that names a file or folder to be read; relative paths start at the job file's folder."""


FileName = Annotated[Text, NamesFile()]

NAME_RULE = "1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"


def _name(value: str) -> str:
    if not NAME.fullmatch(value) or ".." in value:
        raise ValueError(f"{show(value)} is not a name: {NAME_RULE}, without '..'")
    return value


Name = Annotated[
    str,
    Field(strict=True, json_schema_extra={"pattern": f"^(?!.*\\.\\.){NAME.pattern}$"}),
    AfterValidator(_name),
]


class Interval(NamedTuple):
    """How often: a count of epochs, of steps (optimizer updates) or of seconds."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    unit: Literal["epoch", "step", "second"]

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' if self.count != 1 else ''}"


_INTERVAL = re.compile(r"\s*([0-9]{1,9})\s*(epoch|step)s?\s*")


def _interval(value: Any) -> Interval:
    if isinstance(value, Interval):
        return value
    found = _INTERVAL.fullmatch(value) if isinstance(value, str) else None
    if not found or int(found[1]) < 1:
        raise ValueError(f"must be an interval such as '1 epoch' or '200 steps', got {show(value)}")
    return Interval(int(found[1]), "epoch" if found[2] == "epoch" else "step")


Every = Annotated[
    Interval,
    PlainValidator(_interval),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*0*[1-9][0-9]*\s*(epoch|step)s?\s*$"}),
]

_SECONDS = {"second": 1.0, "s": 1.0, "minute": 60.0, "min": 60.0, "hour": 3600.0, "h": 3600.0}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:(second|minute|min|hour)s?|(s|h))\s*")


def _duration(value: Any) -> float:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    seconds = float(found[1]) * _SECONDS[found[2] or found[3]] if found else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
        raise ValueError(
            "must be a time above 0, in seconds or such as '90 s', '10 minutes' or '2 hours', "
            f"got {show(value)}"
        )
    return float(seconds)


def _interval_or_time(value: Any) -> Interval:
    try:
        return _interval(value)
    except ValueError:
        if not isinstance(value, str) or not (found := _DURATION.fullmatch(value)):
            raise ValueError(
                f"must be an interval such as '1 epoch', '200 steps' or '10 minutes', got {show(value)}"
            ) from None
    seconds = float(found[1]) * _SECONDS[found[2] or found[3]]
    if not 1 <= seconds < 1e9:
        raise ValueError(f"must be at least 1 second and less than 30 years, got {show(value)}")
    return Interval(round(seconds), "second")


EveryOrTime = Annotated[
    Interval,
    PlainValidator(_interval_or_time),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^(\s*0*[1-9][0-9]*\s*(epoch|step)s?\s*|{_DURATION.pattern})$",
        }
    ),
]

Seconds = Annotated[
    float,
    PlainValidator(_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e9},
                {"type": "string", "pattern": f"^{_DURATION.pattern}$"},
            ]
        }
    ),
]


class Condition(NamedTuple):
    """A bound on a metric, as `expect` and `stop.target` write it: `">= 0.97"`."""

    relation: Literal[">=", ">", "<=", "<", "=="]
    bound: float

    def holds(self, value: float) -> bool:
        """Whether the value meets the bound; a NaN never does."""
        return {
            ">=": value >= self.bound,
            ">": value > self.bound,
            "<=": value <= self.bound,
            "<": value < self.bound,
            "==": value == self.bound,
        }[self.relation]

    def __str__(self) -> str:
        short = f"{self.bound:g}"
        return f"{self.relation} {short if float(short) == self.bound else self.bound}"


_CONDITION = re.compile(r"\s*(>=|<=|==|>|<)\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*")


def _condition(value: Any) -> Condition:
    if isinstance(value, Condition):
        return value
    found = _CONDITION.fullmatch(value) if isinstance(value, str) else None
    if not found or not math.isfinite(float(found[2])):
        raise ValueError(f"must be a condition such as '>= 0.97' (or >, <=, <, ==), got {show(value)}")
    return Condition(found[1], float(found[2]))  # type: ignore[arg-type]


Bound = Annotated[
    Condition,
    PlainValidator(_condition),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_CONDITION.pattern}$"}),
]
