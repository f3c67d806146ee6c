"""Reads YAML from strangers: safely, with bounds, and with the line of every value.

Scalars follow YAML 1.2's core schema, which is what people mean: `1e-4` is a number, `no` and
`12:30:45` are text. Duplicate keys, tags, cycles, alias bombs, depth, huge numbers, `.nan` and
`.inf` are refused by name. PyYAML parses; everything above its event stream is ours, because its
own constructor keeps the last of two equal keys and expands whatever it is given.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import events as ev

from dlsys.errors import Problem, SpecError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_KEY = 200
MAX_PROBLEMS = 100

COMMAND_LINE = "command line"

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS: dict[str, bool | None] = {"null": None, "Null": None, "NULL": None, "~": None, "": None}
_CONSTANTS |= {"true": True, "True": True, "TRUE": True}
_CONSTANTS |= {"false": False, "False": False, "FALSE": False}

# What YAML allows in no text; checked here, because PyYAML names no line for it.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Document:
    """A parsed file.

    Attributes:
        file: the path as messages show it.
        data: plain dicts, lists, strings, numbers, booleans and None.
        lines: the line, from 1, of each value by its path; 0 for one from the command line.
        problems: what was found on the way.
        unread: the paths of scalars that could not be read, each one a problem; None in `data`.
        changes: what values of line 0 come from, as messages show it.
        numbered: whether its lines are the user's; those of a mapping that Python gave are nobody's.
    """

    file: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[Path] = field(default_factory=set)
    changes: str = COMMAND_LINE
    numbered: bool = True

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, text: str) -> Problem:
        line = self.line(path)
        file = self.file if line else self.changes
        return Problem(file, line if self.numbered else 0, dotted(path), text)


def dotted(path: Path) -> str:
    """A path as messages show it: `regularize[0].strength`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isprintable() and part.strip() == part != "" else repr(part)
            text += f".{name}" if text else name
    return text


