"""No file, whatever is in it, does anything but load or be refused in lines that name their place.

DLSYS_FUZZ sets how many files are tried in all (2,000 by default); they are the same each time.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlsys.errors import UsageError
from dlsys.spec import TrainJob, yaml
from dlsys.spec.load import apply_overrides, check
from dlsys.spec.schema import schema

FILES = int(os.environ.get("DLSYS_FUZZ", "2000"))
PLACE = re.compile(r"^[^:]+(:\d+)?: .")
CPU_SECONDS = 1.0
MEMORY_KIB = 200 * 1024

GOOD = """\
kind: train
name: good
workload: lenet-5
model: {width: 1.0}
data: {source: digits, valid: 0.1}
batch_size: 64
optimizer:
  name: sgd
  lr: 0.05
  momentum: 0.9
schedule: {name: one-cycle, max_lr: 0.1}
regularize:
  - {name: l2, strength: 1.0e-4}
  - name: gradient-clipping
    norm: 1.0
gradient: {accumulate: 2}
strategy: {name: ddp}
resources: {workers: 2, cpus: 1}
stop:
  epochs: 10
  target: {valid/accuracy: ">= 0.98"}
checkpoint: {every: 1 epoch, keep: 2, best: valid/accuracy}
expect: {valid/accuracy: ">= 0.97"}
seed: 0
"""


def _words(node: object) -> Iterator[str]:
    """Every key and every choice of the schema."""
    if isinstance(node, dict):
        yield from node.get("properties", {})
        yield from (str(value) for value in [node.get("const"), *node.get("enum", ())] if value is not None)
        for value in node.values():
            yield from _words(value)
    elif isinstance(node, list):
        for value in node:
            yield from _words(value)


WORDS = sorted(set(_words(schema())))
GARBAGE = [
    *("", "~", "null", "true", "no", "0", "-1", "64.5", "1e-4", "1e999", ".nan", "-.inf", "0x10", "9" * 70),
    *("'", '"', "[", "]", "{", "}", "[]", "{}", "[[[[", "{{", "- - -", "? x", ":", "#", "|", ">", ">= 0.9"),
    *(
        "!!python/object:os.system",
        "!x",
        "&a 1",
        "*a",
        "&a [*a]",
        "<<: *a",
        "---",
        "...",
        "%YAML 9.9",
        "@",
        "`",
    ),
    *(
        "../../x",
        "/etc/passwd",
        "A",
        "a" * 300,
        "ä",
        "\x00",
        "\x1b[31m",
        "\u2028",
        "\U0001f600",
        "\ufeff",
        "\t",
    ),
    *(
        "1 epoch",
        "0 steps",
        "10 minutes",
        "valid/accuracy",
        "lenet-5",
        "os:system",
        "x:y",
        "digits",
        "\\",
        "a.b",
    ),
]
atoms = st.sampled_from(WORDS) | st.sampled_from(GARBAGE) | st.text(max_size=8)
numbers = st.integers().map(str) | st.floats().map(str)
flow = st.recursive(
    atoms | numbers,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(atoms, inner), max_size=4).map(
            lambda items: f"{{{', '.join(f'{key}: {value}' for key, value in items)}}}"
        )
    ),
    max_leaves=8,
)
lines = st.builds(
    lambda indent, dash, key, value: f"{' ' * indent}{dash}{key}: {value}",
    st.integers(0, 6),
    st.sampled_from(["", "", "", "- ", "-"]),
    atoms,
    flow,
)
grammar = st.builds(
    lambda head, body: head + "\n".join(body) + "\n",
    st.sampled_from(["", "kind: train\n", GOOD, "# x\n"]),
    st.lists(lines | atoms, max_size=8),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A good file after a few cuts, copies, swaps and replacements."""
    text = GOOD.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text) - 1))
        line = text[at]
        key, _, value = line.partition(":")
        change = draw(st.integers(0, 8))
        if change == 0 and len(text) > 1:
            del text[at]
        elif change == 1:
            text.insert(draw(st.integers(0, len(text))), line)
        elif change == 2:
            text[at] = f"{key}: {draw(flow)}"
        elif change == 3:
            text[at] = f"{draw(atoms)}:{value}"
        elif change == 4:
            text[at] = " " * draw(st.integers(0, 4)) + line.lstrip()
        elif change == 5:
            depth = draw(st.sampled_from([2, 31, 32, 40, 5000]))
            text[at] = f"{key}: {'[' * depth}{']' * depth}"
        elif change == 6:
            start = draw(st.integers(0, len(line)))
            text[at] = line[:start] + draw(atoms) + line[start + draw(st.integers(0, 3)) :]
        elif change == 7:
            text[at] = f"{key}: {line.strip()}"
        else:
            text[at] = f"{key}: [{', '.join([value.strip() or 'x'] * draw(st.sampled_from([1, 3, 3000])))}]"
    return "\n".join(text) + "\n"


