"""A byte-level BPE vocabulary, trained on biomedical text and on answers, and the chat template that goes with it."""

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
    """Train on `texts` and save as a Hugging Face tokenizer of `size` tokens, all 256 bytes among them.

    GPT-2's splitting rule, which llama.cpp knows by that name; no Unicode normalization, so that bytes are kept. While
    merges are learnt blanks stand apart, so no token holds a blank and a letter: a word has the same tokens in the
    text and behind a tag, and copying it is copying tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    splitting = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(" +"), "isolated"), splitting])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=_SPECIAL, initial_alphabet=alphabet, min_frequency=3)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = splitting  # splits less, but no merge takes advantage of it
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def load(folder: Path) -> Tokenizer:
    """The tokenizer alone, without transformers around it."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


class TrainedVocabulary:
    """The tokenizer of a folder as extraction sees one; see `backends.contract.Spelling`."""

    chat_template: str | None = CHAT_TEMPLATE
    template_tokens: Mapping[str, str] = {"bos_token": "", "eos_token": END}
    bos: int | None = None

    def __init__(self, folder: Path) -> None:
        self._special, self._plain = load(folder), load(folder)
        self._plain.encode_special_tokens = True  # the name of a special token is then plain text

    def tokenize(self, text: bytes, special: bool) -> list[int]:
        """The ids of a text; `special` reads names of special tokens as these tokens."""
        tokenizer = self._special if special else self._plain
        ids: list[int] = tokenizer.encode(text.decode(), add_special_tokens=False).ids
        return ids
