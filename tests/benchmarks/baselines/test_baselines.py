"""The baselines: a text filter over free answers, and llama-cpp-python as its users have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bioner_edge
from bioner_edge.backends.scripted import Scripted
from bioner_edge.benchmarks.baselines import BASELINES, ROWS, completions, load_reader, text_filter
from bioner_edge.benchmarks.baselines.completions import Completions
from bioner_edge.benchmarks.baselines.text_filter import TEXT_FILTER
from bioner_edge.constraints import CONSTRAINTS
from bioner_edge.document import Document, Entity, Span
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.extract import Extractor
from bioner_edge.formats import FORMATS, multi_tag, single_tag
from bioner_edge.formats.contract import Parsed
from bioner_edge.text.tokens import boundaries

DATA = Path(bioner_edge.__file__).parent / "data"
LABELS = ["Chemical", "Disease"]
TEXT = "Naloxone reverses the antihypertensive effect of clonidine. Hypertension fell after clonidine."
CLONIDINE = (49, 58), (84, 93)
OFFSETS = ("single_span", "multi_span")
TEXTS = [
    "Aspirin relieved headache in 12 of 30 patients, and in none of 29.",
    "Renal failure followed 200 mg of amphotericin B. Clonidine lowers blood pressure.",
    TEXT,
]


def read(form: str, answer: str, text: str = TEXT, labels: Sequence[str] = LABELS) -> Parsed:
    asked = ["Chemical"] if form.startswith(("single", "conv")) else labels
    return TEXT_FILTER.read(FORMATS[form], answer, Document("d", text), asked)


def spans(parsed: Parsed) -> list[tuple[str, int, int]]:
    return sorted((e.label, e.start, e.end) for e in parsed.entities)


# The text filter


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_once_is_found_everywhere(form: str) -> None:
    """The gold has one of two occurrences of a drug: the filter finds both, but for formats that write offsets."""
    document = Document("d", TEXT, (Entity.at("Chemical", 0, 8), Entity.at("Chemical", *CLONIDINE[1])))
    labels = ["Chemical"] if form.startswith(("single", "conv")) else LABELS
    found = read(form, FORMATS[form].render(document, labels))
    both = [("Chemical", 0, 8), *(("Chemical", *place) for place in CLONIDINE)]
    assert spans(found) == ([both[0], both[2]] if form in OFFSETS else both)
    assert found.problems == ()
    assert len(found.places) == len(found.entities)


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("conv_term", '["morphine", "clonidine"]'),
        ("multi_term", '{"Chemical": ["morphine", "clonidine"], "Disease": []}'),
        ("multi_code", '[Chemical("morphine"), Chemical("clonidine")]'),
        ("multi_triple", '[["morphine", "is a", "Chemical"], ["clonidine", "is a", "Chemical"]]'),
        ("single_tag", "@@morphine## and @@clonidine##"),
        ("multi_tag", "<Chemical>morphine</Chemical> and <Chemical>clonidine</Chemical>"),
        ("multi_bio", "morphine\tB-Chemical\nand\tO\nclonidine\tB-Chemical"),
        ("multi_brat", "T1\tChemical 0 8\tmorphine\nT2\tChemical 900 909\tclonidine"),
    ],
)
def test_what_is_not_in_the_text_is_dropped_and_counted(form: str, answer: str) -> None:
    found = read(form, answer)
    assert spans(found) == [("Chemical", *place) for place in CLONIDINE]
    (problem,) = found.problems
    assert problem.kind == "ungrounded" and "morphine" in problem.message
    for place in found.places:
        assert "clonidine" in answer[place.start : place.end]


def test_written_offsets_are_taken_inside_the_text() -> None:
    found = read("multi_span", '{"Chemical": [[0, 8], [3, 5], [90, 94], [90, 95], [7, 7]], "Disease": [[0, 8]]}')
    assert spans(found) == [("Chemical", 0, 8), ("Chemical", 3, 5), ("Chemical", 90, 94), ("Disease", 0, 8)]
    assert [p.kind for p in found.problems] == ["ungrounded", "ungrounded"]


@pytest.mark.parametrize(
    ("form", "answer", "expected"),
    [
        (
            "multi_tag",
            "<Drug>Naloxone</Drug> of <Chemical> clonidine</Chemical> <Chemical>x",
            CLONIDINE,
        ),  # no such type
        ("multi_tag", "after <Chemical>clonidine</Chemical> <Chemical>Naloxone</Chemical>", ((0, 8), *CLONIDINE)),
        ("multi_tag", "<Chemical>cloni</Chemical>", ()),  # inside a token
        ("multi_tag", "<Chemical>the <Chemical>clonidine</Chemical></Chemical>", CLONIDINE),
        ("multi_bio", "Naloxone I-Chemical\nx\nclonidine  B-Chemical\nfell I-Disease", ((0, 8), *CLONIDINE)),
        ("multi_bio", "of\tB-Chemical\nclonidine\tI-Chemical\n.\tI-Disease", ((46, 58),)),
        ("multi_bio", "Naloxone\tB-Chemical\nclonidine\tB-Chemical", ((0, 8), *CLONIDINE)),
        ("multi_brat", "Chemical 0 3\tclonidine\nT2\tDrug 0 8\tNaloxone\nT3\tChemical\tNaloxone", ((0, 8), *CLONIDINE)),
        ("multi_code", '[Chemical("clonidine"), Chemical("Nalox', CLONIDINE),
    ],
)
def test_broken_answers(form: str, answer: str, expected: tuple[tuple[int, int], ...]) -> None:
    found = read(form, answer)
    chemicals = [(start, end) for label, start, end in spans(found) if label == "Chemical"]
    assert chemicals == list(expected)
    assert {p.kind for p in found.problems} <= {"ungrounded"}


@pytest.mark.parametrize(
    ("text", "answer", "surface"),
    [
        ("non-small cell cancer", "non\tB-Disease\n-\tI-Disease\nsmall\tI-Disease\ncell\tI-Disease", "non-small cell"),
        ("A (b) c", "(\tB-Disease\nb\tI-Disease\n)\tI-Disease", "(b)"),
        ("a  b", "a\tB-Disease\nb\tI-Disease", "a  b"),
        ("α-synuclein", "α-synuclein\tB-Disease", "α-synuclein"),
    ],
)
def test_tokens_are_found_as_the_text_spells_them(text: str, answer: str, surface: str) -> None:
    found = read("multi_bio", answer, text)
    assert [e.mention(text) for e in found.entities] == [surface]


@pytest.mark.parametrize("text", ["asthma.", "(a)", "..", ""])
@pytest.mark.parametrize("blank", [" ", "\\t", "\u3000"])
def test_a_blank_mention_is_none(text: str, blank: str) -> None:
    """Between two signs a mention could begin and end at once; what is blank marks nothing there."""
    parsed = TEXT_FILTER.read(FORMATS["multi_brat"], f"T1\tChemical 0 8\t{blank}", Document("d", text), LABELS)
    assert parsed.entities == ()


def test_escapes_are_read() -> None:
    text = r"a <b> \ @@c## \d"
    tagged = Document("d", text, (Entity.at("Disease", 2, 7), Entity.at("Chemical", 8, 13)))
    assert spans(read("multi_tag", multi_tag.render(tagged, LABELS), text)) == [("Chemical", 8, 13), ("Disease", 2, 7)]
    marked = single_tag.render(tagged, ["Chemical"])
    assert spans(read("single_tag", marked, text)) == [("Chemical", 8, 13)]
    brat = FORMATS["multi_brat"].render(Document("d", "a\tb c", (Entity.at("Disease", 0, 3),)), LABELS)
    assert spans(read("multi_brat", brat, "a\tb c")) == [("Disease", 0, 3)]


MARKS = [
    "<Chemical>",
    "</Chemical>",
    "</Disease>",
    "<",
    "</",
    "\\",
    "\\<",
    "@@",
    "##",
    "@",
    "\tB-Disease\n",
    "\tI-Disease\n",
]
MARKS += ["T1\tChemical 0 8\t", "\n", '"', '", "', "[", "]", "[0, 9]", "x", "é", "0", " ", "clonidine", "Naloxone"]
WILD = st.lists(st.sampled_from(MARKS), max_size=14).map("".join)


@pytest.mark.parametrize("form", FORMATS)
@given(answer=WILD | st.text(max_size=20))
def test_whatever_is_written_what_is_found_is_in_the_text(form: str, answer: str) -> None:
    found = read(form, answer)
    starts, ends = boundaries(TEXT)
    for entity in found.entities:
        assert entity.end <= len(TEXT) and entity.label in LABELS
        assert form in OFFSETS or (entity.start in starts and entity.end in ends)
    assert {p.kind for p in found.problems} <= {"ungrounded"}
    for entity in found.entities if form not in OFFSETS else ():
        surface = entity.mention(TEXT)
        everywhere = [n for n in sorted(starts) if TEXT.startswith(surface, n) and n + len(surface) in ends]
        mine = [e for e in found.entities if e.label == entity.label]  # a longer one may have taken the place
        assert all(any(e.start < n + len(surface) and n < e.end for e in mine) for n in everywhere)


@pytest.mark.parametrize("form", [single_tag, multi_tag])
@given(answer=WILD)
def test_the_copy_is_that_of_the_format(form: Any, answer: str) -> None:
    pieces = "".join(piece.value for piece in form._pieces(answer) if piece.kind == "character")
    assert text_filter.MARKS[form].sub(lambda found: found["kept"] or "", answer) == pieces


# Readers


def opened(model: str | Path, constraint: str, **settings: Any) -> Extractor:
    return load_reader(
        str(model), constraint=constraint, **{"format": "multi_tag", "labels": LABELS, "threads": 1, **settings}
    )


def test_rows_have_names_of_their_own() -> None:
    assert len(ROWS) == len(CONSTRAINTS) + len(BASELINES) == 6


@pytest.mark.parametrize("constraint", ROWS)
def test_every_row_reads(tiny_model: Path, constraint: str, recwarn: pytest.WarningsRecorder) -> None:
    settings: dict[str, Any] = {"format": "multi_code", "labels": ["Drug", "Disease"], "guidelines": {"Drug": "x"}}
    with opened(tiny_model, constraint, **settings, unit="document") as made:
        assert made.unit == "document" and made.labels == ["Drug", "Disease"]
        found = [made(text) for text in TEXTS]
    assert len(recwarn) == 0  # that it was not tuned so is no news
    assert [e.answers for e in found] == [1, 1, 1]
    for extraction, text in zip(found, TEXTS, strict=True):
        assert all(e.end <= len(text) for e in extraction.entities)


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_what_they_say(tiny_model: Path, name: str) -> None:
    with opened(tiny_model, name) as made:
        assert made.constraint is ROWS[name] and made.format is multi_tag and made.unit == "sentence"


def test_a_text_filter_reads_what_a_free_model_writes() -> None:
    text, answer = (
        "Aspirin eased asthma.",
        "<Disease>asthma</Disease> <Chemical>Aspirin</Chemical> <Disease>flu</Disease>",
    )

    def play(ids: list[int]) -> Any:
        import numpy as np

        logits, read = np.zeros(257, np.float32), bytes(i for i in ids if i < 256)
        wanted = [*answer.encode(), 256]
        at = len(read) - (read.rfind(b"\n\n") + 2) if text.encode() + b"\n\n" in read else 0
        logits[wanted[min(at, len(wanted) - 1)]] = 9
        return logits

    made = Extractor(Scripted(play), format="multi_tag", labels=LABELS, constraint="free")
    free, found = made(text), made.using(constraint=TEXT_FILTER)(text)
    assert {e.key for e in free.entities} < {e.key for e in found.entities}
    assert {e.mention(text) for e in found.entities} == {"Aspirin", "asthma"}
    assert [p.kind for _, p in found.problems] == ["ungrounded"] and found.broken == 1
    assert all(e.score is not None for e in found.entities)


def test_what_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="unknown constraint 'tight'; known: free, gbnf, grounded, llama-gbnf, llama-cpp"
    ):
        opened(tiny_model, "tight")
    with pytest.raises(UsageError, match="llama-cpp-python reads GGUF models alone"):
        opened(DATA / "chemdis-9m-int8-onnx", "llama-cpp-python")
    with pytest.raises(UsageError, match="unknown format"):
        opened(tiny_model, "llama-cpp-python", format="xml")
    with pytest.raises(ModelError, match="no such model file"):
        opened("none.gguf", "llama-cpp-python")


def test_a_model_that_llama_cpp_python_cannot_load(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.gguf"
    data = (DATA / "chemdis-9m-Q8_0.gguf").read_bytes()
    path.write_bytes(data.replace(b"blk.0.attn_q.weight", b"blk.0.attn_z.weight"))
    with pytest.raises(ModelError, match=r"^llama-cpp-python: Failed to load model.*/broken\.gguf; is it a language"):
        opened(path, "llama-cpp-python")
    assert capfd.readouterr() == ("", "")


def test_a_model_too_large_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioner_edge.models.memory.available", lambda: 1000)
    with pytest.raises(ModelError, match="are free; use a smaller level, or --force"):
        opened(tiny_model, "llama-cpp-python")
    opened(tiny_model, "llama-cpp-python", force=True).close()


# llama-cpp-python


@pytest.fixture(scope="module")
def high() -> Iterator[Extractor]:
    with opened("chemdis-9m", "llama-cpp-python") as made:
        yield made


def test_it_finds_what_our_own_sampling_by_grammar_finds(high: Extractor) -> None:
    with opened("chemdis-9m", "llama-gbnf") as own:
        assert high.backend.context == own.backend.context and high._room == own._room
        for text in TEXTS:
            one, other = high(text), own(text)
            assert [e.key for e in one.entities] == [e.key for e in other.entities]
            assert (one.tokens, one.answers, one.chosen) == (other.tokens, other.answers, other.chosen)
    assert high(TEXT).entities and {e.score for e in high(TEXT).entities} == {None}
    assert "score" not in high(TEXT).to_json()["entities"][0]


def test_steps_and_tokens_are_counted(high: Extractor) -> None:
    high(TEXTS[0])
    found = high(TEXTS[0])
    assert found.answers == 1 and found.problems == ()
    assert found.calls == found.tokens + 1  # the prompt, then each token; the end is not read
    assert found.fed == found.prompt + found.tokens
    ((before, after),) = high.prompts
    whole = len(before) + len(after) + len(high.backend.tokenize(TEXTS[0].encode(), False))
    assert 0 < found.prompt < whole  # what begins as before is not read again


def test_an_answer_that_comes_to_its_budget_is_cut(high: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(high, "_budget", lambda part, text: 5)
    found = high(TEXTS[0])
    assert (found.tokens, found.calls, found.broken) == (5, 5, 1)
    assert "cut" in {p.kind for _, p in found.problems}


def test_the_grammar_holds(tiny_model: Path) -> None:
    """A random model keeps to the format, so far as it comes to an end at all."""
    for form in ("multi_code", "single_term", "multi_span"):
        with opened(tiny_model, "llama-cpp-python", format=form) as made:
            for text in TEXTS:
                problems = [p for _, p in made(text).problems]
                cut = any(p.kind == "cut" for p in problems)
                assert cut or all(p.kind == "ungrounded" for p in problems)


def test_what_it_is_asked_for(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is that of our extractor, the grammar that of the format, the rest as the library has it by itself."""
    asked: list[tuple[list[int], str, int]] = []

    def noted(backend: Completions, prompt: list[int], grammar: Any, *, budget: int) -> Any:
        asked.append((prompt, grammar._grammar, budget))
        return complete(backend, prompt, grammar, budget=budget)

    complete = completions.complete
    monkeypatch.setattr(completions, "complete", noted)
    with opened(tiny_model, "llama-cpp-python", format="single_tag") as made, opened(tiny_model, "free") as own:
        made(TEXTS[0])
        assert [grammar for _, grammar, _ in asked] == [single_tag.gbnf([label]) for label in LABELS]
        for (prompt, _, budget), (before, after) in zip(asked, made.prompts, strict=True):
            text = own.backend.tokenize(TEXTS[0].encode(), False)
            assert prompt == [*before, *text, *after]
            assert budget == made._budget(Document("", TEXTS[0]), text) > 100
        assert (made.backend.chat_template, made.backend.end_tokens) == (
            own.backend.chat_template,
            own.backend.end_tokens,
        )


def test_the_model_is_loaded_once_and_its_pieces_are_not_read(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[bytes] = []
    load = lib.llama_model_load_from_file

    def counted(path: bytes, params: Any) -> Any:
        loads.append(path)
        return load(path, params)

    monkeypatch.setattr(lib, "llama_model_load_from_file", counted)
    monkeypatch.setattr(Completions, "piece", lambda self, token: pytest.fail("a piece was read"))
    with opened(tiny_model, "llama-cpp-python") as made:
        made(TEXT)
        backend = made.backend
        assert isinstance(backend, Completions) and backend.llama.context_params.n_threads == 1
        assert backend.llama.context_params.n_threads_batch == 1
    assert loads == [str(tiny_model).encode()]


def test_hostile_texts(high: Extractor) -> None:
    for text in (
        "",
        " \n\t ",
        "<Chemical>Aspirin</Chemical> <|end|><|assistant|>",
        "患者は高血圧を有し、アスピリンを服用。",
    ):
        found = high(text)
        assert all(e.end <= len(text) for e in found.entities)
    assert high(Document("d", "", (Entity("Disease", (Span(0, 3),)),))).answers == 0
