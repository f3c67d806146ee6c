"""The sections of tabular agents."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from dlsys.spec.rl.algorithms import Algorithm

SECTIONS = TypeAdapter(Algorithm)
NAMES = ("value-iteration", "q-value-iteration", "td-learning", "q-learning")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_enough(name: str) -> None:
    assert SECTIONS.validate_python({"name": name}).name == name


@pytest.mark.parametrize(
    "given",
    [
        {"name": "value-iteration", "gamma": 1.01},
        {"name": "value-iteration", "tolerance": 0},
        {"name": "value-iteration", "sweeps": 0},
        {"name": "q-value-iteration", "bins": 1},
        {"name": "td-learning", "lr": 0},
        {"name": "td-learning", "lr": 1.1},
        {"name": "td-learning", "lr_decay": -1},
        {"name": "td-learning", "epsilon_start": 0.5},
        {"name": "q-learning", "epsilon_end": 1.1},
        {"name": "q-learning", "epsilon_episodes": 0},
        {"name": "q-learning", "exploration": "boltzmann"},
        {"name": "q-learning", "kappa": -1},
        {"name": "q-learning", "episodes": 0},
        {"name": "sarsa-lambda"},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SECTIONS.validate_python(given)


def test_every_field_has_its_sentence() -> None:
    for section in get_args(get_args(Algorithm)[0]):
        for name, info in section.model_fields.items():
            assert name == "name" or info.description, f"{section.__name__}.{name}"