class _Refused(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def _tagged(line: int, tag: str) -> _Refused:
    shown = tag.replace("tag:yaml.org,2002:", "!!", 1)
    return _Refused(line, f"the tag {shown[:60]!r}: tags are not allowed, write plain values")


def read(text: str | bytes, file: str) -> Document:
    """Parses one document.

    Raises:
        SpecError: the text is not YAML, or breaks one of the bounds.
    """
    document = Document(file)
    try:
        if len(text) > MAX_BYTES:
            raise _Refused(0, f"larger than {MAX_BYTES // 1024} KiB: a job file is a page or two")
        if isinstance(text, bytes):
            text = _decode(text)
        if found := _UNPRINTABLE.search(text):
            line = text.count("\n", 0, found.start()) + 1
            raise _Refused(line, f"the character U+{ord(found[0]):04X} is not allowed")
        document.data = _Builder(document, _events(text)).build()
    except yaml.MarkedYAMLError as error:
        raise SpecError([*document.problems, _syntax(error, str(text), file)]) from error
    except _Refused as error:
        raise SpecError([*document.problems, Problem(file, error.line, "", str(error))]) from error
    return document


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    what = str(error.problem or error.context)
    if error.context and error.problem:
        begun = error.context_mark.line + 1 if error.context_mark else line
        since = f" (begun in line {begun})" if begun != line and file != COMMAND_LINE else ""
        what = f"{error.context}{since}: {error.problem}"
    shown = text.split("\n")[line - 1] if 0 < line <= text.count("\n") + 1 else ""
    if "\t" in shown[: len(shown) - len(shown.lstrip())]:
        what += "; indent with spaces, not tabs"
    elif "block scalar" in what:
        what += "; put quotes around a value that starts with > or |"
    return Problem(file, line, "", f"not YAML: {what}")


def _decode(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise _Refused(line, f"not UTF-8 text: byte 0x{text[error.start]:02x}") from error


def _events(text: str) -> Iterator[ev.Event]:
    loader = _Loader(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _line(event: ev.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


class _Builder:
    """Turns events into plain values. Recursion is bounded by MAX_DEPTH."""

    def __init__(self, document: Document, events: Iterator[ev.Event]) -> None:
        self._document = document
        self._events = events
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def build(self) -> Any:
        root: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, ev.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(_line(event), "a second document ('---'): one file, one job")
                root = self._value(next(self._events), (), 0)
        if not documents:
            raise _Refused(0, "the file is empty")
        return root

    def _value(self, event: ev.Event, path: Path, depth: int) -> Any:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels")
        self._document.lines.setdefault(path, line)
        if isinstance(event, ev.AliasEvent):
            return self._alias(event, line)
        assert isinstance(event, ev.ScalarEvent | ev.CollectionStartEvent), "the parser's own grammar"
        tag = event.tag
        if tag is not None and not (tag == "!" and isinstance(event, ev.ScalarEvent)):
            raise _tagged(line, tag)
        before = self._count
        # Text counts by its length, so that aliases cannot multiply a long one either.
        self._spend(1 + len(getattr(event, "value", "")) // 64, line)
        if isinstance(event, ev.MappingStartEvent):
            value: Any = self._mapping(path, depth)
        elif isinstance(event, ev.SequenceStartEvent):
            value = self._sequence(path, depth)
        else:
            assert isinstance(event, ev.ScalarEvent)
            value = self._scalar(event, path, line)
        if event.anchor is not None:
            # Known only now, after its own content: a cycle meets an unknown alias.
            self._anchors[event.anchor] = (value, self._count - before)
        return value

    def _spend(self, values: int, line: int) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            raise _Refused(line, f"more than {MAX_VALUES:,} values, aliases counted as often as used")

    def _alias(self, event: ev.AliasEvent, line: int) -> Any:
        if event.anchor not in self._anchors:
            raise _Refused(
                line, f"the alias *{str(event.anchor)[:60]} has no anchor before it, or lies inside it"
            )
        value, size = self._anchors[event.anchor]
        self._spend(size, line)
        return copy.deepcopy(value)  # else an override would change the value's twins too

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(event := next(self._events), ev.MappingEndEvent):
            line = _line(event)
            key = self._key(event, line)
            again = key in first
            here = (*path, key)
            # The second of two equal keys is read, for its own problems, under a path of no use.
            value = self._value(next(self._events), (*path, f"{key} (again)") if again else here, depth + 1)
            if again:
                self._report(line, here, f"the key stands twice, first in line {first[key]}: keep one")
                continue
            first[key] = line
            self._document.lines[here] = line
            result[key] = value
        return result

    def _key(self, event: ev.Event, line: int) -> str:
        if not isinstance(event, ev.ScalarEvent):
            raise _Refused(line, "a key must be plain text")
        if event.tag is not None and event.tag != "!":
            raise _tagged(line, event.tag)
        if len(event.value) > MAX_KEY:
            raise _Refused(line, f"a key of {len(event.value)} characters; the limit is {MAX_KEY}")
        if event.value == "<<" and not event.style:
            raise _Refused(line, "'<<' does not merge here: write the keys out")
        return str(event.value)

    def _sequence(self, path: Path, depth: int) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self._events), ev.SequenceEndEvent):
            result.append(self._value(event, (*path, len(result)), depth + 1))
        return result

    def _scalar(self, event: ev.ScalarEvent, path: Path, line: int) -> Any:
        if event.style in ("'", '"', "|", ">") or event.tag == "!":
            return event.value
        try:
            return plain(event.value)
        except ValueError as error:
            self._report(line, path, str(error))
            self._document.unread.add(path)
            return None

    def _report(self, line: int, path: Path, text: str) -> None:
        self._document.problems.append(Problem(self._document.file, line, dotted(path), text))
        if len(self._document.problems) >= MAX_PROBLEMS:
            raise _Refused(line, f"{MAX_PROBLEMS} problems up to here; the rest was not read")


def plain(text: str) -> Any:
    """The value of an unquoted scalar.

    Raises:
        ValueError: not a finite number, or one of more than 64 characters.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number; quote it if you mean text")
    if not (_INT.fullmatch(text) or _FLOAT.fullmatch(text)):
        return text
    if len(text) > 64:
        raise ValueError(f"a number of {len(text)} characters; the limit is 64")
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for a number")
    return value


class _Dumper(yaml.SafeDumper):
    """PyYAML quotes what YAML 1.1 would misread; this one also what `plain` would (`1e-4`), and what
    kubectl would (`y`)."""

    def _text(self, text: str) -> yaml.ScalarNode:
        try:
            quoted = text in ("y", "Y", "n", "N") or plain(text) != text
        except ValueError:
            quoted = True
        # Only double quotes have escapes for line breaks such as U+0085.
        style = '"' if not text.isprintable() else "'" if quoted else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, _Dumper._text)


def dump(data: Any) -> str:
    """Plain values as YAML that `read` turns into the same values again."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
