"""Base models from a hub: a small local server that can break off, lie, refuse and be gone."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("huggingface_hub", reason="pip install 'bioner-edge[hub]'")

from bioner_edge.errors import ModelError, UsageError
from bioner_edge.models import download, hub, registry
from bioner_edge.models.hub_lock import LOCK, Pull, is_wanted
from bioner_edge.models.verify import verify_files
from bioner_edge.report import Report

REPO = "lab/tiny"
COMMIT, NEXT = "a" * 40, "b" * 40
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [50000], "data_offsets": [0, 200_000]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(range(250)) * 800
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b'{"model": {}}' * 100,
    "chat_template.jinja": b"{{ messages }}",
    "LICENSE": b"do what you like",
    "model.safetensors": WEIGHTS,
}
UNWANTED = {
    "README.md": b"#",
    "pytorch_model.bin": b"pickle",
    "pytorch_model.bin.index.json": b"{}",
    "model.Q4_0.gguf": b"GGUF",
    "consolidated.safetensors": b"again",
    "onnx/model.json": b"{}",
    "../escape.json": b"{}",
    ".hidden.json": b"{}",
    "weights.pt": b"pickle",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Hub:
    """What the server has, how it behaves, and what it was asked: (path, Range, Authorization)."""

    address: str = ""
    cdn: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {**FILES, **UNWANTED})
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT, NEXT: NEXT})
    status: dict[str, int] = field(default_factory=dict)  # file or "api" -> what is answered instead
    served: dict[str, bytes] = field(default_factory=dict)  # what comes instead of what is stated
    drop_after: list[int] = field(default_factory=list)  # bytes of each next answer of weights; then it closes
    ranges: bool = True
    hashes: bool = True
    slow_s: float = 0.0  # before each piece of weights
    silent_s: float = 0.0  # before the list of files
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)

    def listing(self, commit: str) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for name, data in self.files.items():
            row: dict[str, Any] = {"rfilename": name}
            if self.hashes:
                row |= {"size": len(data), "blobId": blob(data)}
                if name.endswith((".safetensors", ".bin", ".gguf", ".pt")):
                    row["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
            rows.append(row)
        return {"id": REPO, "sha": commit, "siblings": rows, "private": False, "tags": [], "downloads": 0, "likes": 0}

    def fetched(self, name: str) -> list[str | None]:
        """The Range headers with which a file was asked for at the place where its bytes are."""
        return [asked for path, asked, _ in self.asked if path.endswith(f"/bytes/{name}")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
        hub.agents.add(self.headers.get("User-Agent", ""))
        if path.startswith("/api/models/"):
            revision = path.rpartition("/revision/")[2]
            time.sleep(hub.silent_s)
            if status := hub.status.get("api"):
                return self.answer(status, b'{"error": "no"}', {"X-Error-Code": "GatedRepo"} if status == 403 else {})
            if revision not in hub.branches:
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.answer(200, json.dumps(hub.listing(hub.branches[revision])).encode())
        name = path.rpartition("/")[2]
        if status := hub.status.get(name):
            return self.answer(status, b"no")
        if "/resolve/" in path:  # the hub itself: small files behind a relative address, weights on another host
            place = f"/bytes/{name}" if not name.endswith(".safetensors") else f"{hub.cdn}/bytes/{name}"
            return self.answer(302, b"", {"Location": place})
        data = hub.served.get(name, hub.files[name])
        asked = self.headers.get("Range")
        if asked and hub.ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(data):
                return self.answer(416, b"")
            beyond = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
            return self.answer(206, data[begin:], beyond, weights=name.endswith(".safetensors"))
        self.answer(200, data, weights=name.endswith(".safetensors"))

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None, weights: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        most = self.hub.drop_after.pop(0) if weights and self.hub.drop_after else len(data)
        for start in range(0, min(most, len(data)), 20_000):
            if weights:
                time.sleep(self.hub.slow_s)
            self.wfile.write(data[start : min(start + 20_000, most)])
            self.wfile.flush()
        if most < len(data):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that go away in the middle."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that $HF_ENDPOINT names; no proxy, no token, no waiting between attempts."""
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy") or variable.startswith(("HF_", "TRANSFORMERS_", "BIONER_", "REQUESTS_")):
            monkeypatch.delenv(variable)
    there = Hub()
    http = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": there}))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    there.address, there.cdn = f"http://127.0.0.1:{http.server_port}", f"http://localhost:{http.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", there.address)
    monkeypatch.setattr(download, "_PAUSES_S", (0.0, 0.0))
    yield there
    http.shutdown()
    http.server_close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and a package whose list has the base model `tiny`."""
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(registry, "_PACKAGE", package)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    listed(tmp_path)
    return tmp_path / "work"


def listed(place: Path, files: dict[str, str] | None = None, **changes: object) -> None:
    """The package's models.toml; a change to None leaves a key out."""
    row: dict[str, object] = {"repo": REPO, "revision": COMMIT, "license": "MIT", "architecture": "LlamaForCausalLM"}
    row |= {"gated": False, "description": "d", "bytes": len(WEIGHTS), **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in row.items() if value is not None]
    lines += ["[bases.tiny.files]", *(f'"{name}" = "{digest}"' for name, digest in (files or {}).items())]
    (place / "package" / "models.toml").write_text("\n".join(["[bases.tiny]", *lines]), "utf-8")


