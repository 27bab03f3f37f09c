"""A Hub on the loopback: the protocol that huggingface_hub and kernels speak, from the standard library alone.

    with Hub() as hub:
        subprocess.run(..., env=os.environ | hub.environment(tmp_path))

The clients are the real ones; only the server is not. It keeps commits, branches and tags of models, data sets and
kernels in memory, takes large files by the LFS protocol and hands them out from another address, as the Hub does.
Requests that it does not know are answered with 404 and kept in `hub.unknown`.

Faults are middleware: `hub.inject(pattern, fault)` has `fault(request, respond)` answer the requests whose
"METHOD path" matches; `hub_faults.py` holds the usual ones.
"""

import hashlib
import json
import math
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from .hub_routes import ROUTES, TOKEN, Refusal, Request, Response, is_lfs

Fault = Callable[[Request, Callable[[], Response]], Response]


@dataclass(frozen=True)
class File:
    """A file of a commit; the bytes are in `Hub.blobs`."""

    sha256: str
    git_sha1: str
    size: int
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_sha1


@dataclass
class Repo:
    """Branches and tags (name -> commit), and commits (sha -> path -> file), oldest first."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a sha names."""
        known = revision if revision in self.commits else None
        return self.branches.get(revision) or self.tags.get(revision) or known

    def commit(self, branch: str, files: dict[str, File], message: str) -> str:
        """Make `files` the content of a branch; returns the commit."""
        content = [(path, file.sha256) for path, file in sorted(files.items())]
        parent = self.branches.get(branch)
        sha = hashlib.sha1(json.dumps([content, parent, message, len(self.commits)]).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that hangs up is no news
            super().handle_error(request, client_address)


class Hub:
    """The server and what it stores.

    Attributes:
        url: Address of the Hub; `storage` is that of large files, under another name of this machine.
        repos: (kind, id) -> repository; kinds are "models", "datasets" and "kernels".
        blobs: sha256 -> bytes of all files.
        requests: "METHOD path" of every request so far.
        unknown: Those that the double does not know.
        trusted: Organisations whose kernels load without `trust_remote_code`.
    """

    def __init__(self, trusted: Iterable[str] = ()):
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.trusted = set(trusted)
        self.closing = threading.Event()  # what stalls waits for this
        self.lock = threading.RLock()
        self._faults: list[tuple[re.Pattern, Fault, list[float]]] = []
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        port = self._server.server_address[1]
        self.url, self.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}/storage"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a client process: this Hub, a fresh cache, plain LFS instead of Xet."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}

    def inject(self, pattern: str, fault: Fault, times: float = math.inf) -> None:
        """Let `fault` answer the next `times` requests whose "METHOD path" has a match of `pattern`."""
        self._faults.append((re.compile(pattern), fault, [times]))

    def add(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        kind: str = "models",
        branch: str = "main",
        private: bool = False,
    ) -> str:
        """Commit files on the server's side, into a repository that is made if need be; returns the commit."""
        with self.lock:
            repo = self.repos.setdefault((kind, repo_id), Repo(private))
            before = repo.commits.get(repo.branches.get(branch), {})
            added = {path: self.store(data, is_lfs(path, len(data))) for path, data in files.items()}
            return repo.commit(branch, before | added, "add")

    def files(self, repo_id: str, kind: str = "models", revision: str = "main") -> dict[str, bytes]:
        """The content of a repository."""
        repo = self.repos[kind, repo_id]
        return {path: self.blobs[file.sha256] for path, file in repo.commits[repo.resolve(revision)].items()}

    def answer(self, request: Request) -> Response:
        """Answer through the first fault that matches, if there is one."""
        with self.lock:
            self.requests.append(str(request))
            fault = None
            for pattern, candidate, left in self._faults:
                if left[0] > 0 and pattern.search(str(request)):
                    left[0] -= 1
                    fault = candidate
                    break
        return fault(request, lambda: self._respond(request)) if fault else self._respond(request)

    def _respond(self, request: Request) -> Response:
        with self.lock:
            for method, pattern, handler in ROUTES:
                if request.method in method and (match := pattern.fullmatch(request.path)):
                    try:
                        return handler(self, request, **match.groupdict())
                    except Refusal as refusal:
                        return refusal.response
            self.unknown.append(str(request))
            return Refusal(404, None, f"the double does not know {request}").response

    def store(self, data: bytes, lfs: bool) -> File:
        """Keep the bytes of a file."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        stored = _pointer(sha256, len(data)) if lfs else data
        return File(sha256, hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest(), len(data), lfs)

    def find(self, request: Request, kind: str | None, id: str) -> Repo:
        """The repository that a request is about, if it may be read."""
        repo = self.repos.get((kind or "models", id))
        if repo is None or (repo.private and not request.authorized):
            # the Hub does not tell a stranger what is private from what is not there
            raise Refusal(404 if request.authorized else 401, "RepoNotFound", "Repository not found")
        return repo

    def commit(self, request: Request, kind: str | None, id: str, revision: str | None) -> tuple[str, dict]:
        """The commit that a request is about: its sha, and its files by path."""
        repo = self.find(request, kind, id)
        sha = repo.resolve(unquote(revision or "main"))
        if sha is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repo.commits[sha]

    def writable(self, request: Request, kind: str | None, id: str) -> Repo:
        """The repository that a request is about, if it may be written."""
        if not request.authorized:
            raise Refusal(401, None, "Invalid username or password.")
        return self.find(request, kind, id)


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        # a revision may hold a slash, which stays quoted so that the path can be taken apart
        path = unquote(url.path.replace("%2F", "%252F").replace("%2f", "%252F"))
        request = Request(self.command, path, parse_qs(url.query), self.headers, self._body(), self.hub.storage)
        response = self.hub.answer(request)
        body, headers = response.body, {"Content-Type": "application/json"} | response.headers
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers.setdefault("Content-Length", str(len(body)))
        try:
            self.send_response(response.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if response.cut is None else body[: response.cut])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client was killed
        if response.cut is not None:
            if response.held is not None:
                response.held.wait()
            self.close_connection = True

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        body = b""
        while size := int(self.rfile.readline() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args) -> None:
        pass

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any
