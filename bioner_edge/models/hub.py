"""Pull base models from the Hugging Face hub: the files of a repository at a commit, each checked against its hash.

huggingface_hub provides the list of files and their hashes; `download` fetches the bytes, since the library (2.4) does
not resume an interrupted download. No telemetry is sent, and no token but $HF_TOKEN.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import threading
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from bioner_edge import __version__
from bioner_edge.errors import ModelError, UsageError, unknown_name
from bioner_edge.models import registry
from bioner_edge.models.download import Refused, Server, fetch, proxies
from bioner_edge.models.hub_lock import File, Pull, check_manual_copy, file_error, is_wanted
from bioner_edge.models.models_toml import Base
from bioner_edge.report import Report

__all__ = ["pull"]

_PATIENCE_S = 3.0  # for a first connection, whatever name servers, routes and firewalls do
_TIMEOUT_S = 10.0  # for the list of files, after a connection succeeded
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


class _Unreachable(Exception):
    """The hub does not answer; the message says why."""


def pull(name: str, to: Path, revision: str | None = None, *, report: Report | None = None) -> Path:
    """Download the base model `name` into `to`/`name`, keeping files that are there already, and return that folder.

    `revision` is a commit, branch or tag; it defaults to the commit pinned in models.toml, else that of an earlier
    call, else the newest. `report` receives one-line messages and the progress. Raises UsageError for an unknown name
    and if huggingface_hub is missing, ModelError if the model cannot be downloaded; the next call then continues.
    """
    base, report = _base(name), report or Report()
    folder = to / name
    before = Pull.load(folder)
    if before and before.repo != base.repo:
        raise ModelError(f"{folder}: holds {before.repo}, not {base.repo}; give another folder with --to")
    wanted = revision or base.revision or (before.revision if before else "main")
    if before and before.revision == wanted and not _has_errors(before, folder):
        message = f"all {len(before.files)} files of {base.repo} at {wanted[:12]} are there, hashes checked"
        report.step(f"{folder}: {message}")
        return folder
    hub = _Hub(base)
    try:
        pulled = hub.contents(wanted)
        _announce(pulled, base, revision, folder, report)
        _prepare(pulled, folder)
        for file in pulled.files:
            hub.bring(file, pulled.revision, folder, report)
    except _Unreachable as error:
        return _by_hand(hub, folder, str(error), report)
    report.step(f"{folder}: {len(pulled.files)} files, {pulled.bytes / 1e6:.0f} MB, hashes checked")
    return folder


def _base(name: str) -> Base:
    bases = registry.bases()
    if name not in bases:
        if row := registry.listed_models().get(name):
            raise UsageError(f"{name} is not a base model and need not be pulled: it is {row.path}")
        raise UsageError(unknown_name("base model", name, bases))
    return bases[name]


def _has_errors(pulled: Pull, folder: Path) -> bool:
    return bool(pulled.missing(folder)) or any(file_error(folder / file.name, file) for file in pulled.files)


def _announce(pulled: Pull, base: Base, revision: str | None, folder: Path, report: Report) -> None:
    """Report what will be downloaded, and whether models.toml pins it."""
    message = f"{len(pulled.files)} files, {pulled.bytes / 1e6:.0f} MB, of {base.repo} at commit {pulled.revision}"
    report.step(f"{folder}: {message}; license: {base.license}")
    if base.revision is None and revision is None:
        report.warning(f"models.toml pins no commit of {base.repo}; this one is recorded in {folder}")
    elif not pulled.pinned:
        report.warning(f"models.toml lists another commit of {base.repo}: {base.revision or 'none'}")


def _prepare(pulled: Pull, folder: Path) -> None:
    """Record what will be downloaded, if there is room for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = pulled.bytes - pulled.there(folder), shutil.disk_usage(folder).free
        if needed > free:
            message = f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
            raise ModelError(f"{folder}: {message}; make room or give another folder with --to")
        pulled.save(folder)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}; give another folder with --to") from None


