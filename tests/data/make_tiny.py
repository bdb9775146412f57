"""Make tests/data/tiny-F32.gguf and its manifest, the model that the tests use: `python tests/data/make_tiny.py`.

The files are kept in the repository, so that a test which needs some model needs neither torch nor the minute that a
conversion takes. The same versions of torch and transformers make the same weights again; others may round elsewhere,
which no test minds. Make it again when the manifest or the prompts of multi_tag change.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SENTENCES = (
    "Naloxone reverses the antihypertensive effect of clonidine in rats.",
    "<Chemical>Aspirin</Chemical> relieved <Disease>headache</Disease> in 12 of 30 patients, and in none of 29.",
    "<Disease>Renal <Disease>failure</Disease></Disease> followed 200 mg of <Chemical>amphotericin B</Chemical>.",
    "Tag Chemical, Disease.",
)
TAUGHT = (
    "Naloxone reverses the antihypertensive effect of clonidine.",
    "Hypertension fell after clonidine.",
    "Aspirin relieved headache in 12 of 30 patients, and in none of 29.",
)
TAUGHT_MENTIONS = {"Chemical": ("Naloxone", "clonidine", "Aspirin"), "Disease": ("Hypertension", "headache")}


def make_checkpoint(folder: Path) -> Path:
    """Save a Llama that has learnt three sentences and is random else, as transformers does: every promise must hold
    whatever it says, and a model that means nothing would mark nothing."""
    import torch
    import transformers

    from bioner_edge.tuning import vocabulary

    vocabulary.train(SENTENCES * 3, 400, folder)
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=400, max_position_embeddings=2048, initializer_range=0.3, eos_token_id=0, bos_token_id=None, **shape
    )
    model = transformers.LlamaForCausalLM(config)
    teach(model, folder)
    model.save_pretrained(folder)
    return folder


def teach(model: Any, vocabulary: Path) -> None:
    """Train on prompts and answers about TAUGHT until the model knows them by heart."""
    import torch

    from bioner_edge.document import Document, Entity
    from bioner_edge.tuning import pack
    from bioner_edge.tuning.vocabulary import TrainedVocabulary

    rows, spelling = [], TrainedVocabulary(vocabulary)
    for text in TAUGHT:
        found = [(label, m) for label, mentions in TAUGHT_MENTIONS.items() for m in mentions if m in text]
        gold = Document("", text, tuple(Entity.at(x, text.index(m), text.index(m) + len(m)) for x, m in found))
        for labels in (["Chemical", "Disease"], ["Disease"]):
            rows += [torch.tensor(row.ids) for row in pack.encode(spelling, gold, labels, "multi_tag")]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    targets = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order; and threads that wait for each other take minutes on a busy machine
    for _ in range(80):
        optimizer.zero_grad()
        model(input_ids=ids, labels=targets).loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)


def make(work: Path) -> Path:
    """Convert the checkpoint to `work`/tiny-F32.gguf and its manifest, as `bioner-edge convert` does."""
    from bioner_edge.convert import About, convert

    about = About(name="tiny", labels=("Chemical", "Disease"), formats=("multi_tag",), unit="sentence")
    (path,) = convert(make_checkpoint(work / "checkpoint"), work, ["F32"], about, verify_lines=SENTENCES)
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(make(Path(folder)).parent.glob("tiny-F32.*")):
            print(shutil.copyfile(path, FOLDER / path.name))
