"""Texts with classes become tokens of one length, by a rule that the training rows decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data import Splits, load
from dlsys.errors import DataError
from dlsys.spec.data import LabelledTexts

TEXTS = ["Good, good film!", "bad", "so so good", "bad bad Film."] * 10
HEADER = "review,mood"


def read(folder: Path, texts: list[str] = TEXTS, **options: object) -> Splits:
    lines = [f'"{text}",{("up", "down")[row % 2]}' for row, text in enumerate(texts)]
    (folder / "r.csv").write_text("\n".join([HEADER, *lines]))
    given = {"text": "review", "target": "mood", **options}
    return load(LabelledTexts(source="texts", path="r.csv", **given), folder)


def test_words_are_numbered_by_frequency_and_padded(tmp_path: Path) -> None:
    splits = read(tmp_path, test=0.0)
    assert splits.shape.vocabulary[:4] == ("[PAD]", "[UNK]", "bad", "good") or splits.shape.vocabulary[
        2:4
    ] == ("good", "bad")
    assert set(splits.shape.vocabulary[4:]) == {"film", "so", ",", "!", "."}
    assert splits.shape.row["input_ids"] == (5,)
    train = splits.train.batch(np.arange(len(splits.train)))
    words = {word: number for number, word in enumerate(splits.shape.vocabulary)}
    long = [words[word] for word in ("good", ",", "good", "film", "!")]
    short = [words["bad"], 0, 0, 0, 0]
    rows = {tuple(row) for row in train["input_ids"].tolist()}
    assert tuple(long) in rows
    assert tuple(short) in rows
    assert torch.equal(train["attention_mask"], (train["input_ids"] != 0).long())
    assert splits.learnt["target"]["classes"] == ["down", "up"]
    assert splits.learnt["text"]["vocabulary"] == list(splits.shape.vocabulary)
    assert sum(splits.learnt["target"]["counts"]) == len(splits.train)


def test_what_is_long_is_cut_and_told(tmp_path: Path) -> None:
    splits = read(tmp_path, length=2, vocabulary=4)
    assert splits.shape.row["input_ids"] == (2,)
    assert len(splits.shape.vocabulary) == 4
    assert "30 rows are cut to 2 tokens" in splits.notes[0]
    assert int(splits.train.batch(np.arange(len(splits.train)))["input_ids"].max()) <= 3


def test_words_of_other_rows_are_unknown(tmp_path: Path) -> None:
    valid = read(tmp_path, [f"word{row} x" for row in range(40)]).valid
    seen = valid.batch(np.arange(len(valid)))["input_ids"]
    assert (seen[:, 0] == 1).all()
    assert (seen[:, 1] == 2).all()


def test_a_tokenizer_of_ones_own(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "bad": 1, "<pad>": 7}, "<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    splits = read(tmp_path, tokenizer="tokenizer.json", length=3)
    assert splits.shape.vocabulary[7] == "<pad>"
    assert len(splits.shape.vocabulary) == 8
    rows = {tuple(row) for row in splits.train.batch(np.arange(len(splits.train)))["input_ids"].tolist()}
    assert (1, 7, 7) in rows
    assert (1, 1, 0) in rows
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"^other\.json: is no tokenizer\.json"):
        read(tmp_path, tokenizer="other.json")


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        ([*TEXTS, " "], {}, "r.csv:42: column 'review' has no text: fill it"),
        (TEXTS, {"text": "reveiw"}, "r.csv: no column 'reveiw'. Did you mean 'review'?"),
        (TEXTS[:1], {}, "r.csv: the target 'mood' has only one class: 'up'"),
        ([], {}, "r.csv: no rows under the header"),
    ],
)
def test_errors_name_the_place(texts: list[str], options: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as found:
        read(tmp_path, texts, **options)
    assert str(found.value).startswith(said)
