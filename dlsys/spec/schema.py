"""The JSON Schema of each kind of file, for editors: completion, hover texts, and errors as one types.

It knows every type and every catalogue workload's options, but not the rules between fields, nor
what a sweep makes of its job: `dlsys check` has the last word.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.cluster.providers import PROVIDERS
from dlsys.spec.libraries import LIBRARIES
from dlsys.spec.rl.job import RLJob
from dlsys.spec.script.job import ScriptJob
from dlsys.spec.section import Condition, Interval, Section
from dlsys.spec.sweep.entries import ENTRIES
from dlsys.spec.sweep.sweep import Sweep
from dlsys.spec.train.job import TrainJob

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, Interval | Condition):
            return str(dft)
        return dft.model_dump(mode="json") if isinstance(dft, Section) else super().encode_default(dft)

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory: Any = schema.get("default_factory")
        return factory() if factory else super().get_default_value(schema)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `kind: train`."""
    job = _of_model(TrainJob)
    _add_workloads(job)
    return {"$schema": _DIALECT, **job, "title": "A dlsys job file"}


def rl_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `kind: rl`."""
    return {"$schema": _DIALECT, **_of_model(RLJob), "title": "A dlsys agent file"}


def script_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `kind: script`."""
    return {"$schema": _DIALECT, **_of_model(ScriptJob), "title": "A dlsys script file"}


def sweep_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `kind: sweep`."""
    sweep = _of_model(Sweep)
    entries = [kind.model_json_schema(schema_generator=_Generator) for kind in ENTRIES.values()]
    sweep["$defs"] |= {entry["title"]: entry for entry in entries}
    choices = [{"$ref": f"#/$defs/{entry['title']}"} for entry in entries]
    sweep["properties"]["space"]["additionalProperties"] = {"anyOf": choices}
    return {"$schema": _DIALECT, **sweep, "title": "A dlsys sweep file"}


def cluster_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `kind: cluster`: a branch for each provider."""
    union: Any = reduce(or_, PROVIDERS.values())
    cluster = _of_model(Annotated[union, Field(discriminator="provider")])
    return {"$schema": _DIALECT, **cluster, "title": "A dlsys cluster file"}


def _of_model(model: Any) -> dict[str, Any]:
    made = TypeAdapter(model).json_schema(schema_generator=_Generator)
    for union in _unions(made):
        _require_tags(made["$defs"], union)
    return made


def _unions(node: Any) -> list[dict[str, Any]]:
    """Every schema in which a tag chooses the section."""
    if isinstance(node, list):
        return [union for item in node for union in _unions(item)]
    if not isinstance(node, dict):
        return []
    return [node] * ("discriminator" in node) + [union for item in node.values() for union in _unions(item)]


def _require_tags(definitions: dict[str, Any], union: dict[str, Any]) -> None:
    tag = union["discriminator"]["propertyName"]
    for target in union["discriminator"]["mapping"].values():
        section = definitions[target.rsplit("/", 1)[-1]]
        section["required"] = sorted({tag, *section.get("required", ())})
        # A tag means what its section is: editors show this beside the completion.
        section["properties"][tag]["description"] = section["description"]


def _add_workloads(job: dict[str, Any]) -> None:
    """Names of the catalogue's workloads, and the options of whichever one a file names."""
    names = WORKLOADS.names()
    own = {"type": "string", "pattern": r"^[^\s:]+:[^\s:]+$"}
    built = {"type": "string", "pattern": rf"^({'|'.join(LIBRARIES)})/[^\s:]+$"}
    workload = job["properties"]["workload"]
    job["properties"]["workload"] = {
        "title": workload["title"],
        "description": workload["description"],
        "anyOf": [{"enum": names}, built, own],
    }
    job["allOf"] = []
    for name in names:
        card = WORKLOADS.load(name)
        options = card.options.model_json_schema(
            schema_generator=_Generator, ref_template=f"#/$defs/{name}/$defs/{{model}}"
        )
        if card.presets:
            # YAML reads a name of digits alone as a number.
            numbers = [int(preset) for preset in card.presets if preset.isdecimal()]
            options["properties"]["preset"] = {
                "description": "A named size, over whose options these go.",
                "enum": [*card.presets, *numbers],
            }
        job["$defs"][name] = options
        job["allOf"].append(
            {
                "if": {"properties": {"workload": {"const": name}}, "required": ["workload"]},
                "then": {"properties": {"model": {"$ref": f"#/$defs/{name}"}}},
            }
        )
