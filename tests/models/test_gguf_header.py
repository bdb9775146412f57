"""The header check: a sound file is read, any other is a ModelError, and nothing else ever."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bioner_edge.errors import ModelError
from bioner_edge.models.gguf_header import BLOCKS, Array, Tensor, check, read

U32, I32, F32, STRING, ARRAY = 4, 5, 6, 8, 9


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: str) -> bytes:
    return u64(len(text.encode())) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + u32(kind) + value


def strings(*values: str) -> bytes:
    return u32(STRING) + u64(len(values)) + b"".join(map(string, values))


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return string(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(kind) + u64(offset)


PAIRS = (
    pair("general.architecture", STRING, string("llama")),
    pair("llama.block_count", U32, u32(2)),
    pair("tokenizer.ggml.tokens", ARRAY, strings("a", "β", "")),
    pair("tokenizer.ggml.token_type", ARRAY, u32(I32) + u64(3) + bytes(12)),
    pair("tokenizer.ggml.add_bos_token", 7, b"\0"),
)
TENSORS = (tensor("a.weight", (32, 3), 8, 0), tensor("b.weight", (5,), 0, 128))


def gguf(
    pairs: tuple[bytes, ...] = PAIRS, tensors: tuple[bytes, ...] = TENSORS, data: int = 148, version: int = 3
) -> bytes:
    head = b"GGUF" + u32(version) + u64(len(tensors)) + u64(len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


GOOD = gguf()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        return path

    return write


def test_a_sound_file(file: Callable[[bytes], Path]) -> None:
    header = read(file(GOOD))
    assert header.metadata == {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "tokenizer.ggml.tokens": Array("string", 3),
        "tokenizer.ggml.token_type": Array("i32", 3),
        "tokenizer.ggml.add_bos_token": False,
    }
    assert header.tensors == (Tensor("a.weight", "Q8_0", (32, 3), 102), Tensor("b.weight", "F32", (5,), 20))
    assert check(file(gguf(version=2))) == header.metadata


def test_block_sizes_are_those_of_gguf() -> None:
    constants = pytest.importorskip("gguf.constants")
    theirs = constants.GGML_QUANT_SIZES
    for number, (name, block, width) in BLOCKS.items():
        assert theirs[constants.GGMLQuantizationType[name]] == (block, width)
        assert constants.GGMLQuantizationType[name] == number


def with_pair(value: bytes) -> bytes:
    return gguf((*PAIRS, value))


def with_tensors(*values: bytes) -> bytes:
    return gguf(tensors=values, data=4096)


HUGE = 2**63
HALVES = strings("a", "b").replace(b"a", b"\xce").replace(b"b", b"\xb2")  # a beta, if they stood together
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "m.gguf: empty, not a GGUF file"),
    "text": (b"Once upon a time", "not a GGUF file (it does not start with 'GGUF'); convert the model first"),
    "magic alone": (b"GGUF", "at byte 4: the version needs 4 bytes, the file has 0 left"),
    "version": (gguf(version=1), "at byte 4: version 1, only 2 and 3"),
    "big-endian": (gguf(version=3 << 24), "at byte 4: version 50331648, only 2 and 3 (little-endian)"),
    "tensor count": (b"GGUF" + u32(3) + u64(HUGE) + u64(0), f"at byte 24: a header of {HUGE} tensors and 0 keys needs"),
    "key count": (b"GGUF" + u32(3) + u64(0) + u64(HUGE), f"a header of 0 tensors and {HUGE} keys needs"),
    "key length": (with_pair(u64(HUGE) + bytes(20)), f"a key claims {HUGE} bytes, more than 65535"),
    "string length": (with_pair(pair("k", STRING, u64(2**64 - 1))), "the value of 'k' claims 18446744073709551615"),
    "string past the end": (with_pair(pair("k", STRING, u64(9999))), "the value of 'k' needs 9999 bytes"),
    "value type": (with_pair(pair("k", 77, bytes(4))), "unknown type 77 of 'k'"),
    "array length": (with_pair(pair("k", ARRAY, u32(U32) + u64(HUGE))), f"'k' of {HUGE} values needs"),
    "array of strings": (with_pair(pair("k", ARRAY, u32(STRING) + u64(HUGE))), f"'k' of {HUGE} strings needs"),
    "string in an array": (
        with_pair(pair("k", ARRAY, u32(STRING) + u64(2) + u64(2**64 - 1) + u64(0))),
        "the strings of 'k' run past the end of the file",
    ),
    "last string in an array": (
        with_pair(pair("k", ARRAY, u32(STRING) + u64(1) + u64(9999))),
        "the strings of 'k' run past the end of the file",
    ),
    "array of arrays": (with_pair(pair("k", ARRAY, (u32(ARRAY) + u64(1)) * 9999)), "'k' is an array of array"),
    "array of what": (with_pair(pair("k", ARRAY, u32(99) + u64(0))), "'k' is an array of type 99, which no model uses"),
    "key twice": (with_pair(PAIRS[0]), "key 'general.architecture' twice"),
    "no architecture": (gguf(PAIRS[1:]), "no general.architecture"),
    "architecture's type": (gguf((pair("general.architecture", U32, u32(1)),)), "must be a string"),
    "tokens' type": (gguf((PAIRS[0], pair("tokenizer.ggml.tokens", U32, u32(1)))), "must be an array, its type is u32"),
    "tokens' elements": (
        gguf((PAIRS[0], pair("tokenizer.ggml.tokens", ARRAY, u32(U32) + u64(0)))),
        "'tokenizer.ggml.tokens' must hold string, not u32",
    ),
    "fewer types than tokens": (gguf(PAIRS[:2] + PAIRS[3:]), "token_type has 3 elements for 0 tokens"),
    "a token twice": (
        gguf((PAIRS[0], pair("tokenizer.ggml.tokens", ARRAY, strings("a", "b", "a")))),
        "a string of 'tokenizer.ggml.tokens' is duplicated",
    ),
    "zero in a token": (
        gguf((PAIRS[0], pair("tokenizer.ggml.tokens", ARRAY, strings("a", "b\0")))),
        "a string of 'tokenizer.ggml.tokens' holds a zero byte",
    ),
    "token of half a letter": (
        gguf((PAIRS[0], pair("tokenizer.ggml.tokens", ARRAY, strings("β", "a").replace(b"\xb2", b"a")))),
        "a string of 'tokenizer.ggml.tokens' is not UTF-8",
    ),
    "two halves of a letter": (
        gguf((PAIRS[0], pair("tokenizer.ggml.tokens", ARRAY, HALVES))),
        "a string of 'tokenizer.ggml.tokens' is not UTF-8",
    ),
    "empty merge": (
        with_pair(pair("tokenizer.ggml.merges", ARRAY, strings("a b", ""))),
        "a string of 'tokenizer.ggml.merges' is empty",
    ),
    "no layers": (gguf((PAIRS[0], pair("llama.block_count", U32, u32(0)))), "block_count 0, not a number from 1"),
    "layers": (gguf((PAIRS[0], pair("llama.block_count", U32, u32(513)))), "block_count 513, not a number from 1"),
    "epsilon": (
        with_pair(pair("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", -1e-6))),
        "llama.attention.layer_norm_rms_epsilon is -",
    ),
    "scores": (
        with_pair(pair("tokenizer.ggml.scores", ARRAY, u32(F32) + u64(1) + bytes(4))),
        "tokenizer.ggml.scores has 1 elements for 3 tokens",
    ),
    "alignment 0": (with_pair(pair("general.alignment", U32, u32(0))), "must be a u32 and a power of two"),
    "alignment 24": (with_pair(pair("general.alignment", U32, u32(24))), "must be a u32 and a power of two"),
    "alignment's type": (with_pair(pair("general.alignment", F32, u32(32))), "must be a u32 and a power of two"),
    "split": (with_pair(pair("split.count", U32, u32(3))), "one part of a split model; join the parts first"),
    "tensor name": (with_tensors(tensor("x" * 64, (1,), 0, 0)), "a tensor's name claims 64 bytes, more than 63"),
    "tensor twice": (with_tensors(TENSORS[0], TENSORS[0]), "tensor 'a.weight' twice"),
    "no dimensions": (with_tensors(tensor("a", (), 0, 0) + bytes(24)), "tensor 'a' has 0 dimensions"),
    "many dimensions": (with_tensors(string("a") + u32(2**31) + bytes(99)), "tensor 'a' has 2147483648 dimensions"),
    "dimension 0": (with_tensors(tensor("a", (4, 0), 0, 0)), "tensor 'a' of shape (4, 0) cannot be F32"),
    "half a block": (with_tensors(tensor("a", (40,), 8, 0)), "tensor 'a' of shape (40,) cannot be Q8_0 (blocks of 32)"),
    "tensor type": (with_tensors(tensor("a", (4,), 4, 0)), "tensor 'a' has the unknown type 4"),
    "overflow": (with_tensors(tensor("a", (2**32, 2**32, 2**32, 2**32), 0, 0)), "the tensors' data needs"),
    "overlap": (with_tensors(tensor("a", (64,), 0, 0), tensor("b", (4,), 0, 0)), "data at 0, it must be at 256"),
    "unaligned": (with_tensors(tensor("a", (4,), 0, 1)), "tensor 'a' has its data at 1, it must be at 0"),
    "cut data": (GOOD[:-1], "the tensors' data needs 148 bytes, the file has 147 left"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_damaged_file(file: Callable[[bytes], Path], content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        read(file(content))
    assert "m.gguf: " in str(caught.value) and "\n" not in str(caught.value)


def test_the_vocabulary_has_a_limit(file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioner_edge.models.gguf_header._MAX_WORDS", 2)
    with pytest.raises(ModelError, match=r"'tokenizer\.ggml\.tokens' of 3 strings, more than 2"):
        read(file(GOOD))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read(tmp_path / "x.gguf")


def test_every_truncation_is_noticed(file: Callable[[bytes], Path]) -> None:
    for length in range(len(GOOD)):
        with pytest.raises(ModelError):
            read(file(GOOD[:length]))


def attempt(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        read(path)
    except ModelError as error:
        assert "\n" not in str(error)


def fuzz(function: Any) -> Any:
    return settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])(
        function
    )


@fuzz
@given(content=st.binary(max_size=200), header=st.booleans())
def test_random_bytes(tmp_path: Path, content: bytes, header: bool) -> None:
    attempt(tmp_path / "m.gguf", (b"GGUF" + u32(3) if header else b"") + content)


@fuzz
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    length=st.integers(0, len(GOOD)),
)
def test_changed_bytes(tmp_path: Path, changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(GOOD)
    for at, value in changes:
        content[at] = value
    attempt(tmp_path / "m.gguf", bytes(content[: length if length % 3 == 0 else None]))


@fuzz
@given(
    at=st.integers(8, len(GOOD) - 8), value=st.sampled_from([0, 1, 2**31, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 1])
)
def test_hostile_numbers(tmp_path: Path, at: int, value: int) -> None:
    attempt(tmp_path / "m.gguf", GOOD[:at] + u64(value) + GOOD[at + 8 :])
