"""What `load_any` makes of a cluster. Wrong clusters are in `bad/cluster_*`."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from spec_values import values

from dlsys.errors import SpecError, UsageError
from dlsys.spec import Cluster, LoadedCluster, load, load_any, load_cluster, yaml
from dlsys.spec.cluster.providers import PROVIDERS, Local, Slurm
from dlsys.spec.load import check_cluster
from dlsys.spec.schema import cluster_schema

ROOT = Path(__file__).parents[2]
READY = sorted(ROOT.glob("cluster/*.yaml"))
SCHEMA = cluster_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

# The least of each provider.
FILES: dict[str, dict[str, Any]] = {
    "local": {"nodes": [{"name": "head", "cpus": 1}]},
    "ssh": {"storage": "/mnt/runs", "nodes": [{"name": "head", "hosts": ["lab-1"]}]},
    "aws": {"region": "us-west-2", "storage": "s3://b/x", "nodes": [{"name": "head", "machine": "m5.large"}]},
    "gcp": {
        "region": "us-central1",
        "zone": "us-central1-a",
        "project": "mine",
        "storage": "gs://b/x",
        "nodes": [{"name": "head", "machine": "n2-standard-4"}],
    },
    "azure": {
        "region": "westeurope",
        "project": "mine",
        "storage": "/mnt/runs",
        "nodes": [{"name": "head", "machine": "Standard_D4s_v5"}],
    },
    "kuberay": {
        "image": "dlsys",
        "storage": "s3://b/x",
        "nodes": [{"name": "head", "cpus": 2, "memory": "8Gi"}],
    },
    "slurm": {"storage": "/mnt/runs", "time": "4:00:00", "nodes": [{"name": "gpu", "cpus": 8}]},
}


def data_of(provider: str) -> dict[str, Any]:
    return {"kind": "cluster", "name": "good", "provider": provider} | copy.deepcopy(FILES[provider])


def cluster_of(data: Any) -> Cluster:
    return check_cluster(yaml.read(yaml.dump(data), "cluster.yaml"))


def test_there_is_a_file_for_every_provider() -> None:
    assert FILES.keys() == PROVIDERS.keys()


def test_a_loaded_cluster_has_its_defaults_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.dump(data_of("local")))
    loaded = load_any(path, ["nodes.0.cpus=3"])
    assert isinstance(loaded, LoadedCluster)
    assert loaded == load_cluster(path, ["nodes.0.cpus=3"])
    cluster = loaded.cluster
    assert isinstance(cluster, Local)
    (head,) = cluster.nodes
    assert (head.cpus, head.gpus, head.count, head.price) == (3, 0, 1, None)
    assert (cluster.storage, cluster.currency, cluster.head_state) == (None, "USD", "disk")
    assert (loaded.path, loaded.overrides) == (path.resolve(), ("nodes.0.cpus=3",))
    assert loaded.source == path.read_text()


def test_a_cluster_is_no_job_and_a_job_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"laptop.yaml: is a cluster; a job is wanted here"):
        load(ROOT / "cluster" / "laptop.yaml")
    with pytest.raises(UsageError, match="is no cluster file"):
        load_cluster(ROOT / "jobs" / "quickstart.yaml")


@pytest.mark.parametrize("time", ["90", "4:00", "4:00:00", "1-12", "1-12:30", "1-12:30:00", "100:00:00"])
def test_times_are_slurms(time: str) -> None:
    cluster = cluster_of(data_of("slurm") | {"time": time})
    assert isinstance(cluster, Slurm)
    assert cluster.time == time


@pytest.mark.parametrize("time", ["", "4h", "4:0", ":00", "1-", "1-12:30:00:00", "4:00:00 ", "4:00\n"])
def test_other_times_are_refused(time: str) -> None:
    with pytest.raises(SpecError, match="time: must be text such as '4:00:00'"):
        cluster_of(data_of("slurm") | {"time": time})


def test_groups_of_one_cluster_add_up() -> None:
    data = data_of("aws")
    data["nodes"] += [{"name": "cpu", "machine": "m5.large", "count": 0, "max": 0}]
    data["nodes"] += [{"name": "gpu", "machine": "g5.xlarge", "count": 0, "max": 4}]
    assert [node.max for node in cluster_of(data).nodes] == [None, 0, 4]


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_what_is_shown_is_the_same_cluster(path: Path) -> None:
    cluster = load_cluster(path).cluster
    assert cluster_of(cluster.model_dump(mode="json")) == cluster
    VALIDATOR.validate(yaml.read(path.read_bytes(), path.name).data)


def clusters(provider: str) -> st.SearchStrategy[dict[str, Any]]:
    """Files that the schema allows, with what the rules between fields ask for."""
    branch = SCHEMA["discriminator"]["mapping"][provider].rsplit("/", 1)[-1]
    properties = SCHEMA["$defs"][branch]["properties"]
    free = {
        key: values(field, SCHEMA)
        for key, field in properties.items()
        if key not in ("kind", "provider", "nodes", "storage", "region", "zone", "project", "claim")
    }
    more = st.lists(values(properties["nodes"]["items"], SCHEMA), max_size=0 if provider == "slurm" else 3)
    least = data_of(provider)
    return st.builds(
        lambda given, nodes: least | given | {"nodes": least["nodes"] + nodes},
        st.fixed_dictionaries({}, optional=free),
        more,
    )


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(st.sampled_from(sorted(FILES)).flatmap(clusters))
def test_generated_clusters_round_trip(data: dict[str, Any]) -> None:
    VALIDATOR.validate(data)
    try:
        cluster = cluster_of(data)
    except SpecError:
        assume(False)  # a rule between fields
        raise
    again = cluster_of(cluster.model_dump(mode="json"))
    assert again == cluster
    assert again.model_dump(mode="json") == cluster.model_dump(mode="json")


def test_the_schema_is_valid_and_takes_the_least_of_each() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for provider in FILES:
        VALIDATOR.validate(data_of(provider))
        cluster_of(data_of(provider))


@pytest.mark.parametrize("provider", FILES)
@pytest.mark.parametrize(
    "change",
    [
        {"kind": "train"},
        {"provider": "cloud"},
        {"provider": None},
        {"name": "Upper"},
        {"nodes": []},
        {"nodes": [{"name": "head"}]},
        {"storage": ""},
        {"max_package": 0},
        {"currency": 1},
        {"unknown": 1},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(provider: str, change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(data_of(provider) | change)
    with pytest.raises(SpecError):
        cluster_of(data_of(provider) | change)


@pytest.mark.parametrize("provider", FILES)
def test_every_required_key_is_missed(provider: str) -> None:
    for key in data_of(provider):
        without = {other: value for other, value in data_of(provider).items() if other != key}
        if (provider, key) in {("gcp", "zone"), ("gcp", "project"), ("azure", "project")}:
            continue  # rules: the schema has one branch for all clouds
        assert not VALIDATOR.is_valid(without), key
        with pytest.raises(SpecError, match=f"{key}: is required and missing"):
            cluster_of(without)


def test_every_section_is_closed_and_every_field_is_described_in_a_sentence() -> None:
    for name, section in SCHEMA["$defs"].items():
        assert section["additionalProperties"] is False
        for field, value in section["properties"].items():
            text = value.get("description", "")
            assert text.endswith((".", ").", "`.")), f"{name} {field}: {text!r}"


PLACE = re.compile(r"^[^:]+(:\d+)?: .")
junk = st.recursive(
    st.sampled_from(
        [None, True, 0, -1, 0.5, 10**13, 1e300, "", "a", "-x", "a\nb", "s3://", "/x", "8Gi", "local"]
    )
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "count", "hosts", ".", "a[0]"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(node: Any, path: yaml.Path = ()) -> list[yaml.Path]:
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [place for key, value in inside for place in places(value, (*path, key))]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data(), st.sampled_from(sorted(FILES)), junk)
def test_any_cluster_loads_or_is_refused_in_lines_that_name_their_place(
    draw: st.DataObject, provider: str, value: Any
) -> None:
    data = node = data_of(provider)
    path = draw.draw(st.sampled_from(places(data)))
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    try:
        cluster_of(data)
    except UsageError as error:
        # A line break in a value may not make a second line.
        for line in str(error).splitlines():
            assert PLACE.match(line), line
            assert line.startswith("cluster.yaml:"), line
