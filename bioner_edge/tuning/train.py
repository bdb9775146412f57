"""Train the student: a small Llama from scratch on packed rows, on a CPU or one CUDA GPU, resumable from checkpoints.

Training goes through the recipe's phases, each with its own formats and learning-rate schedule. The first part of a
phase draws from all rows, the last part (`gold_tail`) mostly from gold rows. The loss covers only the answer. Matrices
inside the layers are trained by Muon; embeddings, head and norms by AdamW.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bioner_edge.report import Report

__all__ = ["Rows", "train"]

Settings = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The packed rows (see pack.py) in memory."""

    tokens: np.ndarray
    starts: np.ndarray
    answers: np.ndarray
    gold: np.ndarray
    forms: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> Rows:
        with np.load(folder / "rows.npz") as packed:
            return cls(**{name: packed[name] for name in ("tokens", "starts", "answers", "gold", "forms")})

    def batch(self, chosen: np.ndarray, pad: int) -> tuple[Tensor, Tensor]:
        """Token ids (rows, length) and the loss weight of each (rows, length), 0 outside answers."""
        lengths = self.starts[chosen + 1] - self.starts[chosen]
        width = math.ceil(int(lengths.max()) / 16) * 16  # few widths, so that compiled code and buffers are reused
        ids = np.full((len(chosen), width), pad, np.int64)
        weights = np.zeros((len(chosen), width), np.float32)
        for n, (row, length) in enumerate(zip(chosen, lengths, strict=True)):
            ids[n, :length] = self.tokens[self.starts[row] : self.starts[row + 1]]
            weights[n, self.answers[row] : length] = 1.0
        return torch.from_numpy(ids), torch.from_numpy(weights)


@dataclass(frozen=True)
class _Phase:
    """A phase of training: steps [first, first + steps)."""

    first: int
    steps: int
    rate: float
    """Peak learning rate, as a share of `lr` and `lr_matrices`."""
    formats: tuple[float, ...]
    """The share of rows in each format, in the order of the recipe's formats."""
    model: str | None
    """The model to save at the end of the phase, if any."""


def _phases(settings: Settings) -> list[_Phase]:
    phases, first = [], 0
    for phase in settings["phases"]:
        shares = tuple(phase["formats"].get(name, 0.0) for name in settings["formats"])
        phases.append(_Phase(first, phase["steps"], phase["rate"], shares, phase.get("model")))
        first += phase["steps"]
    return phases


def _phase(settings: Settings, step: int) -> _Phase:
    """The phase that a step belongs to."""
    return next(p for p in reversed(_phases(settings)) if p.first <= step)


