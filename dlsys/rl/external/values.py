"""Spaces and their elements as JSON: `docs/external-simulators.md` says how.

Whatever does not suit is a ValueError whose words say where it is and what would.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Space = spaces.Space[Any]
_KINDS = ("float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")


def space_of(told: Any, place: str) -> Space:
    """A space as a simulator tells it."""
    if not isinstance(told, dict):
        raise ValueError(f"{place} must be an object with a type, got {_short(told)}")
    kind = told.get("type")
    if not isinstance(kind, str) or kind not in _MAKERS:
        raise ValueError(f"{place}.type must be one of {', '.join(_MAKERS)}, got {_short(kind)}")
    make, needed, optional = _MAKERS[kind]
    if missing := [name for name in needed if name not in told]:
        raise ValueError(f"{place}: a {kind} needs {missing[0]}")
    if unknown := [name for name in told if name not in ("type", *needed, *optional)]:
        has = ", ".join((*needed, *optional))
        raise ValueError(f"{place}: a {kind} has no {unknown[0]}; it has {has}")
    try:
        return make({name: value for name, value in told.items() if name != "type"}, place)
    except (TypeError, AssertionError, OverflowError) as error:
        raise ValueError(f"{place}: is no {kind}: {error}") from error


def _box(told: dict[str, Any], place: str) -> Space:
    kind = told["dtype"]
    if kind not in _KINDS:
        raise ValueError(f"{place}.dtype must be one of {', '.join(_KINDS)}, got {_short(kind)}")
    shape = _sizes(told["shape"], f"{place}.shape", least=0)
    type_ = np.dtype(kind)
    bounds = []
    for name, none in (("low", -np.inf), ("high", np.inf)):
        given = np.array(_bounded(told[name], none), np.float64)
        if given.shape not in ((), shape):
            raise ValueError(f"{place}.{name} must be one number or of shape {shape}, got {given.shape}")
        if type_.kind in "iu":
            given = np.clip(given, *_ends(type_))
        bounds.append(np.broadcast_to(given, shape).astype(type_))
    if (bounds[0] > bounds[1]).any():
        raise ValueError(f"{place}: low is above high")
    return spaces.Box(bounds[0], bounds[1], shape, type_.type)


def _ends(kind: np.dtype[Any]) -> tuple[float, float]:
    """The least and the most of a type of whole numbers that a float64 has too."""
    ends = np.iinfo(kind)
    return float(ends.min), float(np.nextafter(2.0**63, 0) if kind.itemsize == 8 else ends.max)


def _bounded(told: Any, none: float) -> Any:
    """Bounds with an infinity for null: JSON has none."""
    if isinstance(told, list):
        return [_bounded(one, none) for one in told]
    return none if told is None else told


def _discrete(told: dict[str, Any], place: str) -> Space:
    return spaces.Discrete(
        _whole(told["n"], f"{place}.n", 1), start=_whole(told.get("start", 0), f"{place}.start")
    )


def _multi_discrete(told: dict[str, Any], place: str) -> Space:
    counts = _numbers(told["nvec"], np.dtype(np.int64), None, f"{place}.nvec")
    if counts.size == 0 or (counts < 1).any():
        raise ValueError(f"{place}.nvec must be counts above 0, got {_short(told['nvec'])}")
    return spaces.MultiDiscrete(counts)


def _multi_binary(told: dict[str, Any], place: str) -> Space:
    count = told["n"]
    if isinstance(count, list):
        return spaces.MultiBinary(_sizes(count, f"{place}.n", least=1))
    return spaces.MultiBinary(_whole(count, f"{place}.n", 1))


def _dict(told: dict[str, Any], place: str) -> Space:
    parts = told["spaces"]
    if not isinstance(parts, dict) or not parts:
        raise ValueError(f"{place}.spaces must be an object with a space for each name, got {_short(parts)}")
    return spaces.Dict({name: space_of(part, f"{place}.spaces.{name}") for name, part in parts.items()})


def _tuple(told: dict[str, Any], place: str) -> Space:
    parts = told["spaces"]
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"{place}.spaces must be a list of spaces, got {_short(parts)}")
    return spaces.Tuple([space_of(part, f"{place}.spaces.{index}") for index, part in enumerate(parts)])


_Maker = Callable[[dict[str, Any], str], Space]
_MAKERS: dict[str, tuple[_Maker, tuple[str, ...], tuple[str, ...]]] = {
    "Box": (_box, ("low", "high", "shape", "dtype"), ()),
    "Discrete": (_discrete, ("n",), ("start",)),
    "MultiDiscrete": (_multi_discrete, ("nvec",), ()),
    "MultiBinary": (_multi_binary, ("n",), ()),
    "Dict": (_dict, ("spaces",), ()),
    "Tuple": (_tuple, ("spaces",), ()),
}


def value_of(space: Space, told: Any, place: str) -> Any:
    """An element of a space, as a simulator tells it."""
    if isinstance(space, spaces.Dict):
        names = set(space.spaces)
        if not isinstance(told, dict) or told.keys() != names:
            got = f"the names {', '.join(told) or 'none'}" if isinstance(told, dict) else _short(told)
            raise ValueError(f"{place} must be an object with {', '.join(sorted(names))}, got {got}")
        return {name: value_of(part, told[name], f"{place}.{name}") for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(told, list) or len(told) != len(space.spaces):
            raise ValueError(f"{place} must be a list of {len(space.spaces)}, got {_short(told)}")
        pairs = zip(space.spaces, told, strict=True)
        return tuple(value_of(part, one, f"{place}.{index}") for index, (part, one) in enumerate(pairs))
    if isinstance(space, spaces.Discrete):
        number, first = _whole(told, place), int(space.start)
        if not first <= number < first + int(space.n):
            raise ValueError(f"{place} must be {first} to {first + int(space.n) - 1}, got {number}")
        return number
    kind: Any = space.dtype
    found = _numbers(told, np.dtype(kind), space.shape or (), place)
    if not isinstance(space, spaces.Box) and not space.contains(found):
        raise ValueError(f"{place} must be one of {space}, got {_short(told)}")
    return found


def _numbers(told: Any, kind: np.dtype[Any], shape: tuple[int, ...] | None, place: str) -> NDArray[Any]:
    """Numbers in lists, or in base64 of their bytes; `shape` None is any that lists have."""
    if isinstance(told, str) and shape is not None:
        return _unpacked(told, kind, shape, place)
    try:
        given = np.array(told)
        if given.size and given.dtype.kind not in ("iuf" if kind.kind == "f" else "iu"):
            what = "numbers" if kind.kind == "f" else "whole numbers"
            raise ValueError(f"must be {what}, got {_short(told)}")
        with np.errstate(over="ignore"):
            found = given.astype(kind)
        if kind.kind != "f" and (found != given).any():
            raise ValueError(f"has numbers that are no {kind.name}")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{place} {error}") from None
    if shape is not None and found.shape != shape:
        raise ValueError(f"{place} is of shape {found.shape}, and its space says {shape}")
    return found


def _unpacked(told: str, kind: np.dtype[Any], shape: tuple[int, ...], place: str) -> NDArray[Any]:
    try:
        raw = base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{place} is no base64: {error}") from None
    wanted = int(np.prod(shape)) * kind.itemsize
    if len(raw) != wanted:
        raise ValueError(
            f"{place} has {len(raw)} bytes, and {kind.name} of shape {shape} are {wanted}: little-endian, "
            "the last axis the fastest"
        )
    return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind).reshape(shape)


def json_of(space: Space, value: Any) -> Any:
    """An element of a space for a simulator: numbers, in lists where they are several."""
    if isinstance(space, spaces.Dict):
        return {name: json_of(part, value[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [json_of(part, one) for part, one in zip(space.spaces, value, strict=True)]
    return np.asarray(value).tolist()


def legal(told: Mapping[str, Any], mask: str) -> dict[str, Any]:
    """What an `info` tells, the mask of legal actions as an array."""
    return {name: np.array(value, np.int8) if name == mask else value for name, value in told.items()}


def _whole(told: Any, place: str, least: int | None = None) -> int:
    whole = isinstance(told, int) and not isinstance(told, bool)
    if not whole or not -(2**63) <= told < 2**63 or (least is not None and told < least):
        what = "a whole number" if least is None else f"a whole number, {least} or more"
        raise ValueError(f"{place} must be {what}, got {_short(told)}")
    return int(told)


def _sizes(told: Any, place: str, least: int) -> tuple[int, ...]:
    if not isinstance(told, list) or len(told) < least:
        raise ValueError(f"{place} must be a list of sizes, got {_short(told)}")
    return tuple(_whole(one, place, 1) for one in told)


def _short(told: Any) -> str:
    text = repr(told)
    return text if len(text) <= 60 else f"{text[:59]}…"
