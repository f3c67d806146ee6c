"""The entries of a sweep's `space:`: ranges, and choices among options."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from dlsys.spec.section import Bool, Count, Int, Number, Positive, Section, show
from dlsys.spec.yaml import Path

_MOST_STEPS = 1_000_000
# Far beyond, a number of the unit interval no longer tells two neighbours apart.
_Whole = Annotated[Int, Field(ge=-(10**12), le=10**12)]


class Range(Section):
    """An entry whose values lie on a line: `at` and `where` map it to the unit interval and back."""

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """How many values there are, evenly spaced; None: a continuum, or evenly only on a log scale."""

    @abstractmethod
    def at(self, u: float) -> float:
        """The value at u in [0, 1]; a u drawn evenly draws the value."""

    @abstractmethod
    def where(self, value: float) -> float:
        """The middle of the u that lead to a value."""

    @abstractmethod
    def broken(self) -> Iterator[tuple[Path, str]]:
        """What is wrong between the fields, by the place in the entry."""

    def holds(self, value: Any) -> bool:
        """Whether this is one of the range's values."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.ends
        near = 1e-9 * (high - low)
        return low <= value <= high and math.isclose(self.at(self.where(value)), value, abs_tol=near)

    def __str__(self) -> str:
        return ", ".join(
            f"{word} {list(value) if isinstance(value, tuple) else show(value)}"
            for word, value in self.model_dump(exclude_defaults=True).items()
        )


class Uniform(Range):
    """A number, each as likely as the others."""

    uniform: tuple[Number, Number]
    """The lowest and the highest value."""
    step: Positive | None = None
    """Takes only the lowest value plus whole multiples of this."""

    @property
    def ends(self) -> tuple[float, float]:
        return self.uniform

    @property
    def size(self) -> int | None:
        if self.step is None:
            return None
        low, high = self.uniform
        return int((high - low) / self.step + 1e-9) + 1  # 1e-9: 0.3 / 0.1 is a little less than 3

    def at(self, u: float) -> float:
        low, high = self.uniform
        if self.step is None or self.size is None:
            return _tidy(low * (1 - u) + high * u, low, high)
        return _tidy(low + min(int(u * self.size), self.size - 1) * self.step, low, high)

    def where(self, value: float) -> float:
        low, high = self.uniform
        if self.step is None or self.size is None:
            return (value - low) / (high - low)
        return (round((value - low) / self.step) + 0.5) / self.size

    def broken(self) -> Iterator[tuple[Path, str]]:
        yield from _rises("uniform", self.uniform)
        yield from _steps_fit(self.step, self.uniform)


class LogUniform(Range):
    """A number above 0, each order of magnitude as likely as the others."""

    log_uniform: tuple[Number, Number]
    """The lowest and the highest value."""

    @property
    def ends(self) -> tuple[float, float]:
        return self.log_uniform

    @property
    def size(self) -> None:
        return None

    def at(self, u: float) -> float:
        low, high = self.log_uniform
        return _tidy(math.exp(math.log(low) * (1 - u) + math.log(high) * u), low, high)

    def where(self, value: float) -> float:
        low, high = map(math.log, self.log_uniform)
        return (math.log(value) - low) / (high - low)

    def broken(self) -> Iterator[tuple[Path, str]]:
        yield from _rises("log_uniform", self.log_uniform)
        low, high = self.log_uniform
        if 0 < low < high and math.log(low) == math.log(high):
            yield (
                ("log_uniform",),
                "its ends are one number on a log scale; that one belongs under overrides",
            )
        for index, end in enumerate(self.log_uniform):
            if end <= 0:
                yield ("log_uniform", index), f"must be above 0 on a log scale, got {end:g}"


class Whole(Range):
    """A whole number."""

    int: tuple[_Whole, _Whole]
    """The lowest and the highest value."""
    step: Count | None = None
    """Takes only the lowest value plus whole multiples of this."""
    log: Bool = False
    """Makes each order of magnitude as likely as the others, not each number."""

    @property
    def ends(self) -> tuple[float, float]:
        return self.int

    @property
    def size(self) -> Count | None:
        low, high = self.int
        return None if self.log else (high - low) // (self.step or 1) + 1

    def at(self, u: float) -> float:
        low, high = self.int
        if self.size is None:
            # From half a unit below to half a unit above, so that the ends get their full share.
            first, last = math.log(low - 0.5), math.log(high + 0.5)
            return min(max(round(math.exp(first * (1 - u) + last * u)), low), high)
        return low + min(math.floor(u * self.size), self.size - 1) * (self.step or 1)

    def where(self, value: float) -> float:
        low, high = self.int
        if self.size is None:
            first, last = math.log(low - 0.5), math.log(high + 0.5)
            return (math.log(value) - first) / (last - first)
        return ((value - low) // (self.step or 1) + 0.5) / self.size

    def broken(self) -> Iterator[tuple[Path, str]]:
        yield from _rises("int", self.int)
        yield from _steps_fit(self.step, self.int)
        if self.log and self.int[0] < 1:
            yield ("int", 0), f"must be at least 1 on a log scale, got {self.int[0]}"
        if self.log and self.step:
            yield ("step",), "means something only without log"


class Choice(Section):
    """One of some options, each as likely as the others."""

    choice: Annotated[tuple[Any, ...], Field(min_length=1, max_length=256)]
    """Plain values, or mappings and lists that may have further entries inside."""

    def __str__(self) -> str:
        plain = all(option is None or isinstance(option, str | int | float) for option in self.choice)
        return f"choice [{', '.join(map(show, self.choice))}]" if plain else "its choices"


ENTRIES: dict[str, type[Range] | type[Choice]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int": Whole,
    "choice": Choice,
}


def _tidy(value: float, low: float, high: float) -> float:
    """12 digits are all that anyone needs, and spare the reader 0.30000000000000004."""
    return min(max(float(f"{value:.12g}"), low), high)


def _rises(word: str, ends: tuple[float, float]) -> Iterator[tuple[Path, str]]:
    low, high = ends
    if low == high:
        yield (word,), f"is empty: both ends are {low:g}; one fixed value belongs under overrides"
    elif low > high:
        yield (word,), f"must rise from its first end to its second, got {low:g} and {high:g}"


def _steps_fit(step: float | None, ends: tuple[float, float]) -> Iterator[tuple[Path, str]]:
    low, high = ends
    if step is None or low >= high:
        return
    if step > high - low:
        yield ("step",), f"{step:g} is larger than the whole range, {high - low:g}"
    elif (high - low) / step > _MOST_STEPS:
        yield ("step",), f"makes more than {_MOST_STEPS:,} values: leave it out"
