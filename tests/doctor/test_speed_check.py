"""The speed that `doctor` tells is measured on this machine."""

from __future__ import annotations

import pytest

from bioner_edge.models import registry


def test_the_speed_is_measured() -> None:
    pytest.importorskip("llama_cpp")
    from bioner_edge.doctor.speed_check import measure

    found = measure()
    assert found["model"] == registry.default()
    assert all(found[f"{name}_per_s"] > 0 for name in ("prefill_tokens", "decode_tokens", "documents"))
    assert found["load_s"] > 0 and found["threads"] >= 1
