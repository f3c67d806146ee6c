"""Names, the lazy strings behind them, and what a wrong name is told."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from dlsys import registry
from dlsys.errors import UsageError
from dlsys.registry import SOURCES, STRATEGIES, Registry, did_you_mean, import_string, known, like
from dlsys.spec.catalogue import WORKLOADS, Catalogue
from dlsys.spec.schema import schema

TABLE = Registry("planet", {"venus": "math:pi", "earth": "os.path:join"})


def test_loads_lazily() -> None:
    import os.path

    assert TABLE.load("earth") is os.path.join


def test_names_are_sorted_and_contained() -> None:
    assert TABLE.names() == ["earth", "venus"]
    assert "earth" in TABLE
    assert "mars" not in TABLE
    assert 3 not in TABLE


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        TABLE.load("venos")
    assert str(caught.value) == "unknown planet 'venos'. Did you mean 'venus'? Known: earth, venus"


def test_far_names_are_not_suggested() -> None:
    assert did_you_mean("quicksilver", TABLE.names()) == ""
    assert did_you_mean("EARTH", TABLE.names()) == " Did you mean 'earth'?"


@pytest.mark.parametrize("target", ["no_such_module:x", "math:no_such_name"])
def test_a_broken_target_says_which(target: str) -> None:
    with pytest.raises((ImportError, AttributeError), match="no_such"):
        import_string(target)


def test_attributes_may_be_dotted() -> None:
    assert import_string("collections:OrderedDict.fromkeys")("a") == {"a": None}


def test_installed_packages_add_workloads_but_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = "their_package.mars:CARD"
    added = [EntryPoint(name, theirs, "dlsys.workloads") for name in ("mars", "lenet-5")]
    monkeypatch.setattr(registry, "entry_points", lambda group: added if group == "dlsys.workloads" else [])
    table = Catalogue("dlsys.zoo.table:WORKLOADS")
    assert "mars" in table
    assert table.target("mars") == theirs
    assert table.target("lenet-5") == WORKLOADS.target("lenet-5") != theirs
    assert table.names() == sorted([*WORKLOADS.names(), "mars"])


@pytest.mark.parametrize("table", [WORKLOADS, SOURCES, STRATEGIES], ids=lambda table: table.kind)
def test_every_target_is_a_module_that_exists(table: Registry) -> None:
    for name in table.names():
        module, _, attribute = table.target(name).partition(":")
        assert importlib.util.find_spec(module), f"{name}: no module {module}"
        assert attribute


def test_of_many_names_the_nearest_are_told() -> None:
    few, many = ["ham", "hop"], [*"abcdefgh", "resnet", "resnet-18", "resnet-50", "preresnet", "revnet"]
    assert known("hopp", few) == " Did you mean 'hop'? Known: ham, hop"
    assert known("x", []) == " Known: none"
    told = " Did you mean 'resnet'? Nearest: preresnet, resnet, resnet-18, resnet-50, revnet"
    assert sorted(known("resnt", many).partition("Nearest: ")[2].removesuffix(" and 8 more").split(", ")) == (
        sorted(told.partition("Nearest: ")[2].split(", "))
    )
    assert known("resnt", many, more="dlsys zoo list").endswith(". More of 13: dlsys zoo list")


def test_like_puts_names_that_hold_the_text_first() -> None:
    assert like("net", ["alexa", "resnet", "tent"])[0] == "resnet"


@pytest.mark.parametrize("name", WORKLOADS.names())
def test_a_workloads_card_bears_its_name_and_known_strategies(name: str) -> None:
    card = WORKLOADS.load(name)
    assert card.name == name
    assert set(card.strategies) <= set(STRATEGIES.names())


def test_sources_and_strategies_of_the_spec_are_the_registrys() -> None:
    properties = schema()["properties"]
    assert sorted(properties["data"]["discriminator"]["mapping"]) == SOURCES.names()
    assert sorted(properties["strategy"]["anyOf"][0]["discriminator"]["mapping"]) == STRATEGIES.names()


def test_importing_the_registry_runs_no_target() -> None:
    code = "import sys, dlsys.registry; print([m for m in sys.modules if m.startswith('dlsys.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['dlsys.errors', 'dlsys.registry']"
