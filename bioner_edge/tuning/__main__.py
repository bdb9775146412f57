"""`python -m bioner_edge.tuning STAGE FOLDER`: how the bundled model is made, stage by stage; `all` runs those not done.

    teacher     FOLDER/teacher        the BIO classifier, and its F1 on dev
    silver      FOLDER/silver.jsonl   plain text as it labels it
    vocabulary  FOLDER/vocabulary     byte-level BPE
    pack        FOLDER/packed         token rows: all that training needs, carry it where you like
    train       FOLDER/student        the model, resumed from its last checkpoint if it was cut off
    export      FOLDER/dist           GGUF files, verified, with manifests
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ..corpora import jsonl, read_file
from ..span import Document
from . import sources
from .sources import Recipe

__all__ = ["main"]


def teacher(folder: Path, recipe: Recipe) -> None:
    from .teacher import Teacher

    settings = recipe["teacher"]
    model = Teacher(None, recipe["labels"], settings["max_tokens"])
    model.fit(
        sources.gold(recipe),
        epochs=settings["epochs"],
        batch=settings["batch"],
        lr=settings["lr"],
        seed=recipe["seed"],
    )
    documents = [s for d in read_file(sources.corpora_dir() / recipe["dev"], print) for s in sources.split(d)]
    guesses = model.label([d.without_entities() for d in documents])
    hits = marked = guessed = 0
    for document, (guess, _) in zip(documents, guesses, strict=True):
        ours, theirs = {e.key for e in guess.entities}, {e.key for e in document.entities}
        hits, guessed, marked = hits + len(ours & theirs), guessed + len(ours), marked + len(theirs)
    print(f"teacher on dev: precision {hits / guessed:.4f}, recall {hits / marked:.4f}, F1 {2 * hits / (guessed + marked):.4f}")
    model.save(folder / "teacher")


def silver(folder: Path, recipe: Recipe) -> None:
    from .silver import complete, label_text
    from .teacher import Teacher

    model = Teacher(folder / "teacher", recipe["labels"], recipe["teacher"]["max_tokens"])
    partial = folder / "silver.partial"
    label_text(model, recipe, partial)
    with (folder / "gold.jsonl").open("w", encoding="utf-8") as stream:
        for sentence in complete(model, recipe):
            jsonl.write(sentence.document, stream)
    partial.rename(folder / "silver.jsonl")


def vocabulary(folder: Path, recipe: Recipe) -> None:
    from .. import formats
    from .vocabulary import train

    form = formats.get(recipe["format"])
    settings = recipe["vocabulary"]

    def texts() -> Iterator[str]:
        yield from (d.text for d in islice(sources.silver_text(recipe), settings["sentences"]))
        yield from (form.render(s.document, recipe["labels"]) for s in sources.gold(recipe))

    train(texts(), settings["size"], folder / "vocabulary")


def pack(folder: Path, recipe: Recipe) -> None:
    from .pack import write

    def examples() -> Iterator[tuple[Document, bool]]:
        for name, is_gold in (("gold.jsonl", True), ("silver.jsonl", False)):
            for document in read_file(folder / name, print):
                yield document, is_gold

    count = write(examples(), folder / "vocabulary", folder / "packed", recipe | recipe["pack"])
    print(f"packed {count} rows, {(folder / 'packed' / 'rows.npz').stat().st_size / 1e6:.1f} MB")


def train(folder: Path, recipe: Recipe) -> None:
    from .train import train as run

    run(folder / "packed", folder / "student", recipe["student"] | {"seed": recipe["seed"]})


def export(folder: Path, recipe: Recipe) -> None:
    raise NotImplementedError


STAGES: dict[str, tuple[Callable[[Path, Recipe], None], str]] = {
    "teacher": (teacher, "teacher"),
    "silver": (silver, "silver.jsonl"),
    "vocabulary": (vocabulary, "vocabulary"),
    "pack": (pack, "packed/rows.npz"),
    "train": (train, "student/model.safetensors"),
    "export": (export, "dist"),
}
"""Stage -> what runs it, and the file whose presence says that it is done."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bioner_edge.tuning", description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, default=None, help="a recipe other than the bundled model's")
    arguments = parser.parse_args()
    recipe = sources.recipe(arguments.recipe)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, (run, product) in STAGES.items():
        if arguments.stage == name or (arguments.stage == "all" and not (arguments.folder / product).exists()):
            started = time.monotonic()
            run(arguments.folder, recipe)
            print(f"{name} took {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
