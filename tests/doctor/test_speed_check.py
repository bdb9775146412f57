"""What `doctor` tells of kernels and speed was tried and measured on this machine."""

from __future__ import annotations

import pytest

from bioner_edge.backends.kernels import FailedTrial
from bioner_edge.models import registry


def test_the_speed_is_measured() -> None:
    pytest.importorskip("llama_cpp")
    from bioner_edge.doctor.speed_check import measure

    found = measure()
    assert found["model"] == registry.default()
    assert all(found[f"{name}_per_s"] > 0 for name in ("prefill_tokens", "decode_tokens", "documents"))
    assert found["load_s"] > 0 and found["threads"] >= 1


def test_kernels_are_tried_also_where_no_choice_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build for another processor says of nothing that it does not work, until it is run."""
    pytest.importorskip("llama_cpp")
    from bioner_edge.doctor import speed_check

    assert speed_check.kernels()["failed"] is None
    monkeypatch.setattr(speed_check, "choose", lambda *_: "all")
    monkeypatch.setattr(speed_check, "trial", lambda model, used: FailedTrial("SIGILL", certain=True))
    assert speed_check.kernels() == {"used": "all", "failed": "SIGILL", "certain": True}
