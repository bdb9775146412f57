"""Download a file over HTTP: resumed where it broke off, hashed while it arrives, renamed once it is complete.

Until then its name contains its hash, so that the rest of another version is never appended:

    model.safetensors.88c142557820.partial
"""

from __future__ import annotations

import fcntl
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener, getproxies

from bioner_edge import __version__
from bioner_edge.errors import ModelError, UsageError
from bioner_edge.models.hub_lock import File, Hashes
from bioner_edge.report import Advance, Report

__all__ = ["Refused", "Server", "fetch", "proxies"]

_CHUNK = 1 << 16  # bytes read at once: the most that an interrupted call loses
_TIMEOUT_S = 20  # for a connection, and for each chunk of a response
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # after attempts that brought nothing new
_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})  # HTTP statuses
_AGAIN = "run the same command again to continue"


class Refused(Exception):
    """The server refuses the file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


class _Broken(Exception):
    """The connection failed; another attempt may succeed."""


class _Redirects(HTTPRedirectHandler):
    """Follows redirects without sending the token to another server."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request and token and urlsplit(req.full_url)[:2] == urlsplit(newurl)[:2]:
            request.add_unredirected_header("Authorization", token)
        return request


class Server:
    """Opens URLs with a token, through the proxies of the environment."""

    def __init__(self, token: str | None = None) -> None:
        self._token = token
        self._opener = build_opener(ProxyHandler(proxies()), _Redirects, HTTPSHandler(context=_ssl_context()))

    def open(self, url: str, begin: int = 0) -> HTTPResponse:
        """The response from byte `begin` on, if the server supports ranges. Raises OSError and HTTPException."""
        request = Request(url, headers={"User-Agent": f"bioner-edge/{__version__}"})
        if begin:
            request.add_header("Range", f"bytes={begin}-")
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        answer: HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_S)
        return answer


def proxies() -> dict[str, str]:
    """The proxies of the environment by scheme, including $ALL_PROXY, which urllib ignores."""
    found = getproxies()
    both = {scheme: found["all"] for scheme in ("http", "https") if "all" in found}
    return both | {scheme: proxy for scheme, proxy in found.items() if scheme != "all"}


def _ssl_context() -> ssl.SSLContext:
    """An SSL context with the certificates of $REQUESTS_CA_BUNDLE, or of the system, and those of certifi."""
    file = os.environ.get("REQUESTS_CA_BUNDLE")
    try:
        context = ssl.create_default_context(cafile=file)
    except OSError as error:
        raise UsageError(f"REQUESTS_CA_BUNDLE {file}: no certificates can be read from it: {error.strerror}") from None
    with suppress(ImportError):  # a dependency of huggingface_hub
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def fetch(server: Server, url: str, file: File, folder: Path, report: Report) -> None:
    """Download `file` from `url` into `folder`; `report` receives the progress.

    Raises Refused if the server refuses, ModelError if the connection or the disk fails or the hash differs. What
    arrived stays for the next call, unless its hash differs.
    """
    path = folder / file.partial
    try:
        for rest in folder.glob(f"{file.name}.*.partial"):
            if rest != path:
                rest.unlink()
        with path.open("a+b") as stream:
            _lock(stream, folder)
            reason = _Transfer(server, url, file, stream).run(report)
        if reason:
            path.unlink()
            raise ModelError(f"{folder / file.name}: {reason}; the download was deleted: run the same command again")
        os.replace(path, folder / file.name)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror or error}; make room and {_AGAIN}") from None


def _lock(stream: BinaryIO, folder: Path) -> None:
    """Lock a stream: two processes that append to one file would corrupt it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ModelError(f"{folder}: another process is downloading into it; wait or give another folder") from None


class _Transfer:
    """The download of a file into a stream that may already hold its first bytes."""

    def __init__(self, server: Server, url: str, file: File, stream: BinaryIO) -> None:
        self.server, self.url, self.file, self.stream = server, url, file, stream
        there = os.fstat(stream.fileno()).st_size
        self.begin(there if there <= file.bytes else 0)

    def begin(self, there: int) -> None:
        """Continue after the first `there` bytes of the stream, which is opened for appending."""
        self.stream.truncate(there)
        self.stream.seek(0)
        self.hashes = Hashes(self.file)
        self.hashes.read(self.stream)
        self.done = there

    def run(self, report: Report) -> str | None:
        """Download what is missing; why the result is not the file, or None."""
        with report.progress(self.file.name, self.file.bytes, "bytes", self.done) as advance:
            self._fetch(advance)
        return self.hashes.error() if self.done == self.file.bytes else f"it is longer than {self.file.bytes} bytes"

    def _fetch(self, advance: Advance) -> None:
        failures, shown = 0, self.done
        while self.done < self.file.bytes:
            before, reason = self.done, "the server closed the connection"
            try:
                for data in self._chunks():
                    self._add(data)
                    advance(self.done - shown)  # negative if the server starts over
                    shown = self.done
            except _Broken as broken:
                reason = str(broken)
            if self.done < self.file.bytes:
                failures = 0 if self.done > before else failures
                if failures == len(_PAUSES_S):
                    raise ModelError(f"{self.file.name}: broken off at {self._position()}: {reason}; {_AGAIN}")
                time.sleep(_PAUSES_S[failures])
                failures += 1

    def _add(self, data: bytes) -> None:
        self.stream.write(data)
        self.hashes.update(data)
        self.done += len(data)

    def _position(self) -> str:
        return f"{self.done / 1e6:.1f} of {self.file.bytes / 1e6:.1f} MB"

    def _chunks(self) -> Iterator[bytes]:
        """What the server sends from the current position on. Raises _Broken and Refused."""
        try:
            with self.server.open(self.url, self.done) as answer:
                if self.done and not self._continues(answer):
                    self.begin(0)
                    if answer.status != 200:
                        return  # the next attempt requests the whole file
                while self.done <= self.file.bytes and (data := answer.read(_CHUNK)):
                    yield data
        except HTTPError as error:
            error.close()
            if error.code == 416 and self.done:
                self.begin(0)
            elif error.code in _RETRYABLE:
                raise _Broken(f"HTTP status {error.code}") from None
            else:
                raise Refused(error.code) from None
        except (OSError, HTTPException) as error:
            raise _Broken(str(getattr(error, "reason", None) or error) or type(error).__name__) from None

    def _continues(self, answer: HTTPResponse) -> bool:
        """Whether the response begins where the stream ends; a server may send the whole file instead."""
        return answer.headers.get("Content-Range", "").startswith(f"bytes {self.done}-")
