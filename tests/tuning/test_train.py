"""Packing and training on a made-up sentence: rows are what extraction asks, a resumed run is the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np

from bioner_edge import formats, prompts
from bioner_edge.document import Document, Entity
from bioner_edge.report import Report
from bioner_edge.tuning import pack, vocabulary
from bioner_edge.tuning.train import Rows, train

TEXT = "Aspirin eased the headache of one patient."
DOCUMENT = Document("1", TEXT, (Entity.at("Chemical", 0, 7), Entity.at("Disease", 18, 26)))
LABELS = ["Chemical", "Disease"]
SETTINGS: dict[str, Any] = {
    "labels": LABELS,
    "formats": {"multi_tag": 1.0, "multi_code": 0.0},
    "subset_share": 0.3,
    "max_tokens": 200,
    "seed": 1,
    "layers": 1,
    "width": 32,
    "head_size": 16,
    "feed_forward": 32,
    "context": 256,
    "phases": [
        {"steps": 4, "rate": 1.0, "formats": {"multi_tag": 1.0}},
        {"steps": 2, "rate": 0.5, "formats": {"multi_tag": 0.5, "multi_code": 0.5}, "model": "m"},
    ],
    "batch_tokens": 256,
    "pool": 16,
    "warmup": 2,
    "lr": 1e-2,
    "lr_matrices": 1e-2,
    "embedding_std": 0.1,
    "gold_tail": 0.5,
    "tail_gold_weight": 3.0,
    "compile": False,
    "log_every": 1,
    "save_every": 100,
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    form = formats.get("multi_tag")
    vocabulary.train([TEXT, form.render(DOCUMENT, LABELS)] * 5, 320, folder / "vocabulary")
    examples = [(DOCUMENT, n % 2 == 0) for n in range(20)]
    assert (
        pack.write(examples, folder / "vocabulary", folder / "packed", SETTINGS) == 30
    )  # what people marked is written in every format
    known = (
        np.random.default_rng(1)
        .normal(size=(vocabulary.load(folder / "vocabulary").get_vocab_size(), 32))
        .astype(np.float16)
    )
    known[0] = 0  # the end token has no text that a teacher could know
    np.save(folder / "packed" / "embeddings.npy", known)
    return folder / "packed"


def test_a_row_is_prompt_and_answer_as_extraction_writes_them(packed: Path) -> None:
    tokenizer = vocabulary.load(packed)
    (row,) = pack.encode(vocabulary.TrainedVocabulary(packed), DOCUMENT, LABELS, "multi_tag")
    form = formats.get("multi_tag")
    prompt = prompts.build(vocabulary.CHAT_TEMPLATE, form.instruction(LABELS, {}), {})
    spelled = tokenizer.decode(row.ids, skip_special_tokens=False)
    assert spelled == prompt.before + TEXT + prompt.after + form.render(DOCUMENT, LABELS) + "<|end|>"
    assert tokenizer.decode(row.ids[row.answer :], skip_special_tokens=False).startswith("<Chemical>Aspirin")


def test_the_loss_counts_the_answer_and_the_end(packed: Path) -> None:
    rows = Rows.load(packed)
    ids, weights = rows.batch(np.array([0, 1]), 0)
    for n in (0, 1):
        length = int(rows.starts[n + 1] - rows.starts[n])
        answer = int(rows.answers[n])
        assert (weights[n, answer:length] == 1).all() and (weights[n, length:] == 0).all()
        assert ids[n, length - 1] == 0 and (weights[n, :answer] == 0).all()


def test_a_resumed_run_ends_with_the_same_weights(packed: Path, tmp_path: Path) -> None:
    train(packed, tmp_path / "whole", SETTINGS)
    for _ in range(7):
        train(packed, tmp_path / "stopped", SETTINGS, seconds=0.0)
    whole, stopped = ((tmp_path / name / "m" / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    record = json.loads((tmp_path / "whole" / "training.json").read_text("utf-8"))
    assert record["tokens"] > 0 and record["steps"] == 6


def test_training_learns(packed: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    report = Report()
    report.step = lines.append  # type: ignore[method-assign]
    phases = [{"steps": 40, "rate": 1.0, "formats": {"multi_tag": 1.0}}]
    train(packed, tmp_path / "student", SETTINGS | {"phases": phases}, report=report)
    losses = [float(line.split(" loss ")[1].split()[0]) for line in lines if " loss " in line]
    assert losses[-1] < losses[0] / 2
