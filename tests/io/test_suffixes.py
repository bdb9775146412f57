"""One rule tells a format by a file's name, for what is read and for what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioner_edge.errors import UsageError
from bioner_edge.io.registry import FILE_FORMATS, by_suffix, output_format, suffixes

WRITTEN = ".jsonl, .ndjson, .pubtator"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("found.jsonl", "jsonl"),
        ("found.NDJSON", "jsonl"),
        ("found.pubtator", "pubtator"),
        ("Dev.PubTator.txt", "pubtator"),
        ("found", "jsonl"),
        ("folder.v2/found", "jsonl"),
        ("found.", "jsonl"),
        (".found", "jsonl"),
    ],
)
def test_an_output_that_its_name_tells(name: str, expected: str) -> None:
    assert output_format(Path(name)).name == expected
    assert by_suffix(name) in (FILE_FORMATS[expected], None)


def test_a_suffix_names_one_format() -> None:
    assert len(suffixes()) == sum(len(known.all_suffixes) for known in FILE_FORMATS.values())
    assert all(known.read or known.is_written for known in FILE_FORMATS.values())


def test_standard_output_is_json_lines() -> None:
    assert output_format(None).name == "jsonl"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *(
            (f"f{told}", f"f{told}: {told.lower()} is not the suffix of an output format ({WRITTEN})")
            for told in (".csv", ".xml", ".conll", ".json", ".tsv", ".html", ".txt", ".md", ".XLSX", ".pubtator3")
        ),
        ("my.pubtator.csv", "my.pubtator.csv: .csv is not the suffix"),
        ("f.ann", "f.ann: brat is written as a folder of pairs; give --to brat and a folder as --out"),
        ("f.a2", "f.a2: brat is written as a folder of pairs"),
        ("f.jsonl.gz", "f.jsonl.gz: compressed files are not written; leave out .gz, and compress it afterwards"),
        ("f.zip", "f.zip: compressed files are not written"),
    ],
)
def test_an_output_by_the_name_of_something_else_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        output_format(Path(name))
    assert str(refused.value).startswith(message)