class Cost:
    """What the files have cost the reader; Hypothesis's own notes of them are not counted."""

    memory_kib = 0


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """What other tests have imported is not walked by the collector while time is measured here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def holds(content: bytes | str, overrides: tuple[str, ...] = ()) -> None:
    """The property; any other exception fails the test by itself."""
    memory, start = peak_kib(), time.thread_time()
    text = ""
    try:
        document = yaml.read(content, "fuzz.yaml")
        apply_overrides(document, overrides)
        assert isinstance(check(document), TrainJob)
    except UsageError as error:
        text = str(error) or "no message at all"
    assert time.thread_time() - start <= CPU_SECONDS
    Cost.memory_kib += peak_kib() - memory
    assert Cost.memory_kib <= MEMORY_KIB
    text.encode("utf-8")
    for line in text.splitlines():
        assert PLACE.match(line), line


holds(GOOD)  # what any use loads is not the fuzzed files' cost
Cost.memory_kib = 0


def fuzz(share: float) -> settings:
    return settings(
        max_examples=max(1, round(FILES * share)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@fuzz(0.15)
@given(st.binary(max_size=400))
def test_bytes(content: bytes) -> None:
    holds(content)


@fuzz(0.35)
@given(grammar)
def test_text_of_our_own_words(content: str) -> None:
    holds(content.encode("utf-8", "surrogatepass"))


@fuzz(0.4)
@given(mutated())
def test_good_files_gone_wrong(content: str) -> None:
    holds(content.encode("utf-8", "surrogatepass"))


@fuzz(0.1)
@given(
    st.lists(
        st.builds(lambda path, value: f"{'.'.join(path)}={value}", st.lists(atoms, max_size=4), flow) | atoms
    )
)
def test_overrides(overrides: list[str]) -> None:
    holds(GOOD, tuple(overrides))


@pytest.mark.parametrize(
    "content",
    [
        "[" * 250_000,
        "{a: " * 60_000,
        "- " * 120_000,
        "?\n" * 120_000,
        "a:\n" * 80_000,
        '"' + "\\x41" * 60_000 + '"',
        "!" * 250_000,
        "%TAG !a! b\n" * 20_000,
        "".join(f"k{n}: .nan\n" for n in range(20_000)),
        GOOD + "expect:\n" + "".join(f"  valid/a{n}: 1\n" for n in range(9_000)),
        GOOD.replace('">= 0.97"', "{" + ", ".join(f"a{n}: 1" for n in range(9_000)) + "}"),
        GOOD.replace("lenet-5", "a" * 4000 + ":b"),
        GOOD.replace("lenet-5", ".".join("a" * 2000) + ":b"),
        GOOD.replace("lenet-5", "l" * 200_000),
        GOOD.replace("10", "'" + "9" * 200_000 + " s'"),
        GOOD + "regularize: [" + "{a: 1}, " * 9_000 + "]\n",
        "a: &a ["
        + "x, " * 9
        + "]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 30_000 + "]\n",
    ],
    ids=range(18),
)
def test_files_made_to_hurt(content: str) -> None:
    holds(content.encode())
