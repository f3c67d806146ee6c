"""Whether a user's `module:attribute` exists, without running it: a user's file may import anything."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path as FilePath

from dlsys.registry import did_you_mean, known
from dlsys.spec.rules import Found
from dlsys.spec.section import show
from dlsys.spec.yaml import Path


def own_code(target: str, path: Path) -> Found:
    """Looks for `module:attribute` without running it: a user's file would import torch."""
    module, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not attribute.isidentifier():
        yield path, f"{show(target)} is not package.module:Class or module:function"
        return
    source = find_source(module)
    if source is None:
        yield (
            path,
            (
                f"no module {show(module)} in {os.getcwd()} or among the installed packages: "
                "run dlsys in the folder that holds it"
            ),
        )
        return
    if source.suffix != ".py":
        return
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        yield path, f"{source}{line}: cannot be read: {error}"
        return
    names = set(_top_level_names(tree))
    if attribute not in names and "*" not in names:
        near = did_you_mean(attribute, names)
        yield path, f"{source} defines no {attribute!r}.{near}"


def misnamed_options(target: str, options: Collection[str], given: Collection[str], path: Path) -> Found:
    """What a function of the user's, or a class's `__init__`, has no parameter for, or lacks.

    As far as its own file says it: what is decorated or imported from elsewhere is left for the call.

    Args:
        options: the names that a job gives.
        given: those that dlsys gives, to a function that has parameters for them.
    """
    parameters = _parameters(*target.split(":", 1))
    if parameters is None:
        return
    named = [argument.arg for argument in parameters.args if argument.arg != "self"]
    needed = named[: len(named) - len(parameters.defaults)]
    for argument, default in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True):
        named.append(argument.arg)
        needed += [argument.arg] * (default is None)
    for option in options:
        if option not in named and parameters.kwarg is None:
            yield (*path, option), f"unknown key: {target} has no {show(option)}.{known(option, named)}"
    for option in needed:
        if option not in options and option not in given:
            yield (*path, option), f"is required and missing: {target} needs it"


def _parameters(module: str, attribute: str) -> ast.arguments | None:
    source = find_source(module)
    try:
        body = ast.parse(source.read_bytes()).body if source is not None and source.suffix == ".py" else []
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name != attribute:
            continue
        if node.decorator_list:
            return None
        if isinstance(node, ast.FunctionDef):
            return node.args
        made = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        return made[0].args if made else None
    return None


def imported(module: str) -> Iterator[tuple[str, bytes | None]]:
    """A user's module and what it imports, by name: the text of what is in the working folder, None of what
    is installed. What cannot be found or read is left out."""
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        source = find_source(name)
        if source is None or name in seen:
            continue
        seen.add(name)
        if not source.resolve().is_relative_to(os.getcwd()) or "site-packages" in source.parts:
            yield name, None
            continue
        with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
            text = source.read_bytes()
            tree = ast.parse(text)
            yield name, text
            waiting += _imports(ast.walk(tree), name, package=source.name == "__init__.py")


def _imports(nodes: Iterable[ast.AST], module: str, *, package: bool) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level + package or None] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def uninstalled(target: str, path: Path) -> Found:
    """What a user's `module:attribute`, or another file of theirs, imports and is not to be found.

    Imports that may fail, or never run (within `try`, `if` or a function), are left alone.
    """
    for module, text in imported(target.partition(":")[0]) if ":" in target else ():
        for node in ast.parse(text).body if text is not None else ():
            names = (name.partition(".")[0] for name in _imports([node], module, package=False))
            for first in dict.fromkeys(names):
                if first and not _is_there(first):
                    place = f"{find_source(module)}:{node.lineno}"
                    yield path, f"{place}: imports {first!r}, which is not installed"


def _is_there(package: str) -> bool:
    if FilePath(package).is_dir() or find_source(package) is not None:
        return True
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(package) is not None
    return True  # who cannot be asked is not accused


def find_source(module: str) -> FilePath | None:
    """The file of a module, searched in the working directory first; imports nothing of it."""
    first, *rest = module.split(".")
    try:
        # Of a top-level name this imports nothing, and it knows editable installs.
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):  # ValueError: __main__
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for base in [FilePath(root, first) for root in (os.getcwd(), *sys.path)] + [*map(FilePath, folders)]:
        for candidate in (base.joinpath(*rest).with_suffix(".py"), base.joinpath(*rest, "__init__.py")):
            with contextlib.suppress(OSError):  # a name too long for a file
                if candidate.is_file():
                    return candidate
    return FilePath(spec.origin) if spec and spec.origin and not rest else None


def _top_level_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name).split(".")[0]