class _Hub:
    """One repository on the hub. Raises UsageError if huggingface_hub is missing."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._library = _library()
        self._endpoint = (os.environ.get("HF_ENDPOINT") or self._library.constants.ENDPOINT).rstrip("/")
        self._token = (os.environ.get("HF_TOKEN") or "").strip() or None
        self._server = Server(self._token)

    @property
    def page(self) -> str:
        return f"{self._endpoint}/{self.base.repo}"

    def contents(self, revision: str) -> Pull:
        """The files of a commit, branch or tag with their hashes. Raises ModelError, and _Unreachable without delay."""
        if reason := _connection_error(self._endpoint):
            raise _Unreachable(reason)
        info = self._info(revision)
        commit = str(info.sha)
        if self.base.revision == revision != commit:
            raise ModelError(f"{self.page}: answers with commit {commit}, not {revision}; use another hub")
        pinned = commit == self.base.revision
        files = [self._file(row, pinned) for row in info.siblings or () if is_wanted(row.rfilename)]
        if not any(file.name.endswith(".safetensors") for file in files):
            raise ModelError(f"{self.page}: no safetensors files at {revision}; pickled weights are not fetched")
        # Small files first: errors in them are found before gigabytes are downloaded.
        return Pull(self.base.repo, commit, pinned, tuple(sorted(files, key=lambda file: (file.bytes, file.name))))

    def _info(self, revision: str) -> Any:
        library = self._library
        api = library.HfApi(
            self._endpoint, self._token or False, library_name="bioner-edge", library_version=__version__
        )
        error_of_library = library.errors.HfHubHTTPError
        try:
            return api.model_info(self.base.repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
        except library.errors.RevisionNotFoundError:
            raise ModelError(f"{self.page}: has no revision {revision!r}; leave --revision out") from None
        except error_of_library as error:
            raise self._http_error(error.response.status_code if error.response is not None else 0) from None
        except (OSError, ValueError, TypeError, KeyError, error_of_library.__bases__[0]) as error:
            # The base class of the library's error is also that of its HTTP client's errors.
            raise _Unreachable(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None

    def _http_error(self, status: int) -> ModelError:
        if status == 404:
            return ModelError(
                f"{self.page}: HTTP status 404: no such model there; unset HF_ENDPOINT or take another hub"
            )
        if status not in (401, 403):
            return ModelError(f"{self.page}: HTTP status {status}; try again later")
        if not self.base.gated:
            return ModelError(
                f"{self.page}: HTTP status {status}: no such model, or not for this token; unset HF_TOKEN"
            )
        token = "the token in HF_TOKEN has no access" if self._token else "no token is set"
        steps = f"accept the license ({self.base.license}) at {self.page}, then set HF_TOKEN to a token of that account"
        return ModelError(
            f"{self.page}: a gated model, and {token}: {steps} (made at {self._endpoint}/settings/tokens)"
        )

    def _file(self, row: Any, pinned: bool) -> File:
        """A file with its digests on the hub and in models.toml. Raises ModelError if there are none or they differ."""
        stated = {"sha256": row.lfs["sha256"]} if row.lfs else {"git-sha1": row.blob_id} if row.blob_id else {}
        listed = self.base.files.get(row.rfilename) if pinned else None
        if listed and stated.get("sha256", listed) != listed:
            raise ModelError(f"{self.page}: {row.rfilename} has another SHA-256 than in models.toml; do not use it")
        digests = stated | ({"sha256": listed} if listed else {})
        size = row.lfs["size"] if row.lfs else row.size
        if not digests or not isinstance(size, int):
            raise ModelError(f"{self.page}: states no hash of {row.rfilename}; unset HF_ENDPOINT or take another hub")
        return File(row.rfilename, size, digests)

    def bring(self, file: File, revision: str, folder: Path, report: Report) -> None:
        """Download `file` into `folder` unless it is there."""
        if (folder / file.name).is_file() and file_error(folder / file.name, file) is None:
            return
        url = self._library.hf_hub_url(self.base.repo, file.name, revision=revision, endpoint=self._endpoint)
        try:
            fetch(self._server, url, file, folder, report)
        except Refused as refused:
            raise self._http_error(refused.status) from None


def _library() -> ModuleType:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError("pulling a model needs huggingface_hub: pip install 'bioner-edge[hub]'")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read at its import
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # where it was imported before
    return huggingface_hub


def _connection_error(endpoint: str) -> str | None:
    """Why no connection to the hub, or to its proxy, is possible, or None."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in _TRUE:
            return f"{variable} is set"
    host, port = _place("HF_ENDPOINT", endpoint)
    proxy = proxies().get(urlsplit(endpoint).scheme)
    if proxy and not proxy_bypass(host):
        host, port = _place("the proxy", proxy if "://" in proxy else f"http://{proxy}")
    failed: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=_PATIENCE_S).close()
        except OSError as error:
            failed.append(error.strerror or str(error))

    # A lookup that the name server never answers has no timeout: the thread is left behind.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if thread.is_alive():
        return f"{host}:{port} does not answer within {_PATIENCE_S:g} s"
    return f"{host}:{port}: {failed[0]}" if failed else None


def _place(what: str, url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        pass
    raise UsageError(f"{what} {url!r} must be http://HOST[:PORT] or https://HOST[:PORT]")


def _by_hand(hub: _Hub, folder: Path, reason: str, report: Report) -> Path:
    """Without a connection: accept files that were copied in by hand if they match models.toml."""
    base, there = hub.base, ""
    if any(folder.glob("*.safetensors")):
        errors, unknown = check_manual_copy(folder, base)
        if not errors and not unknown:
            report.step(f"{folder}: copied by hand; the hashes of the weights of {base.repo} are those of models.toml")
            return folder
        there = f"; what is there now: {errors[0]}" if errors else f"; models.toml has no hash of {unknown[0]}"
    page = f"{hub.page}/tree/{base.revision or 'main'}"
    files = "the files *.safetensors, *.json, *.jinja, tokenizer.model and merges.txt, as far as there are any"
    raise ModelError(
        f"no connection to the hub ({reason}); to copy the model by hand, download {files}, from {page} on another "
        f"machine, copy them into {folder}, and check them with: bioner-edge models verify {folder}{there}"
    )