def relisted(place: Path, files: dict[str, str] | None = None, **changes: object) -> None:
    listed(place.parent, files, **changes)


def pull(revision: str | None = None, notes: list[str] | None = None) -> Path:
    report = Report()
    if notes is not None:
        report.step = notes.append  # type: ignore[method-assign]
    return hub.pull("tiny", Path("models"), revision, report=report)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def complete(folder: Path) -> bool:
    return all((folder / name).read_bytes() == data for name, data in FILES.items())


def test_a_pull_brings_what_is_needed_and_nothing_that_is_pickled(server: Hub, place: Path) -> None:
    notes: list[str] = []
    assert pull(notes=notes) == Path("models/tiny")
    assert names(Path("models/tiny")) == {*FILES, LOCK} and complete(Path("models/tiny"))
    assert names(Path("models")) == {"tiny"} and names(place) == {"models"}
    lock = json.loads(Path("models/tiny", LOCK).read_text())
    assert (lock["repo"], lock["revision"], lock["pinned"]) == (REPO, COMMIT, True)
    assert lock["files"]["model.safetensors"] == {"bytes": len(WEIGHTS), "sha256": sha256(WEIGHTS)}
    assert lock["files"]["config.json"] == {"bytes": 39, "git-sha1": blob(FILES["config.json"])}
    assert "at commit " + COMMIT in notes[0] and notes[0].endswith("; license: MIT")
    assert notes[1:] == ["models/tiny: 5 files, 0 MB, hashes checked"]


def test_no_token_and_no_telemetry_are_sent(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = place / "home"
    home.mkdir()
    (home / "token").write_text("hf_of_somebody_else")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "token"))
    pull()
    assert {token for _, _, token in server.asked} == {None}
    assert all(path.startswith((f"/api/models/{REPO}/", f"/{REPO}/resolve/", "/bytes/")) for path, _, _ in server.asked)
    assert all("torch" not in agent and "agent/" not in agent for agent in server.agents)


