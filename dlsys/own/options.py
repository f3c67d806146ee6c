"""Options for a user's function, held against its signature."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NotRequired, Required

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticInvalidForJsonSchema
from typing_extensions import TypedDict

from dlsys.errors import UsageError
from dlsys.spec.explain import explain

_Parameter = inspect.Parameter
_NAMED = (_Parameter.POSITIONAL_OR_KEYWORD, _Parameter.KEYWORD_ONLY)


def arguments(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    *,
    owner: str,
    field: str,
    besides: Collection[str] = (),
) -> dict[str, Any]:
    """The keyword arguments that a job's options are for a function.

    A parameter's annotation is its type, as strict as the other sections of a file: `5` is no text and `"5"`
    no number; what no file can write (a tensor, say) is left to the function.

    Args:
        function: a function or a class.
        given: the options, as JSON has them.
        owner: what messages call the function.
        field: where the options stand in the file.
        besides: parameters that the caller fills.

    Raises:
        UsageError: names every option that is unknown, missing or of another type.
    """
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return dict(given)  # written in C, and says nothing about its arguments
    options = _typed_options(function, parameters, besides)
    try:
        found: dict[str, Any] = TypeAdapter(options).validate_json(json.dumps(dict(given)), strict=True)
    except ValidationError as error:
        wrong = explain(error, options, owner=owner)
        raise UsageError(
            "\n".join(f"{'.'.join([field, *map(str, path)])}: {text}" for path, text in wrong)
        ) from error
    return found


def _typed_options(
    function: Callable[..., Any], parameters: Mapping[str, _Parameter], besides: Collection[str]
) -> Any:
    hints = _hints(function)
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in besides or parameter.kind not in _NAMED:
            continue
        kind = _typed(hints.get(name, Any))
        if parameter.default is _Parameter.empty:
            fields[name] = Required[kind]
        else:  # `size: int = None` is common, and means that None may be said
            fields[name] = NotRequired[kind | None if parameter.default is None and kind is not Any else kind]
    others = any(parameter.kind is _Parameter.VAR_KEYWORD for parameter in parameters.values())
    options: Any = TypedDict("Options", fields, total=False)  # type: ignore[misc]
    return with_config(ConfigDict(extra="allow" if others else "forbid"))(options)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    place = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    try:
        return typing.get_type_hints(place)
    except Exception:  # of names that are not there at run time, and of what is no type
        return {}


def _typed(kind: Any) -> Any:
    """The type, or Any where no file can write its values."""
    try:
        TypeAdapter(kind).json_schema()
    except (PydanticUserError, PydanticInvalidForJsonSchema, TypeError):
        return Any
    return kind
