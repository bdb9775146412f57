"""Where the corpora lie, a tiny model, and hypothesis without deadlines: a busy machine is no failure."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

ROOT = Path(__file__).parents[1]
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


def pytest_unconfigure() -> None:
    """llama-cpp-python opens these two files when it is imported and never closes them."""
    if module := sys.modules.get("llama_cpp._utils"):
        module.outnull_file.close()
        module.errnull_file.close()


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of the corpora, which are not part of the project."""
    path = Path(os.environ.get("BIONER_CORPORA") or ROOT.parent / "shared" / "corpora")
    if not path.is_dir():
        pytest.skip(f"no corpora: {path} is no folder; set $BIONER_CORPORA")
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that has learnt three sentences and is random else, a GGUF file with its manifest: every promise must
    hold whatever it says. A model that means nothing would mark nothing."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from bioner_edge.convert import About, convert
    from bioner_edge.tuning import vocabulary

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary.train(SENTENCES * 3, 400, folder / "checkpoint")
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=400, max_position_embeddings=2048, initializer_range=0.3, eos_token_id=0, bos_token_id=None, **shape
    )
    model = transformers.LlamaForCausalLM(config)
    _teach(model, folder / "checkpoint")
    model.save_pretrained(folder / "checkpoint")
    about = About(name="tiny", labels=("Chemical", "Disease"), formats=("multi_tag",), unit="sentence")
    (path,) = convert(folder / "checkpoint", folder, ["F32"], about, verify_lines=SENTENCES)
    return path


def _teach(model: Any, vocabulary: Path) -> None:
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
    torch.set_num_threads(1)  # threads that wait for each other take minutes beside a busy program
    for _ in range(80):
        optimizer.zero_grad()
        model(input_ids=ids, labels=targets).loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """A function that waits until another one finds something, and gives that back."""

    def wait(found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if value := found():
                return value
            time.sleep(0.02)
        raise AssertionError("it did not come to that")

    return wait


@pytest.fixture
def gone(until: Callable[[Callable[[], Any]], Any]) -> Callable[[int], None]:
    """A function that waits until a process is no more."""
    if not Path("/proc/self").exists():
        pytest.skip("this system does not tell its processes")

    def no_more(pid: int) -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    return lambda pid: until(lambda: no_more(pid)) and None


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, here and in processes started from here; a job in the background is started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