def _batches(rows: Rows, settings: Settings, step: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch from `step` on, the same for a resumed run as for an uninterrupted one."""
    lengths = rows.starts[1:] - rows.starts[:-1]
    counts = np.maximum(1, np.bincount(rows.forms, minlength=len(settings["formats"])))
    while True:
        generator = np.random.default_rng([settings["seed"], step])
        phase = _phase(settings, step)
        in_tail = step - phase.first >= int(phase.steps * (1 - settings["gold_tail"]))
        weights = np.where(rows.gold & in_tail, settings["tail_gold_weight"], 1.0)
        weights *= (np.asarray(phase.formats) / counts)[rows.forms]
        # Groups have about equally many tokens, so a uniform choice of group keeps each row's probability.
        pool = generator.choice(np.arange(len(lengths)), settings["pool"], p=weights / weights.sum())
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        groups = np.split(pool, np.flatnonzero(np.diff(np.cumsum(lengths[pool]) // settings["batch_tokens"])) + 1)
        yield groups[generator.integers(len(groups))]
        step += 1


def train(
    packed: Path, out: Path, settings: Settings, *, seconds: float | None = None, report: Report | None = None
) -> None:
    """Train through all phases; save the model of each phase that has one to `out`/NAME as a Hugging Face checkpoint.

    `out`/training.json marks the end of training. A run that was interrupted, or stopped after `seconds`, resumes from
    its last save.
    """
    torch.manual_seed(settings["seed"])
    rows = Rows.load(packed)
    run = _Run(packed, out, settings)
    ends = {phase.first + phase.steps: phase for phase in _phases(settings)}
    steps = max(ends)
    limit = math.inf if seconds is None else run.seconds + seconds
    began = time.monotonic() - run.seconds
    recent: list[Tensor] = []
    report, message = report or Report(), ""
    with report.progress("training", steps, "steps", run.step) as advance:
        for chosen in islice(_batches(rows, settings, run.step), steps - run.step):
            recent.append(run.advance(*rows.batch(chosen, 0)))
            run.seconds = time.monotonic() - began
            advance(note=message)
            if run.step % settings["log_every"] == 0:
                message = f"loss {torch.stack(recent).mean().item():.4f} {run.seen / run.seconds:.0f} tokens/s"
                report.step(f"step {run.step}/{steps} {message} {run.seconds:.0f} s")
                recent = []
            if run.step in ends and (name := ends[run.step].model):
                run.export(out / name)
            over = run.seconds >= limit
            if over or run.step % settings["save_every"] == 0 or run.step == steps:
                run.save()
            if over:
                report.step(f"stopped at step {run.step}; the same command resumes from there")
                return
    run.record(out)


class _Run:
    """A model with its optimizers and progress, resumed from a checkpoint in `out` if there is one."""

    def __init__(self, packed: Path, out: Path, settings: Settings) -> None:
        self.packed, self.out, self.settings = packed, out, settings
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = json.loads((packed / "tokenizer.json").read_text("utf-8"))
        self.model = _model(settings, len(tokenizer["model"]["vocab"]))
        _start_embeddings(self.model, packed, settings["embedding_std"])
        self.model.to(self.device)  # type: ignore[arg-type]  # transformers wraps `to` and loses its type
        self.optimizers = _optimizers(self.model, settings)
        self.loss = torch.compile(_loss, dynamic=True) if settings["compile"] else _loss
        self.step, self.seen, self.seconds = 0, 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        self.state_file = out / "state.pt"
        if self.state_file.exists():
            self._resume(torch.load(self.state_file, map_location=self.device, weights_only=True))

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seen, self.seconds = state["step"], state["seen"], state["seconds"]

    def advance(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Train one step on a batch of ids and weights, both (rows, length); returns the loss."""
        for group in (g for optimizer in self.optimizers for g in optimizer.param_groups):
            group["lr"] = group["peak"] * _schedule(self.step, self.settings)
        with torch.autocast(self.device, torch.bfloat16):
            loss: Tensor = self.loss(self.model, ids.to(self.device), weights.to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step, self.seen = self.step + 1, self.seen + ids.numel()
        return loss.detach()

    def save(self) -> None:
        """Save the checkpoint that a later run resumes from."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "seen": self.seen,
            "seconds": self.seconds,
        }
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.state_file)

    def export(self, folder: Path) -> None:
        """Save a Hugging Face checkpoint for `convert`, with the tokenizer and the training record."""
        self.model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            with suppress(FileNotFoundError):
                (folder / name).write_bytes((self.packed / name).read_bytes())
        self.record(folder)

    def record(self, folder: Path) -> None:
        """Write the training record for the manifest and the model card."""
        device = torch.cuda.get_device_name() if self.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        record = {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "settings": self.settings,
            "steps": self.step,
            "torch": torch.__version__,
            "tokens": self.seen,
            "seconds": round(self.seconds),
            "device": device,
        }
        (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def _schedule(step: int, settings: Settings) -> float:
    """The share of the peak learning rate: in each phase a linear warm-up, then a cosine decay to a twentieth."""
    phase, warm = _phase(settings, step), settings["warmup"]
    done = step - phase.first
    if done < warm:
        return float(phase.rate * (done + 1) / warm)
    fallen = 0.5 * (1 - math.cos(math.pi * (done - warm) / max(1, phase.steps - warm)))
    return phase.rate * (1 - 0.95 * fallen)


def _model(settings: Settings, vocabulary: int) -> LlamaForCausalLM:
    heads = settings["width"] // settings["head_size"]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=settings["width"],
        intermediate_size=settings["feed_forward"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=settings["context"],
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return LlamaForCausalLM(config)


def _start_embeddings(model: LlamaForCausalLM, packed: Path, std: float) -> None:
    """Initialize input embeddings from the teacher's, so that rare names start with their meaning.

    They are not tied to the head, where every step would move every token's embedding, those of rare ones most.
    """
    known = torch.from_numpy(np.load(packed / "embeddings.npy").astype(np.float32))
    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        embeddings.normal_(0.0, std)
        spelled = known.abs().sum(1) > 0
        embeddings[spelled] = known[spelled] * std


def _optimizers(model: torch.nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest; the schedule scales `peak`."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    outer = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    fused = next(model.parameters()).is_cuda
    muon = torch.optim.Muon(inner, lr=settings["lr_matrices"], weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(outer, lr=settings["lr"], betas=(0.9, 0.98), weight_decay=0.0, fused=fused)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]


def _loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy. Logits are computed only where the weight is not 0: the head is much of the work."""
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]  # (rows, length - 1, width)
    target, weight = ids[:, 1:], weights[:, 1:]
    counted = weight > 0
    logits = model.lm_head(hidden[counted]).float()  # (counted, vocabulary)
    losses = torch.nn.functional.cross_entropy(logits, target[counted], reduction="none")
    return (losses * weight[counted]).sum() / weight.sum()
