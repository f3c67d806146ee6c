"""Values that a JSON Schema allows, mostly ones that people write."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def values(node: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What may stand where `node` is the schema.

    Args:
        node: the schema of one value.
        root: the whole schema, with the definitions that `node` refers to.
    """
    if "$ref" in node:
        return values(root["$defs"][node["$ref"].rsplit("/", 1)[-1]], root)
    for key in ("anyOf", "oneOf"):
        if key in node:
            return st.one_of([values(branch, root) for branch in node[key]])
    if "const" in node:
        return st.just(node["const"])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    kind = node["type"]
    if kind == "object":
        properties, required = node.get("properties", {}), node.get("required", ())
        if not properties:
            return st.just({})
        return st.fixed_dictionaries(
            {key: values(properties[key], root) for key in required},
            optional={key: values(field, root) for key, field in properties.items() if key not in required},
        )
    if kind == "array":
        fixed = [values(item, root) for item in node.get("prefixItems", ())]
        return st.tuples(*fixed).map(list) if fixed else _lists(node, root)
    if kind == "integer":
        return st.integers(node.get("minimum", 0), min(node.get("maximum", 10**9), 10**9))
    if kind == "number":
        low, high = node.get("exclusiveMinimum", node.get("minimum", 0)), node.get("maximum")
        return st.floats(
            low,
            node.get("exclusiveMaximum", high if high is not None else 1e12),
            exclude_min="exclusiveMinimum" in node,
            exclude_max="exclusiveMaximum" in node,
        )
    if kind == "string" and "pattern" in node:
        return st.from_regex(node["pattern"], fullmatch=True)
    return {
        "boolean": st.booleans(),
        "null": st.none(),
        "string": st.sampled_from(["1e-4", "no", "a b", "0x1"]),
    }[kind]


def _lists(node: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values(node["items"], root), min_size=node.get("minItems", 0), max_size=3)
