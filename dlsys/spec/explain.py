"""pydantic's errors in our own words: the place in the user's file, the rule, the value.

The rule is read from the model's JSON schema, so that what a message asks for is what the type
says, whichever of pydantic's hundred kinds of error was raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dlsys.registry import did_you_mean, known
from dlsys.spec.section import show
from dlsys.spec.yaml import Path

_Schema = dict[str, Any]


def explain(error: ValidationError, model: Any, *, owner: str = "") -> Iterator[tuple[Path, str]]:
    """Each error of a model's validation as (path in the file, sentence), one for each path.

    Args:
        error: what the model's validation raised.
        model: the model, or another type that pydantic knows.
        owner: what the model's keys belong to, for messages about unknown ones.
    """
    seen = set()
    root = _schema(model)
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]:
            continue  # pydantic does not count items that are wrong, and says so of each
        place = _Place(root, owner)
        for part in item["loc"]:
            place.enter(part)
        path, text = _sentence(place, item)
        if path not in seen:  # each branch of a union has an error of its own
            seen.add(path)
            yield path, text


@lru_cache(maxsize=64)
def _schema(model: Any) -> _Schema:
    return TypeAdapter(model).json_schema()


class _Place:
    """Follows pydantic's location through a schema.

    Attributes:
        path: the user's path; union tags and validators' names, which pydantic puts in, are not.
        schema: the schema at the place; empty below an unknown key.
        section: the schema of the mapping around the place.
        owner: what a chosen section is called (`adam`); of the mapping around the place.
    """

    def __init__(self, root: _Schema, owner: str) -> None:
        self._definitions: dict[str, _Schema] = root.get("$defs", {})
        self.path: Path = ()
        self.schema = self.section = self.inner(root)
        self.owner = self._tag = owner

    def enter(self, part: str | int) -> None:
        schema = self.schema
        if isinstance(part, str) and (variant := self._variants(schema).get(part)):
            self.schema, self._tag = variant, part
        elif isinstance(part, int) and schema.get("type") == "array":
            fixed = schema.get("prefixItems", ())
            self._step(part, fixed[part] if part < len(fixed) else schema.get("items", {}))
        elif schema.get("type") == "object":
            others = schema.get("additionalProperties")
            found = schema.get("properties", {}).get(part, others if isinstance(others, dict) else {})
            self.section, self.owner = schema, self._tag
            self._step(part, found)
        # Anything else is the name of a union's branch or of a validator.

    def _step(self, part: str | int, schema: _Schema) -> None:
        self.path = (*self.path, part)
        self.schema, self._tag = self.inner(schema), ""

    def inner(self, schema: _Schema) -> _Schema:
        """The schema without references, and without the `null` of an optional value."""
        if "$ref" in schema:
            schema = self._definitions[schema["$ref"].rsplit("/", 1)[-1]]
        branches = [branch for branch in schema.get("anyOf", []) if branch != {"type": "null"}]
        return self.inner(branches[0]) if len(branches) == 1 else schema

    def _variants(self, schema: _Schema) -> dict[str, _Schema]:
        mapping = schema.get("discriminator", {}).get("mapping", {})
        return {tag: self.inner({"$ref": target}) for tag, target in mapping.items()}

    def tags(self) -> list[str]:
        return sorted(self._variants(self.schema))

    def example(self, value: Any) -> str:
        """What to say where a section is chosen by its name, or a list of such: `{name: adam}`."""
        if "items" in self.schema:
            item = self._example(self.inner(self.schema["items"]), value)
            return item and f"[{item}]"
        return self._example(self.schema, value)

    def _example(self, schema: _Schema, value: Any) -> str:
        if "discriminator" not in schema:
            return ""
        key, tags = schema["discriminator"]["propertyName"], self._variants(schema)
        first = self.inner(schema["oneOf"][0])["properties"][key]
        plain = first["const"] if "const" in first else first["enum"][0]
        return f"{{{key}: {value if isinstance(value, str) and value in tags else plain}}}"


def _sentence(place: _Place, item: Any) -> tuple[Path, str]:
    path, kind, value = place.path, item["type"], item["input"]
    if kind == "extra_forbidden":
        return path, _unknown_key(place)
    if kind == "union_tag_not_found" and isinstance(value, dict):
        key = place.schema["discriminator"]["propertyName"]
        return (*path, key), f"is required and missing. Known: {', '.join(place.tags())}"
    if kind == "union_tag_invalid":
        key = place.schema["discriminator"]["propertyName"]
        return (*path, key), f"unknown {show(value[key])}.{known(str(value[key]), place.tags())}"
    if kind == "value_error":
        return path, str(item["ctx"]["error"])
    missing = kind == "missing"  # and then the value is the mapping around it
    rule = _rule(place.schema, place, None if missing else value)
    if example := place.example(None if missing else value):
        rule = f"{'a list' if example.startswith('[') else 'a mapping'}, say {example}"
    if missing:
        return path, f"is required and missing: {rule}"
    got = show(value)
    if isinstance(value, str) and rule.startswith(("a number", "a whole number", "true")):
        got = f"the text {got}"
    if rule.startswith("text") and isinstance(value, int | float):
        got += ": put it in quotes"
    near = did_you_mean(value, place.schema.get("enum", ())) if isinstance(value, str) else ""
    return path, f"must be {rule}, got {got}{'.' if near else ''}{near}"


def _unknown_key(place: _Place) -> str:
    key, keys = str(place.path[-1]), sorted(place.section.get("properties", ()))
    whose = f": {place.owner} has no {show(key)}" if place.owner else ""
    names = ", ".join(keys) or "none"
    return f"unknown key{whose}.{did_you_mean(key, keys)} Known: {names}"


def _rule(schema: _Schema, place: _Place, value: Any) -> str:
    """What a value must be, as the end of a sentence."""
    schema = place.inner(schema)
    if branches := schema.get("anyOf"):
        return ", or ".join(_rule(branch, place, value) for branch in branches)
    if "const" in schema:
        return show(schema["const"])
    if "enum" in schema:
        return " or ".join(show(choice) for choice in schema["enum"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    if kind == "string" and "examples" in schema:
        return f"text such as {' or '.join(map(show, schema['examples']))}"
    if kind == "string":
        # How long it may be is worth saying to one who wrote text.
        return "text" + (_length(schema, "character") if isinstance(value, str) else "")
    if kind == "array":
        return "a list" + _length(schema, "value")
    if kind == "object" and (keys := sorted(schema.get("properties", ()))):
        return f"a mapping of {', '.join(keys[:-1])}{' and ' * (len(keys) > 1)}{keys[-1]}"
    return {"boolean": "true or false", "null": "null"}.get(str(kind), "a mapping of keys to values")


def _bounds(schema: _Schema) -> str:
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "of at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {schema[key]:,}" for key, word in words.items() if key in schema]
    return f" {' and '.join(bounds)}" if bounds else ""


def _length(schema: _Schema, unit: str) -> str:
    low = schema.get("minLength", schema.get("minItems", 0))
    high = schema.get("maxLength", schema.get("maxItems"))
    if not low:
        return f" of at most {high:,} {unit}s" if high is not None else ""
    if low == high:
        return f" of {low} {unit}{'s' if low != 1 else ''}"
    if high is not None:
        return f" of {low} to {high} {unit}s"
    return f" of at least {low} {unit}{'s' if low != 1 else ''}"
