"""Train a byte-level BPE vocabulary on biomedical text and answers; the chat template that goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["CHAT_TEMPLATE", "END", "TrainedVocabulary", "load", "train"]

END = "<|end|>"
_SPECIAL = [END, "<|system|>", "<|user|>", "<|assistant|>"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train(texts: Iterable[str], size: int, folder: Path) -> None:
    """Train on `texts` and save a Hugging Face tokenizer of `size` tokens, including all 256 bytes.

    It uses GPT-2's pre-tokenizer, which llama.cpp knows, and no Unicode normalization, so that bytes are kept. Blanks
    are separated while merges are learned, so no token mixes a blank and a letter: a word has the same tokens in the
    text and after a tag, and copying it means copying tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    splitting = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(" +"), "isolated"), splitting])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=_SPECIAL, initial_alphabet=alphabet, min_frequency=3)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = splitting  # splits less, but the merges make no use of it
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def load(folder: Path) -> Tokenizer:
    """Load the tokenizer, without transformers."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


class TrainedVocabulary:
    """The tokenizer of a folder as a `backends.contract.Spelling`."""

    chat_template: str | None = CHAT_TEMPLATE
    template_tokens: Mapping[str, str] = {"bos_token": "", "eos_token": END}
    bos: int | None = None

    def __init__(self, folder: Path) -> None:
        self._special, self._plain = load(folder), load(folder)
        self._plain.encode_special_tokens = True  # the name of a special token is then plain text

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """The ids of a text; `special` also parses names of special tokens."""
        tokenizer = self._special if special else self._plain
        ids: list[int] = tokenizer.encode(text.decode(), add_special_tokens=False).ids
        return ids