def test_a_token_goes_to_the_hub_alone(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine\n")
    pull()
    sent = {path.rpartition("/")[2]: token for path, _, token in server.asked if path.startswith("/bytes/")}
    assert sent["config.json"] == "Bearer hf_mine" and sent["model.safetensors"] is None
    assert all(token == "Bearer hf_mine" for path, _, token in server.asked if "/bytes/" not in path)


def test_what_is_whole_is_not_fetched_again(server: Hub, place: Path) -> None:
    pull()
    server.asked.clear()
    notes: list[str] = []
    pull(notes=notes)
    assert server.asked == []  # not even the hub is asked
    assert notes == [f"models/tiny: all 5 files of {REPO} at {COMMIT[:12]} are there, hashes checked"]
    Path("models/tiny/model.safetensors").write_bytes(WEIGHTS[:-1] + b"!")
    pull()
    assert complete(Path("models/tiny")) and server.fetched("model.safetensors") == [None]
    assert server.fetched("config.json") == []


def test_a_broken_off_download_goes_on_where_it_was(server: Hub, place: Path) -> None:
    server.drop_after = [60_000]
    pull()
    assert complete(Path("models/tiny"))
    first, second = server.fetched("model.safetensors")
    assert first is None and second is not None and second.startswith("bytes=")
    assert 0 < int(second[6:-1]) <= 60_000


def test_attempts_that_bring_something_do_not_count(server: Hub, place: Path) -> None:
    server.drop_after = [40_000] * 4  # more than there are pauses
    pull()
    assert complete(Path("models/tiny")) and len(server.fetched("model.safetensors")) == 5


def test_the_next_call_goes_on_where_the_last_gave_up(server: Hub, place: Path) -> None:
    server.drop_after = [50_000, 0, 0, 0, 0]
    with pytest.raises(ModelError) as caught:
        pull()
    told = str(caught.value)
    assert told.startswith("model.safetensors: broken off at 0.") and told.endswith(" to continue")
    rest = f"model.safetensors.{sha256(WEIGHTS)[:12]}.partial"
    assert names(Path("models/tiny")) == {*FILES, LOCK, rest} - {"model.safetensors"}
    there = Path("models/tiny", rest).stat().st_size
    server.drop_after, server.asked = [], []
    pull()
    assert server.fetched("model.safetensors") == [f"bytes={there}-"] and 0 < there <= 50_000
    assert complete(Path("models/tiny")) and names(Path("models/tiny")) == {*FILES, LOCK}


def test_a_server_that_cannot_go_on_begins_anew(server: Hub, place: Path) -> None:
    server.ranges, server.drop_after = False, [60_000]
    pull()
    assert complete(Path("models/tiny"))


def test_a_rest_that_is_too_long_is_begun_anew(server: Hub, place: Path) -> None:
    Path("models/tiny").mkdir(parents=True)
    Path(f"models/tiny/model.safetensors.{sha256(WEIGHTS)[:12]}.partial").write_bytes(bytes(len(WEIGHTS) + 1))
    pull()
    assert complete(Path("models/tiny")) and server.fetched("model.safetensors") == [None]


def test_a_rest_of_another_version_is_not_continued(server: Hub, place: Path) -> None:
    Path("models/tiny").mkdir(parents=True)
    Path("models/tiny/model.safetensors.0123456789ab.partial").write_bytes(b"old")
    pull()
    assert complete(Path("models/tiny")) and names(Path("models/tiny")) == {*FILES, LOCK}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("longer", [False, True])
def test_what_is_not_what_the_hub_states_is_deleted(server: Hub, place: Path, name: str, longer: bool) -> None:
    server.served[name] = FILES[name] + b"!" if longer else b"!" + FILES[name][1:]
    with pytest.raises(ModelError) as caught:
        pull()
    kind = "sha256" if name.endswith(".safetensors") else "git-sha1"
    reason = f"it is longer than {len(FILES[name])} bytes" if longer else f"its {kind} is "
    assert str(caught.value).startswith(f"models/tiny/{name}: {reason}")
    assert str(caught.value).endswith("; the download was deleted: run the same command again")
    assert not any(left.startswith(name) for left in names(Path("models/tiny")))


def test_a_hub_that_states_another_hash_than_the_list(server: Hub, place: Path) -> None:
    relisted(place, {"model.safetensors": "0" * 64})
    with pytest.raises(ModelError, match=r"model\.safetensors has another SHA-256 than in models\.toml; do not use it"):
        pull()
    assert not Path("models").exists()


def test_the_list_also_vouches_for_small_files(server: Hub, place: Path) -> None:
    relisted(place, {"config.json": sha256(b"another")})
    with pytest.raises(ModelError, match=r"config\.json: its sha256 is"):
        pull()


def test_a_hub_that_states_no_hashes_or_another_commit(server: Hub, place: Path) -> None:
    server.hashes = False
    with pytest.raises(ModelError, match=r"states no hash of config\.json"):
        pull()
    server.hashes, server.branches[COMMIT] = True, NEXT
    with pytest.raises(ModelError, match=f"answers with commit {NEXT}, not {COMMIT}"):
        pull()


def test_a_repository_of_pickles(server: Hub, place: Path) -> None:
    del server.files["model.safetensors"], server.files["consolidated.safetensors"]
    with pytest.raises(ModelError, match=r"no safetensors files at .*; pickled weights are not fetched"):
        pull()


def test_an_unpinned_model_is_pinned_by_the_first_pull(server: Hub, place: Path) -> None:
    relisted(place, revision=None)
    notes: list[str] = []
    pull(notes=notes)
    assert notes[1] == f"warning: models.toml pins no commit of {REPO}; this one is recorded in models/tiny"
    assert Pull.load(Path("models/tiny")) is not None
    server.branches["main"] = NEXT
    Path("models/tiny/config.json").unlink()
    pull()
    assert complete(Path("models/tiny")) and json.loads(Path("models/tiny", LOCK).read_text())["revision"] == COMMIT
    pull("main")
    assert json.loads(Path("models/tiny", LOCK).read_text())["revision"] == NEXT


def test_another_revision_than_the_list_pins(server: Hub, place: Path) -> None:
    relisted(place, {"model.safetensors": "0" * 64})  # holds for the listed commit alone
    notes: list[str] = []
    pull(NEXT, notes)
    assert notes[1] == f"warning: models.toml lists another commit of {REPO}: {COMMIT}"
    with pytest.raises(ModelError, match="has no revision 'v9'; leave --revision out"):
        pull("v9")


@pytest.mark.parametrize("file", ["api", "config.json"])
@pytest.mark.parametrize("token", [None, "hf_mine"])
def test_a_gated_model(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch, file: str, token: str | None) -> None:
    relisted(place, gated=True, license="Gemma Terms of Use")
    server.status[file] = 403 if token else 401
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError) as caught:
        pull()
    what = "the token in HF_TOKEN has no access" if token else "no token is set"
    page = f"{server.address}/{REPO}"
    steps = f"accept the license (Gemma Terms of Use) at {page}, then set HF_TOKEN to a token of that account"
    assert str(caught.value).startswith(f"{page}: a gated model, and {what}: {steps}")


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "HTTP status 404: no such model there; unset HF_ENDPOINT or take another hub"),
        (401, "HTTP status 401: no such model, or not for this token; unset HF_TOKEN"),
        (500, "HTTP status 500; try again later"),
    ],
)
def test_what_the_hub_refuses(server: Hub, place: Path, status: int, told: str) -> None:
    server.status["api"] = status
    with pytest.raises(ModelError) as caught:
        pull()
    assert str(caught.value) == f"{server.address}/{REPO}: {told}"


