"""An MDP as a YAML file with names for states and actions.

    gamma: 0.9
    start: cool                 # or a mapping of states to probabilities
    states: [cool, warm, broken]
    actions: [slow, fast]
    terminal: [broken]
    transitions:                # state, action, next state, probability, reward
      - [cool, slow, cool, 1, 1]
      - [cool, fast, cool, 0.5, 2]
      - [cool, fast, warm, 0.5, 2]
      - [warm, slow, cool, 0.5, 1]
      - [warm, slow, warm, 0.5, 1]
      - [warm, fast, broken, 1, -10]

Every action of every state that is not terminal has its rows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import numpy as np
from pydantic import ValidationError

from dlsys.errors import SpecError, UsageError
from dlsys.registry import did_you_mean
from dlsys.rl.tabular.mdp import MDP, TOLERANCE, absorb, empty
from dlsys.spec import yaml
from dlsys.spec.explain import explain
from dlsys.spec.rl.tabular import MDPFile

_Wrong = Iterator[tuple[yaml.Path, str]]


def from_file(path: str | os.PathLike[str]) -> MDP:
    """Reads and checks an MDP file.

    Raises:
        SpecError: everything that is wrong with it, each with its line.
        UsageError: it cannot be read.
    """
    shown = os.fspath(path)
    try:
        with open(path, "rb") as file:
            text = file.read(yaml.MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror}") from error
    document = yaml.read(text, shown)
    try:
        found = MDPFile.model_validate(document.data)
    except ValidationError as error:
        wrong = list(explain(error, MDPFile))
    else:
        wrong = list(_unknown_names(found)) or [*_wrong_numbers(found), *_missing(found)]
    if problems := document.problems + [document.problem(where, text) for where, text in wrong]:
        raise SpecError(problems)
    return _build(found)


def _start(file: MDPFile) -> dict[str, float]:
    return {file.start: 1.0} if isinstance(file.start, str) else file.start


def _unknown_names(file: MDPFile) -> _Wrong:
    for field in ("states", "actions"):
        names = getattr(file, field)
        for index, name in enumerate(names):
            if name in names[:index]:
                yield (field, index), f"{name!r} stands twice: keep one"
    used: list[tuple[yaml.Path, str, str]] = [
        (("terminal", index), "state", name) for index, name in enumerate(file.terminal)
    ]
    for name in _start(file):
        used.append((("start",) if isinstance(file.start, str) else ("start", name), "state", name))
    for index, (state, action, target, _, _) in enumerate(file.transitions):
        row = ("transitions", index)
        used += [((*row, 0), "state", state), ((*row, 1), "action", action), ((*row, 2), "state", target)]
    for path, kind, name in used:
        known = file.states if kind == "state" else file.actions
        if name not in known:
            listed = ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
            yield path, f"unknown {kind} {name!r}.{did_you_mean(name, known)} Known: {listed}"


def _wrong_numbers(file: MDPFile) -> _Wrong:
    total = math.fsum(_start(file).values())
    if abs(total - 1) > TOLERANCE:
        yield ("start",), f"the probabilities must sum to 1, but their sum is {total:.12g}"
    seen: set[tuple[str, str, str]] = set()
    sums: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for index, (state, action, target, probability, _) in enumerate(file.transitions):
        if state in file.terminal:
            yield ("transitions", index), f"state {state!r} is terminal: nothing happens there"
        if (state, action, target) in seen:
            text = f"a second row for action {action!r} from state {state!r} to {target!r}: keep one"
            yield ("transitions", index), text
        seen.add((state, action, target))
        sums.setdefault((state, action), []).append((index, probability))
    for (state, action), rows in sums.items():
        total = math.fsum(probability for _, probability in rows)
        if abs(total - 1) > TOLERANCE:
            text = f"the probabilities of action {action!r} in state {state!r} must sum to 1"
            yield ("transitions", rows[-1][0]), f"{text}, but their sum is {total:.12g}"


def _missing(file: MDPFile) -> _Wrong:
    known = {(state, action) for state, action, *_ in file.transitions}
    for state in file.states:
        for action in file.actions:
            if state not in file.terminal and (state, action) not in known:
                text = f"action {action!r} in state {state!r} has no row: every action leads somewhere"
                yield ("transitions",), text


def _build(file: MDPFile) -> MDP:
    state = {name: index for index, name in enumerate(file.states)}
    action = {name: index for index, name in enumerate(file.actions)}
    transitions = empty(len(state), len(action))
    rewards = np.zeros_like(transitions)
    for s, a, target, probability, reward in file.transitions:
        place = state[s], action[a], state[target]
        transitions[place], rewards[place] = probability, reward
    terminal = np.isin(file.states, file.terminal)
    absorb(transitions, rewards, terminal)
    start = np.zeros(len(state))
    for name, probability in _start(file).items():
        start[state[name]] = probability
    return MDP(file.states, file.actions, transitions, rewards, terminal, start, file.gamma)
