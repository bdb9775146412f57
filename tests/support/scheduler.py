"""A scheduler of many answers over one back end, as small as it can be."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from bioner_edge.backends.contract import Backend, Logits
from bioner_edge.decoding.loop import Answer, Step

__all__ = ["Answering", "schedule"]

Answering = Generator[Step, Logits, Answer]


class _Job:
    """An answer that is being written, and its sequence."""

    def __init__(self, number: int, backend: Backend, answering: Answering) -> None:
        self.number = number
        self.backend = backend
        self.answering = answering
        self.sequence = backend.new_sequence()
        self.ids: list[int] = []
        self.steps = 0

    def send(self, logits: Any) -> Answer | None:
        """Go on to the next step, or to the end."""
        try:
            ids, forget = self.answering.send(logits)
        except StopIteration as end:
            self.backend.release(self.sequence)
            return end.value  # type: ignore[no-any-return]
        self.backend.truncate(self.sequence, self.sequence.length - forget)
        self.ids = ids
        self.steps += 1
        return None

    def cancel(self) -> None:
        self.answering.close()
        self.backend.release(self.sequence)


def schedule(
    backend: Backend,
    answering: Sequence[Answering],
    *,
    width: int,
    most: int = 1 << 30,
    cancelled: Callable[[int, int], bool] = lambda number, steps: False,
) -> list[Answer | None]:
    """The answers in order, at most `width` written at once, each reading at most `most` tokens in one step: so a long
    prompt is read beside single tokens of others. `cancelled(number, steps)` ends an answer; None stands for it."""
    answers: list[Answer | None] = [None] * len(answering)
    waiting = list(enumerate(answering))[::-1]
    running: list[_Job] = []
    while waiting or running:
        while waiting and len(running) < width:
            job = _Job(waiting[-1][0], backend, waiting.pop()[1])
            answers[job.number] = job.send(None)
            if answers[job.number] is None:
                running.append(job)
        for job in [job for job in running if cancelled(job.number, job.steps)]:
            job.cancel()
            running.remove(job)
        parts = [job.ids[:most] for job in running]
        rows = backend.eval_batch([(job.sequence, part) for job, part in zip(running, parts, strict=True)])
        for job, part, row in zip(list(running), parts, rows, strict=True):
            if len(part) < len(job.ids):
                job.ids = job.ids[most:]
                continue
            answers[job.number] = job.send(row)
            if answers[job.number] is not None:
                running.remove(job)
    return answers