def test_a_server_that_is_busy_is_asked_again(server: Hub, place: Path) -> None:
    server.status["config.json"] = 503
    with pytest.raises(ModelError, match=r"config\.json: broken off at 0\.0 of 0\.0 MB: HTTP status 503"):
        pull()
    assert len([path for path, _, _ in server.asked if path.endswith("config.json")]) == 3


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_without_a_network_it_says_so_at_once_and_what_to_do(
    server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{closed_port()}"
    monkeypatch.setenv("HF_ENDPOINT", f"http://{address}/")
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        pull()
    assert time.monotonic() - began < 2
    assert str(caught.value) == (
        f"no connection to the hub ({address}: Connection refused); to copy the model by hand, download "
        "the files *.safetensors, *.json, *.jinja, tokenizer.model and merges.txt, as far as there are any, "
        f"from http://{address}/{REPO}/tree/{COMMIT} on another machine, copy them into models/tiny, and check them "
        "with: bioner-edge models verify models/tiny"
    )
    assert not Path("models").exists()


def swallowed(*_: object, **__: object) -> None:
    time.sleep(1)
    raise OSError("timed out")


def test_a_hub_that_takes_the_connection_and_is_silent(
    server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_TIMEOUT_S", 0.2)
    server.silent_s = 1.0
    with pytest.raises(ModelError, match=r"no connection to the hub \(ReadTimeout: .*timed out"):
        pull()


def test_a_network_that_swallows_everything(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(socket, "create_connection", swallowed)
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:\d+ does not answer within 0\.2 s"):
        pull()
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("variable", "value", "error", "told"),
    [
        ("HF_HUB_OFFLINE", "1", ModelError, r"no connection to the hub \(HF_HUB_OFFLINE is set\)"),
        ("HF_ENDPOINT", "localhost:80", UsageError, r"HF_ENDPOINT 'localhost:80' must be http://HOST\[:PORT\]"),
        ("HF_ENDPOINT", "http://a.invalid:port", UsageError, "HF_ENDPOINT 'http://a.invalid:port' must be"),
        ("REQUESTS_CA_BUNDLE", "/gone.pem", UsageError, "REQUESTS_CA_BUNDLE /gone.pem: no certificates can be read"),
        ("http_proxy", "127.0.0.1:9", ModelError, r"no connection to the hub \(127\.0\.0\.1:9: Connection refused\)"),
    ],
)
def test_what_the_environment_says(
    server: Hub,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    error: type[Exception],
    told: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(error, match=told):
        pull()


def by_hand(monkeypatch: pytest.MonkeyPatch, **files: bytes) -> Path:
    """`models/tiny` as someone brought it, and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = Path("models/tiny")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**FILES, **{name.replace("__", "."): data for name, data in files.items()}}.items():
        (folder / name).write_bytes(data)
    return folder


def test_files_that_were_brought_by_hand(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relisted(place, {"model.safetensors": sha256(WEIGHTS)})
    folder, notes = by_hand(monkeypatch), list[str]()
    assert pull(notes=notes) == folder
    told = f"{folder}: copied by hand; the hashes of the weights of {REPO} are those of models.toml"
    assert notes == [told] and server.asked == []
    assert [(c.message, c.holds) for c in verify_files([str(folder)])] == [
        (f"{folder}: the weights are those of {REPO} at {COMMIT} in models.toml", True)
    ]
    assert [c.holds for c in verify_files(["tiny"])] == [c.holds for c in verify_files([])] == [True]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"model__safetensors": WEIGHTS[:-1] + b"!"}, "model.safetensors: its sha256 is "),
        ({"model__safetensors": WEIGHTS[:-1]}, "model.safetensors: its sha256 is "),
    ],
)
def test_files_by_hand_that_are_wrong(
    server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], told: str
) -> None:
    relisted(place, {"model.safetensors": sha256(WEIGHTS)})
    folder = by_hand(monkeypatch, **files)
    with pytest.raises(ModelError, match=f"; what is there now: {folder}/{told}"):
        pull()
    (check,) = verify_files(["tiny"])
    assert check.message.startswith(f"{folder}/{told}") and not check.holds


def test_files_by_hand_whose_hash_nobody_knows(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = by_hand(monkeypatch)
    with pytest.raises(ModelError, match=r"; models\.toml has no hash of model\.safetensors$"):
        pull()
    (check,) = verify_files(["tiny"])
    assert check.holds and check.message.startswith(f"{folder}: complete, but no hash of model.safetensors is known")
    (folder / "model.safetensors").write_bytes(WEIGHTS + b"!")
    assert [c.message for c in verify_files(["tiny"])] == [f"{folder}/model.safetensors: it is incomplete"]
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1])
    (folder / "tokenizer.json").unlink()
    told = [f"{folder}/tokenizer.json: it is missing", f"{folder}/model.safetensors: it is incomplete"]
    assert [c.message for c in verify_files(["tiny"])] == told
    monkeypatch.delenv("HF_HUB_OFFLINE")
    pull()  # with a network: what is right stays, the rest comes
    assert complete(folder) and server.fetched("config.json") == []


def test_shards_by_hand_that_are_missing(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = by_hand(monkeypatch)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [c.message for c in verify_files(["tiny"])] == [f"{folder}/model-00002-of-00002.safetensors: it is missing"]
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    assert [c.message for c in verify_files(["tiny"])] == [
        f"{folder}/model.safetensors.index.json: cannot be read; fetch it again"
    ]


def test_a_pulled_folder_that_changed(server: Hub, place: Path) -> None:
    pull()
    assert [c.holds for c in verify_files(["tiny"])] == [True]
    Path("models/tiny/config.json").write_bytes(b"{}")
    Path("models/tiny/LICENSE").unlink()
    told = ["models/tiny/LICENSE: it is missing", "models/tiny/config.json: it has 2 bytes, it must have 39"]
    assert sorted(c.message for c in verify_files([]) if not c.holds) == told


def test_a_record_that_was_forged(server: Hub, place: Path) -> None:
    """Someone changed the weights and the record: the list still knows better."""
    relisted(place, {"model.safetensors": sha256(WEIGHTS)})
    pull()
    forged = WEIGHTS[:-1] + b"!"
    Path("models/tiny/model.safetensors").write_bytes(forged)
    lock = Path("models/tiny", LOCK)
    lock.write_text(lock.read_text().replace(sha256(WEIGHTS), sha256(forged)))
    (check,) = verify_files(["tiny"])
    assert "another SHA-256 than models.toml" in check.message and not check.holds


SOUND = {"repo": REPO, "revision": COMMIT, "pinned": True, "files": {"a.json": {"bytes": 1, "git-sha1": "0" * 40}}}
FORGED = [
    {"revision": "main"},
    {"revision": 3},
    {"repo": []},
    {"pinned": "yes"},
    {"files": {}},
    {"files": {"../a.json": {"bytes": 1, "git-sha1": "0" * 40}}},
    {"files": {"a.json": {"bytes": "1", "git-sha1": "0" * 40}}},
    {"files": {"a.json": {"bytes": 1, "git-sha1": "0"}}},
    {"files": {"a.json": {"bytes": 1, "sha256": ["0" * 64]}}},
    {"files": {"a.json": {"bytes": 1}}},
    {"files": {"a.json": 1}},
]


@pytest.mark.parametrize("change", FORGED)
def test_a_record_that_no_pull_wrote(server: Hub, place: Path, change: dict[str, object]) -> None:
    Path("models/tiny").mkdir(parents=True)
    Path("models/tiny", LOCK).write_text(json.dumps(SOUND))
    assert Pull.load(Path("models/tiny")) is not None
    Path("models/tiny", LOCK).write_text(json.dumps({**SOUND, **change}))
    with pytest.raises(ModelError, match=rf"{LOCK}: malformed; delete it and pull the model again"):
        pull()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": {"../x.json": {"bytes": 1}}}', "[" * 100_000])
def test_a_record_that_cannot_be_read(server: Hub, place: Path, content: str) -> None:
    Path("models/tiny").mkdir(parents=True)
    Path("models/tiny", LOCK).write_text(content)
    with pytest.raises(ModelError, match=rf"{LOCK}: malformed; delete it and pull the model again"):
        pull()


def test_a_folder_of_another_model(server: Hub, place: Path) -> None:
    pull()
    relisted(place, repo="lab/other")
    with pytest.raises(ModelError, match=f"models/tiny: holds {REPO}, not lab/other; give another folder with --to"):
        pull()


def test_a_full_disk_is_seen_beforehand(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(
        ModelError, match="models/tiny: 0 MB are needed, 0 MB are free; make room or give another folder"
    ):
        pull()
    assert server.fetched("config.json") == [] and names(Path("models/tiny")) == set()


def test_a_disk_that_fills_up_meanwhile(server: Hub, place: Path) -> None:
    """The limit on a file's size stands for a full disk: writing fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ModelError, match=r"\.partial: cannot be written: File too large; make room and run"):
            pull()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not Path("models/tiny/model.safetensors").exists()
    pull()
    assert complete(Path("models/tiny"))


def test_a_folder_that_cannot_be_written(server: Hub, place: Path) -> None:
    Path("models").write_text("a file")
    with pytest.raises(ModelError, match="models/tiny: cannot be written: Not a directory; give another folder"):
        pull()


def test_two_at_once_do_not_spoil_each_other(server: Hub, place: Path) -> None:
    Path("models/tiny").mkdir(parents=True)
    rest = Path(f"models/tiny/model.safetensors.{sha256(WEIGHTS)[:12]}.partial")
    with rest.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="models/tiny: another process is downloading into it"):
            pull()
    pull()
    assert complete(Path("models/tiny"))


def test_the_library_is_optional(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pulling a model needs huggingface_hub: pip install 'bioner-edge\[hub\]'"):
        pull()


@pytest.mark.parametrize("name", [*UNWANTED, "a\nb.json", "x" * 300 + ".json", "-rf.json", "é.json"])
def test_names_that_are_never_fetched(name: str) -> None:
    assert not is_wanted(name)


# The command line, with the bases that are really listed: this one's list knows no hashes.
REAL, REAL_REPO = "smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B"
Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(cli: Run, server: Hub) -> Run:
    """`cli models`, with a hub that has the commit of a model that is listed."""
    commit = registry.bases()[REAL].revision
    assert commit is not None and not registry.bases()[REAL].files
    server.branches[commit] = commit
    return partial(cli, "models")


def test_pull_on_the_command_line(run: Run) -> None:
    code, out, err = run("pull", REAL, "--to", "there")
    assert (code, out) == (0, f"there/{REAL}\n") and complete(Path("there", REAL))
    assert len(err) == 2 and all(line.startswith(f"bioner-edge: there/{REAL}: ") for line in err)
    assert run("pull", REAL, "--to", "there", "--quiet") == (0, f"there/{REAL}\n", [])
    assert run("verify", f"there/{REAL}")[0] == 0


def test_progress_is_drawn_on_a_terminal_and_wiped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioner_edge.terminal._EVERY_S", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for name, value in {"TERM": "xterm", "TTY_COMPATIBLE": "1", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    code, _, err = run("pull", REAL)
    text = "\n".join(err)
    assert code == 0 and "model.safetensors " in text and " MB, 0:00:0" in text and " left" in text
    assert text.rindex(" left") < text.rindex("\x1b[2K") < text.index("hashes checked")
    assert "left" not in "".join(run("pull", REAL, "--to", "b", "--quiet")[2])


def test_errors_of_pull_on_the_command_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, (line,) = run("pull", REAL)
    assert (code, out) == (2, "") and line.startswith("bioner-edge: no connection to the hub (HF_HUB_OFFLINE is set)")
    assert run("pull", "nope")[2][0].startswith("bioner-edge: unknown base model 'nope'; known: qwen2.5-0.5b, ")
    code, _, (line,) = run("pull", "chemdis-9m")
    assert code == 2 and line.startswith("bioner-edge: chemdis-9m is not a base model and need not be pulled: it is ")


def test_what_the_list_says_of_a_pulled_model(run: Run, server: Hub) -> None:
    def row() -> dict[str, Any]:
        lines = map(json.loads, run("list", "--json")[1].splitlines())
        found: dict[str, Any] = next(row for row in lines if row["name"] == REAL)
        return found

    assert (row()["on_disk"], row()["bytes"]) == ("no", 3_422_777_952)
    server.drop_after = [50_000, 0, 0, 0]
    run("pull", REAL)
    assert row()["on_disk"] == "part"
    server.drop_after = []
    run("pull", REAL)
    assert (row()["on_disk"], row()["bytes"]) == ("yes", sum(map(len, FILES.values())))
    shown = json.loads(run("show", REAL, "--json")[1])
    assert shown["repo"] == REAL_REPO and len(shown["pulled"]["files"]) == len(FILES)


def test_an_interrupted_pull_goes_on(run: Run, server: Hub, tmp_path: Path, interruptible: None) -> None:
    server.slow_s = 0.1
    command = [sys.executable, "-m", "bioner_edge", "models", "pull", REAL]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    rest = tmp_path / "models" / REAL / f"model.safetensors.{sha256(WEIGHTS)[:12]}.partial"
    while process.poll() is None and not (rest.is_file() and rest.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert rest.is_file() and 0 < rest.stat().st_size < len(WEIGHTS)
    assert not (rest.parent / "model.safetensors").exists()
    server.slow_s, server.asked = 0.0, []
    assert run("pull", REAL)[0] == 0
    assert server.fetched("model.safetensors")[0] is not None and complete(rest.parent)
