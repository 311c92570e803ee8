"""The Hub's client against a stand-in of the Hub on this machine.

Each scene runs in a process of its own, since the client reads its environment once, when it is imported.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOS: dict[str, dict[str, bytes]] = {
    "microsoft/VidTok": {"checkpoints/vidtok_kl_causal_488_4chn.ckpt": b"the weights"},
    "someone/my-model": {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"about"},
    "someone/other": {"config.json": b"{}"},
}
WEIGHTS = "entry('vidtok_kl_causal_488_4chn')"


class Hub(BaseHTTPRequestHandler):
    """Answers what the client asks for a file and for a repository's list of files."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, StandIn)
        path = self.path.partition("?")[0].lstrip("/")
        server.asked.append(f"{self.command} {path}")
        if path.startswith("api/models/"):
            self._list(path.removeprefix("api/models/"))
        else:
            repo, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            self._file(repo, revision, file)

    def _list(self, path: str) -> None:
        repo = "/".join(path.split("/")[:2])
        if "/tree/" in path:
            files = [{"type": "file", "path": name, "size": len(REPOS[repo][name]), "oid": "0"} for name in REPOS[repo]]
            self._answer(200, json.dumps(files).encode())
        else:
            siblings = [{"rfilename": name} for name in REPOS[repo]]
            self._answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, repo: str, revision: str, file: str) -> None:
        if repo == "someone/busy":
            self._answer(503, b"")
        elif repo == "someone/gated":
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif repo not in REPOS:
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif file not in REPOS[repo]:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = REPOS[repo][file]
            self._answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{abs(hash((repo, file)))}"'})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""


class StandIn(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def scene(home: Path, endpoint: str, calls: list[str], **environment: str) -> tuple[list[str], str]:
    """What each call gives, or its `VidTokError`'s message, and what was logged."""
    code = f"""
import json, logging
from vidtok.errors import VidTokError
from vidtok.zoo.hub import resolve_hub_repo
from vidtok.config.registry import entry
from vidtok.zoo.weights import fetch_weights, weights_at_hand
logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
results = []
for call in {calls!r}:
    try:
        results.append(str(eval(call)))
    except VidTokError as error:
        results.append("error: " + str(error))
print(json.dumps(results))
"""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    results: list[str] = json.loads(run.stdout.splitlines()[-1])
    return results, run.stderr


def test_weights_are_downloaded_once_and_read_from_the_cache_after(tmp_path: Path, stand_in: StandIn) -> None:
    calls = [f"weights_at_hand({WEIGHTS})", f"fetch_weights({WEIGHTS})"]
    (before, path), _ = scene(tmp_path, stand_in.url, calls)
    assert before == "None"
    assert Path(path).read_bytes() == b"the weights"
    asked = len(stand_in.asked)
    (after, again), _ = scene(tmp_path, stand_in.url, calls, HF_HUB_OFFLINE="1")
    assert after == again == path
    assert len(stand_in.asked) == asked


def test_a_repository_is_fetched_and_outlives_the_network(tmp_path: Path, stand_in: StandIn) -> None:
    (folder,), _ = scene(tmp_path, stand_in.url, ["resolve_hub_repo('someone/my-model')"])
    assert (Path(folder) / "model.safetensors").read_bytes() == b"weights"
    assert sorted(path.name for path in Path(folder).iterdir()) == ["config.json", "model.safetensors"]
    calls = ["resolve_hub_repo('someone/my-model')", f"resolve_hub_repo('someone/my-model', {COMMIT!r})"]
    (by_branch, by_commit), logged = scene(tmp_path, "http://127.0.0.1:9", calls)
    assert by_branch == by_commit == folder
    assert logged.count("someone/my-model is read from the cache, as last downloaded (the model someone/my-model") == 1


def test_what_the_hub_refuses_is_one_clear_error(tmp_path: Path, stand_in: StandIn) -> None:
    calls = [
        "fetch_weights(entry('vidtok_kl_causal_488_8chn'))",
        "resolve_hub_repo('someone/other')",
        "resolve_hub_repo('someone/gone')",
        "resolve_hub_repo('someone/gated')",
        "resolve_hub_repo('someone/my-model', 'v9')",
        "resolve_hub_repo('not a repository')",
        "resolve_hub_repo('someone/busy')",
    ]
    (weights, other, gone, gated, revision, invalid, busy), _ = scene(tmp_path, stand_in.url, calls)
    address = f"{stand_in.url}/microsoft/VidTok/resolve/main/checkpoints/vidtok_kl_causal_488_8chn.ckpt"
    assert weights == (
        "error: the weights of vidtok_kl_causal_488_8chn are not on this machine and could not be downloaded from "
        f"{address}: the repository has no such file; download that file with a browser or on another machine "
        "and give it with `--checkpoint PATH` (in Python, `checkpoint=PATH`); the models whose names end in _tiny come "
        "with the package"
    )
    assert other.startswith(
        "error: the repository someone/other holds no model.safetensors; expected a model that this"
    )
    assert "there is no such repository, or it is private (`hf auth login`); download config.json and model" in gone
    assert (
        "access must be granted: accept the terms on its page, then log in with `hf auth login`; or download" in gated
    )
    assert "/v9/config.json: the repository has no such revision; " in revision
    assert invalid.startswith(
        "error: 'not a repository' is not the name of a repository on the Hub; expected OWNER/NAME"
    )
    assert "could not be downloaded" in busy
    assert "503" in busy
    assert sum("someone/busy" in line for line in stand_in.asked) == 1, "asked again and again"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({}, "refused"), ({"HF_HUB_OFFLINE": "1"}, "the environment variable HF_HUB_OFFLINE forbids it")],
)
def test_without_a_network_the_way_out_is_told(tmp_path: Path, environment: dict[str, str], reason: str) -> None:
    calls = [f"fetch_weights({WEIGHTS})", "resolve_hub_repo('someone/my-model')"]
    (weights, folder), _ = scene(tmp_path, "http://127.0.0.1:9", calls, **environment)
    assert weights.startswith(
        "error: the weights of vidtok_kl_causal_488_4chn are not on this machine and could not be"
    )
    assert reason in weights
    assert "`--checkpoint PATH`" in weights
    assert reason in folder
    assert "download config.json and model.safetensors by hand into one folder and give that folder" in folder
