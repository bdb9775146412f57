"""What runs under a limit of memory: the script, and what it says of each end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bioner_edge.benchmarks.studies import capped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")


def test_the_bundled_model_under_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert capped.main(["chemdis-9m", "--caps", "4"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    name, _, estimate, end = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "chemdis-9m-Q8_0" and 20 < int(estimate) < 100
    assert end.startswith("runs, ") and end.endswith(" MB")


def test_without_groups_it_is_a_limit_on_addresses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capped, "_GROUPS", tmp_path / "nowhere")
    assert capped.main(["chemdis-9m", "--caps", "0.2,8"]) == 0
    out = capsys.readouterr().out
    small, large = (cell.strip() for cell in out.splitlines()[-1].strip("|").split("|")[-2:])
    assert "limits by ulimit -v" in out
    assert not small.startswith("runs") and large.startswith("runs, ")


def test_a_model_that_is_refused_is_tried_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(path: Path, cap: int, group: Path | None, more: list[str]) -> capped._End:
        asked.append(more)
        return capped._End(-9, "", 0) if more else capped._End(2, "m: needs about 2.0 GB of memory, 1.0 GB are free", 0)

    monkeypatch.setattr(capped, "_run", run)
    assert capped._cell(Path("m.gguf"), 10**9, None) == "refused (with --force: killed)"
    assert asked == [[], ["--force"]]


@pytest.mark.parametrize(
    ("code", "told", "wanted"),
    [
        (0, "", "runs, 100 MB"),
        (-9, "", "killed"),
        (2, "cannot load it", "fails (cannot load it)"),
        (capped._NEVER, "", "no end in 10 minutes"),
    ],
)
def test_how_a_run_ended(code: int, told: str, wanted: str) -> None:
    assert capped._describe_end(capped._End(code, told, 100_000_000)) == wanted


def test_an_unknown_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert capped.main(["nothing"]) == 2
    assert capsys.readouterr().err.startswith("capped: unknown model 'nothing'")
