"""The output of a run, chosen and checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bioner_edge.errors import UsageError, alternatives
from bioner_edge.io.contract import FileFormat, WriteSettings
from bioner_edge.io.entries import JournalFiles
from bioner_edge.io.file_sink import FileSink
from bioner_edge.io.folder_sink import FolderSink
from bioner_edge.io.inputs import Inputs
from bioner_edge.io.registry import find_writer, output_format, writable
from bioner_edge.io.sinks import Sink, StandardOutput

__all__ = ["Output"]


@dataclass(frozen=True)
class Output:
    """A file or a folder; standard output if `path` is None, or nothing if results are also `shown` there.

    `resume` continues an interrupted run, `retry_failed` also reads failed documents again.
    """

    path: Path | None
    file_format: FileFormat
    with_gold: bool = False
    shown: bool = False
    resume: bool = False
    retry_failed: bool = False

    @classmethod
    def from_options(
        cls,
        out: Path | None,
        file_format: str | None,
        *,
        overwrite: bool,
        with_gold: bool,
        shown: bool,
        resume: bool = False,
        retry_failed: bool = False,
    ) -> Output:
        """Choose and check an output before anything is read. Without `file_format` the suffix of `out` decides."""
        found = find_writer(file_format) if file_format else output_format(out)
        if with_gold and not found.holds_gold:
            able = alternatives(known.name for known in writable() if known.holds_gold)
            raise UsageError(f"--keep-annotations needs --to {able}: {found.name} has no field for gold annotations")
        output = cls(out, found, with_gold, shown, resume or retry_failed, retry_failed)
        output._check(overwrite)
        return output

    def _check(self, overwrite: bool) -> None:
        if self.resume and self.path is None:
            raise UsageError("--resume and --retry-failed need --out: a run to standard output is not recorded")
        if self.resume and overwrite:
            raise UsageError("--overwrite starts over, --resume and --retry-failed continue: give one of them")
        if self.file_format.folder_writer:
            self._check_folder(overwrite)
        elif self.path:
            self._check_file(self.path, overwrite)
        if self.path and not self.path.parent.is_dir():
            raise UsageError(f"{self.path.parent}: no such folder; create it first")

    def _check_file(self, out: Path, overwrite: bool) -> None:
        if out.exists() and not out.is_file():  # moving a file into its place would remove a device
            raise UsageError(f"{out}: is not a regular file; name a file, or leave out --out for standard output")
        if overwrite:
            return
        self._refuse_unfinished()
        if not out.exists():
            return
        if not self.resume:
            raise UsageError(f"{out}: exists; give --overwrite to replace it")
        if out.stat().st_size and not self._has_run:
            raise UsageError(f"{out}: exists, and there is no run to resume; give --overwrite to replace it")

    def _check_folder(self, overwrite: bool) -> None:
        name, out = self.file_format.name, self.path
        message = f"{name} is a folder of {self.file_format.folder_of}"
        if out is None:
            raise UsageError(f"--to {name} needs --out FOLDER: {message}")
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is not a folder; {message}")
        try:
            empty = not out.exists() or JournalFiles.inside(out).alone
        except OSError as error:
            raise UsageError(f"{out}: cannot be read: {error.strerror}") from None
        if overwrite:
            return
        self._refuse_unfinished()
        if not empty and not (self.resume and self._has_run):
            none = ", and there is no run in it to resume" if self.resume else ""
            message = f"is not empty{none}; give --overwrite to replace the files in it that have the same names"
            raise UsageError(f"{out}: {message}")

    def _refuse_unfinished(self) -> None:
        if not self.resume and self.journal and self.journal.unfinished:
            message = "has an unfinished run; --resume continues it, --overwrite starts over"
            raise UsageError(f"{self.path}: {message}")

    @property
    def journal(self) -> JournalFiles | None:
        """The paths of the run's journal; see `ledger`."""
        if self.path is None:
            return None
        return JournalFiles.inside(self.path) if self.file_format.folder_writer else JournalFiles.beside(self.path)

    @property
    def _has_run(self) -> bool:
        return self.journal is not None and (self.journal.unfinished or self.journal.finished.exists())

    def owns(self, path: Path) -> bool:
        """Whether the run being resumed has written `path` itself: then it is not an input."""
        if not self.resume or self.path is None:
            return False
        own, path = self.path.resolve(), path.resolve()
        if self.file_format.folder_writer:
            return path == own or own in path.parents
        journal = JournalFiles.beside(own)
        return path in (own, own.with_name(f"{own.name}.partial"), journal.progress, journal.finished)

    def refuse_among(self, inputs: Inputs) -> None:
        """Raise UsageError if the output is among the inputs: a second run would read the first one's answers."""
        if self.path is None:
            return
        own = self.path.resolve()
        paths = [path.resolve() for _, path in inputs.files if path]
        if any(path == own or (self.file_format.folder_writer and own in path.parents) for path in paths) or (
            inputs.passed_over and not inputs.files
        ):
            raise UsageError(f"{self.path}: is among the inputs; choose another --out")

    def open(self, settings: Mapping[str, Any]) -> Sink:
        """Open a sink for the extractions. `settings` is all that they depend on, see `ledger`.

        Raises UsageError if a run cannot be resumed, OSError if nothing can be written.
        """
        write_settings = WriteSettings(tuple(settings.get("labels", ())), self.with_gold)
        settings = {**settings, "to": self.file_format.name, "keep_annotations": self.with_gold}
        how = {"resume": self.resume, "retry": self.retry_failed}
        if self.file_format.folder_writer:
            assert self.path
            return FolderSink(self.path, self.file_format.folder_writer(write_settings), settings, **how)
        assert self.file_format.writer
        writer = self.file_format.writer(write_settings)
        if self.path is None:
            return StandardOutput(None if self.shown else writer)
        return FileSink(self.path, writer, settings, **how)
