"""Weights as QLoRA sees them."""

from __future__ import annotations

import numpy as np
import pytest

from bioner_edge.convert.merging import nf4


def test_nf4_by_hand() -> None:
    """Two blocks with scales 1 and 3: their mean is 2, and the nearest level to -1 is -0.99296875, so 1 comes back as
    1.00703125; 3 comes back as it is, and so do multiples of it that are levels."""
    values = np.zeros((2, 64), np.float32)
    values[0, :4] = 1, -1, 0.8, 0.04  # 0.8 lies nearer to 0.723 than to 1, 0.04 to 0.0796 than to 0
    values[0, 4] = np.float32(0.07958029955625534) / 2  # halfway: the lower level
    values[1, :3] = 3, -3 * 0.5250730514526367, 3 * 0.0398  # halfway from 0 to 0.0796 is 0.03979
    back = nf4.round_values(values.copy())
    scale = np.float32(1.00703125)
    assert back[0, :4] == pytest.approx([scale, -scale, scale * 0.7229568362236023, scale * 0.07958029955625534])
    assert back[1, :3] == pytest.approx([3, -3 * 0.5250730514526367, 3 * 0.07958029955625534])
    assert not back[0, 4:].any() and not back[1, 3:].any()


def test_nf4_is_that_of_bitsandbytes() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.manual_seed(0)
    weight = (torch.randn(512, 256) * 0.02).bfloat16()
    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    state.dtype = torch.float32
    theirs = functional.dequantize_4bit(packed, state).numpy()
    ours = nf4.round_values(weight.float().numpy())
    away = np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-9)
    assert away.max() < 0.015 and (away > 1e-6).mean() < 0.01 and (np.sign(ours) == np.sign(theirs)).all()
