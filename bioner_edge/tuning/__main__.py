"""`python -m bioner_edge.tuning STAGE FOLDER` trains the bundled models; `all` runs every stage that is not done.

    teacher     FOLDER/teacher        the BIO classifier, and its F1 on dev
    silver      FOLDER/silver.jsonl   plain text with its labels; gold.jsonl; mixed.jsonl, gold with labels it filled in
    vocabulary  FOLDER/vocabulary     byte-level BPE
    pack        FOLDER/packed         token rows: all that training needs, on any machine
    train       FOLDER/student        the models, a folder each; resumed from the last checkpoint if interrupted
    export      FOLDER/dist           GGUF files, verified, with manifests

To train elsewhere, copy FOLDER/packed there, run `train FOLDER --seconds 540 --parts OUT`, copy OUT back, and run
`join FOLDER --parts OUT` here. To resume a run there, join its parts there first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from bioner_edge.document import Document
from bioner_edge.errors import BionerError
from bioner_edge.io import jsonl
from bioner_edge.io.reading import read_file
from bioner_edge.models.manifest import size
from bioner_edge.terminal import Terminal
from bioner_edge.text.sentences import split_sentences
from bioner_edge.tuning import sources
from bioner_edge.tuning.parts import join, split
from bioner_edge.tuning.sources import Recipe

__all__ = ["main"]


def teacher(folder: Path, recipe: Recipe) -> None:
    from bioner_edge.benchmarks.scoring.accuracy import Pair, micro
    from bioner_edge.tuning.teacher import Teacher

    settings = recipe["teacher"]
    model = Teacher(None, recipe["labels"], settings["max_tokens"])
    model.fit(
        sources.gold(recipe),
        epochs=settings["epochs"],
        batch=settings["batch"],
        lr=settings["lr"],
        seed=recipe["seed"],
        report=Terminal(),
    )
    documents = [s for d in read_file(sources.corpora_dir() / recipe["dev"], print) for s in split_sentences(d)]
    guesses = model.label([d.without_entities() for d in documents])
    pairs = (Pair(d.id, d.text, g.entities, d.entities) for d, (g, _) in zip(documents, guesses, strict=True))
    scores = micro(pairs, recipe["labels"])
    print(f"teacher on dev: precision {scores.precision:.4f}, recall {scores.recall:.4f}, F1 {scores.f1:.4f}")
    model.save(folder / "teacher")


def silver(folder: Path, recipe: Recipe) -> None:
    from bioner_edge.tuning.silver import complete, label_text
    from bioner_edge.tuning.teacher import Teacher

    model = Teacher(folder / "teacher", recipe["labels"], recipe["teacher"]["max_tokens"])
    partial = folder / "silver.partial"
    label_text(model, recipe, partial, Terminal())
    with (
        open(folder / "gold.jsonl", "w", encoding="utf-8") as gold,
        open(folder / "mixed.jsonl", "w", encoding="utf-8") as mixed,
    ):
        for sentence in complete(model, recipe):
            jsonl.write(sentence.document, gold if set(recipe["labels"]) <= set(sentence.annotates) else mixed)
    partial.rename(folder / "silver.jsonl")


def vocabulary(folder: Path, recipe: Recipe) -> None:
    from bioner_edge import formats
    from bioner_edge.tuning.vocabulary import train

    form = formats.get(next(iter(recipe["formats"])))
    settings = recipe["vocabulary"]

    def texts() -> Iterator[str]:
        yield from (d.text for d in islice(sources.silver_text(recipe), settings["sentences"]))
        yield from (form.render(s.document, recipe["labels"]) for s in sources.gold(recipe))

    train(texts(), settings["size"], folder / "vocabulary")


def pack(folder: Path, recipe: Recipe) -> None:
    import numpy as np

    from bioner_edge.tuning.pack import write
    from bioner_edge.tuning.teacher import Teacher
    from bioner_edge.tuning.vocabulary import load

    def examples() -> Iterator[tuple[Document, bool]]:
        for name in ("gold.jsonl", "mixed.jsonl", "silver.jsonl"):
            for document in read_file(folder / name, print):
                yield document, name == "gold.jsonl"

    count = write(examples(), folder / "vocabulary", folder / "packed", recipe | recipe["pack"])
    tokenizer = load(folder / "vocabulary")
    words = [tokenizer.decode([token]).strip() for token in range(tokenizer.get_vocab_size())]
    model = Teacher(folder / "teacher", recipe["labels"], recipe["teacher"]["max_tokens"])
    np.save(folder / "packed" / "embeddings.npy", model.embed(words, recipe["student"]["width"]).astype(np.float16))
    print(f"packed {count} rows, {(folder / 'packed' / 'rows.npz').stat().st_size / 1e6:.1f} MB")


def train(folder: Path, recipe: Recipe, *, seconds: float | None = None) -> None:
    from bioner_edge.tuning.train import train as run

    settings = recipe["student"] | {"seed": recipe["seed"], "formats": list(recipe["formats"])}
    run(folder / "packed", folder / "student", settings, seconds=seconds, report=Terminal())


def export(folder: Path, recipe: Recipe) -> None:
    from bioner_edge.convert import About, convert

    settings = recipe["export"]
    dev = (d for d in read_file(sources.corpora_dir() / recipe["dev"], print))
    lines = [s.text for d in islice(dev, 40) for s in split_sentences(d)]
    for name, tuned in settings["models"].items():
        source = folder / "student" / name
        about = About.of(
            [source],
            name=name,
            labels=recipe["labels"],
            formats=tuned,
            unit="sentence",
            license=settings["license"],
            training=json.loads((source / "training.json").read_text("utf-8")),
        )
        for to, levels in (("gguf", settings["levels"]), ("onnx", settings["onnx"].get(name, ()))):
            if not levels:
                continue
            for path in convert(source, folder / "dist", levels, about, to=to, verify_lines=lines, overwrite=True):
                print(f"{path} {size(path) / 1e6:.1f} MB")


STAGES: dict[str, tuple[Callable[[Path, Recipe], None], str]] = {
    "teacher": (teacher, "teacher"),
    "silver": (silver, "silver.jsonl"),
    "vocabulary": (vocabulary, "vocabulary"),
    "pack": (pack, "packed/embeddings.npy"),
    "train": (train, "student/training.json"),
    "export": (export, "dist/*.json"),
}
"""Stage -> its function and its last product: if a file matches, the stage is done."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bioner_edge.tuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*STAGES, "all", "join"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, help="a recipe other than the bundled model's")
    parser.add_argument("--seconds", type=float, help="train: stop with a checkpoint after this time")
    parser.add_argument(
        "--parts", type=Path, help="train: also write the student here, in parts; join: where the parts are"
    )
    arguments = parser.parse_args()
    recipe = sources.recipe(arguments.recipe)
    folder: Path = arguments.folder
    if arguments.stage == "join":
        join(arguments.parts, folder / "student")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, (run, product) in STAGES.items():
        if arguments.stage == name or (arguments.stage == "all" and not any(folder.glob(product))):
            started = time.monotonic()
            if name == "train":
                train(folder, recipe, seconds=arguments.seconds)
            else:
                run(folder, recipe)
            print(f"{name} took {time.monotonic() - started:.0f} s", flush=True)
            if not any(folder.glob(product)):  # training ran out of time
                break
    if arguments.parts:
        # Finished models need no optimizer state.
        finished = (folder / "student" / "training.json").exists()
        split(folder / "student", arguments.parts, without="state.pt" if finished else "")


if __name__ == "__main__":
    try:
        main()
    except BionerError as error:
        raise SystemExit(f"tuning: {error}") from None
