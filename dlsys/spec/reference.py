"""The reference of all files, from the sections themselves: every field, its rule and its default.

python -m dlsys.spec.reference > docs/spec.md
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from dlsys.spec.cluster.providers import PROVIDERS
from dlsys.spec.rl.job import RLJob
from dlsys.spec.script.job import ScriptJob
from dlsys.spec.section import Interval, Section
from dlsys.spec.sweep import space
from dlsys.spec.sweep.entries import ENTRIES
from dlsys.spec.sweep.sweep import Sweep
from dlsys.spec.train.job import TrainJob

_TAGS = ("name", "source", "provider")
_HEAD = """\
# The job file

Made from the typed sections by `python -m dlsys.spec.reference`: edit those, not this file.
`dlsys check FILE` holds a file against all of this and against the rules between fields;
`dlsys schema` prints it for editors.

- An *interval* is `1 epoch` or `200 steps`. A step is one update of the weights.
- A *time* is in seconds, or such as `90 s`, `10 minutes`, `2 hours`.
- A *condition* is a bound in quotes: `">= 0.97"`; also `>`, `<=`, `<` and `==`.
- Metrics are named `split/metric`: `train/loss`, `valid/accuracy`, `test/loss`.
- A section with a `name` (or, for `data`, a `source`) takes the keys listed under that name.

[An agent](#the-agent-file), [a script](#the-script-file), [a sweep over a job](#the-sweep-file) and
[a cluster](#the-cluster-file) have files of their own.
"""
_RL_HEAD = """\
# The agent file

Reinforcement learning: `kind: rl`. How agents are trained is in [rl.md](rl.md). A *step* is one step of
the environment here, and an *epoch* is one iteration of the algorithm, in which it samples and learns
once. Metrics are `train/return` (the last 100 training episodes), and of episodes that are never learned from
`valid/return`, `valid/return_std`, `valid/return_min`, `valid/length`, what `environment.metrics` names, and
the same of `test`. `checkpoint`, `failure`, `tracking` and `notify` are as in a job, but for what only
workers that train together have: `failure.elastic` and `tracking.log_every`.
"""
_SCRIPT_HEAD = """\
# The script file

A program that knows nothing of dlsys: `kind: script`. How it is run is in [scripts.md](scripts.md);
`dlsys run -- python train.py` says the same without a file. `notify` and `tracking` are as in a job, but for
`tracking.log_every`: when it logs is the script's own.
"""
_SWEEP_HEAD = """\
# The sweep file

Many trials of one job, to find its best settings; how they run is in [sweeps.md](sweeps.md).
`dlsys check` builds the job with both ends of every range, every option of every choice, a few draws
and every given point, so that a sweep that it lets pass has sound trials.

Trials are compared on the validation set. The test set is touched once, by the best trial, at the
end; what the job expects (`expect`) is held against that trial and no other.

On the command line, what follows `space.` or `overrides.` is one key:
`dlsys check tune/lenet5_asha 'space.optimizer.lr={log_uniform: [1e-3, 1]}' overrides.seed=1`.
"""
_CLUSTER_HEAD = """\
# The cluster file

Machines, and how to get them: `kind: cluster`. `provider` decides which keys there are; each has a
chapter. `dlsys check` needs no provider and no machine.

The first group of `nodes` is the head: one machine with Ray's control plane and the queue of jobs. It
trains like the others, as far as it has CPUs or GPUs to give.

On the command line, a number is an index into a list: `dlsys check cluster/two_nodes nodes.1.count=3`.
"""


def reference() -> str:
    """All of docs/spec.md."""
    lines = [_HEAD, "## `kind: train`\n", *_table(TrainJob), *_chapters(TrainJob)]
    lines.append(
        "## `model`\n\nThe options of the workload: `dlsys zoo show NAME` tells them. Where it has presets, "
        '`preset: "20"` sets\nall that the preset names, and other keys go over it.\n'
    )
    lines += [_RL_HEAD, "## `kind: rl`\n", *_table(RLJob)]
    lines += _chapters(
        RLJob, without=("checkpoint", "failure", "tracking", "notify")
    )  # as a job's, told above
    lines += [_SCRIPT_HEAD, "## `kind: script`\n", *_table(ScriptJob)]
    lines += _chapters(ScriptJob, without=("tracking", "notify"))  # a job's, told above
    lines += [_SWEEP_HEAD, "## `kind: sweep`\n", *_table(Sweep)]
    lines += ["## `space`\n", inspect.cleandoc(space.__doc__ or "").partition("\n\n")[2] + "\n"]
    for word, kind in ENTRIES.items():
        lines += [f"### `{word}`\n", f"{_about(kind)}\n", *_table(kind)]
    lines += _chapters(Sweep, without=("tracking", "notify"))  # a job's, told above
    lines.append(_CLUSTER_HEAD)
    for provider in dict.fromkeys(PROVIDERS.values()):
        (node,) = _sections(provider.model_fields["nodes"])
        lines += [f"## {_titles(provider, 'provider')}\n", f"{_about(provider)}\n"]
        lines += _table(provider, without="provider")
        lines += [f"{_about(node)} Each of `nodes`:\n", *_table(node)]
    return "\n".join(lines)


def _chapters(model: type[Section], *, without: tuple[str, ...] = ()) -> list[str]:
    """A chapter for each field that holds sections."""
    lines = []
    for field, info in model.model_fields.items():
        sections = [] if field in without else list(_sections(info))
        if sections:
            lines += [f"## `{field}`\n", f"{info.description}\n"]
        for section in sections:
            if tag := _tag(section):
                lines.append(f"### {_titles(section, tag)}\n")
                lines.append(f"{_about(section)}\n")
            lines += _table(section, without=tag)
    return lines


def _table(section: type[Section], *, without: str = "") -> list[str]:
    schema = section.model_json_schema()
    rows = []
    for name, info in section.model_fields.items():
        if name != without:
            rule = _rule(schema["properties"][name], info)
            cells = (f"`{name}`", rule, _default(info), " ".join(str(info.description).split()))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if not rows:
        return ["No keys.\n"]
    return ["| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]


def _sections(info: FieldInfo) -> Iterator[type[Section]]:
    """The sections that may stand in a field, in the order of the listing."""
    waiting: list[Any] = [info.annotation]
    while waiting:
        kind = waiting.pop(0)
        if inspect.isclass(kind) and issubclass(kind, Section):
            yield kind
        waiting = [*get_args(kind), *waiting]


def _tag(section: type[Section]) -> str:
    """The key that chooses the section among others; empty for one that stands alone."""
    fields = section.model_fields.items()
    return next((key for key, info in fields if get_origin(info.annotation) is Literal and key in _TAGS), "")


def _titles(section: type[Section], tag: str) -> str:
    return ", ".join(f"`{name}`" for name in get_args(section.model_fields[tag].annotation))


def _about(section: type[Section]) -> str:
    return inspect.cleandoc(section.__doc__ or "")


def _rule(schema: dict[str, Any], info: FieldInfo) -> str:
    if any(_sections(info)):
        choices = [f"`{choice}`" for branch in schema.get("anyOf", ()) for choice in branch.get("enum", ())]
        section = "a list of sections" if schema.get("type") == "array" else "a section"
        return " or ".join([", ".join(choices), section]) if choices else section
    if info.annotation is Interval:
        if "hour" in schema["pattern"]:
            return "an interval or a time"
        return "an interval" if "step" in schema["pattern"] else "an interval in epochs"
    return _words(schema)


def _words(schema: dict[str, Any]) -> str:
    """A field's JSON schema as a few words; `null` is what leaving the key out means."""
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    if {branch.get("type") for branch in branches} == {"number", "string"}:
        return "a time"
    if branches:
        return " or ".join(map(_words, branches))
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else ()):
        return ", ".join(f"`{choice}`" for choice in choices)
    if examples := schema.get("examples"):
        return "text such as " + " or ".join(f"`{example}`" for example in examples)
    kind = schema["type"]
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    if kind == "object":
        others = schema.get("additionalProperties", True)
        return "conditions by metric" if others is not True and "pattern" in others else "a mapping"
    if kind == "array" and "minItems" in schema and schema["minItems"] == schema.get("maxItems"):
        return f"a list of {schema['minItems']}"
    return {"boolean": "true or false", "string": "text", "array": "a list"}[kind]


def _bounds(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]:,}" for key, sign in signs.items() if key in schema]
    return f" {' and '.join(found)}" if found else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Section):
        tag = _tag(type(value))
        return f"`{getattr(value, tag)}`" if tag else ""
    if value is None or value in ((), {}):
        return ""
    return f"`{value}`" if isinstance(value, str | Interval) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
