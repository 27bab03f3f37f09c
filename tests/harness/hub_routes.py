"""The requests that `hub_double.Hub` answers: one function for each path of the Hub's protocol."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote

if TYPE_CHECKING:
    from .hub_double import File, Hub

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".so", ".parquet")
LFS_SIZE = 10_000_000
TOKEN = "hf_loopback"  # its owner may write everywhere; without it one reads what is public
DATE = "2026-01-01T00:00:00.000Z"
REPO = r"(?P<kind>models|datasets|kernels)/(?P<id>[\w.-]+/[\w.-]+)"


@dataclass
class Request:
    """What a client asks; `path` is decoded but for the slashes inside of a revision."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    storage: str  # address of large files

    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    @property
    def authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Response:
    """What it is answered; faults change it.

    Args:
        status: HTTP status.
        body: The whole body; a dict or list is sent as JSON.
        headers: Further headers; `Content-Length` is that of `body` unless it is here.
        cut: Close the connection after so many bytes of the body.
        held: Keep the connection open, after the cut, until this is set.
    """

    status: int = 200
    body: bytes | dict | list = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    held: Event | None = None


class Refusal(Exception):
    """An answer with `X-Error-Code`, from which huggingface_hub makes its exceptions."""

    def __init__(self, status: int, code: str | None, message: str):
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.response = Response(status, {"error": message}, headers)


def is_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


ROUTES: list[tuple[tuple[str, ...], re.Pattern, Callable[..., Response]]] = []


def route(methods: str, pattern: str):
    """Register the handler of a path; the pattern's named groups are its arguments."""

    def register(handler):
        ROUTES.append((tuple(methods.split()), re.compile(pattern), handler))
        return handler

    return register


@route("GET", "/api/whoami-v2")
def _whoami(hub: "Hub", request: Request) -> Response:
    if not request.authorized:
        raise Refusal(401, None, "Invalid username or password.")
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    return Response(body={"type": "user", "name": "tester", "orgs": [{"name": "acme"}], "auth": token})


@route("HEAD GET", "/api/telemetry/.*")
def _telemetry(hub: "Hub", request: Request) -> Response:
    return Response()


@route("POST", "/api/validate-yaml")
def _validate_yaml(hub: "Hub", request: Request) -> Response:
    return Response(body={"errors": [], "warnings": []})


@route("GET", "/api/organizations/(?P<name>[^/]+)/overview")
def _organization(hub: "Hub", request: Request, name: str) -> Response:
    about = {"name": name, "fullname": name, "avatarUrl": "", "trustedKernelPublisher": name in hub.trusted}
    return Response(body=about)


@route("POST", "/api/repos/create")
def _create(hub: "Hub", request: Request) -> Response:
    if not request.authorized:
        raise Refusal(401, None, "Invalid username or password.")
    wanted = request.json()
    kind, id = wanted.get("type", "model") + "s", f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
    about = {"url": f"{hub.url}/{_prefix(kind)}{id}", "name": id, "id": "0" * 24}
    if (kind, id) in hub.repos:
        return Response(409, {"error": "You already created this repo", **about})
    attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
    hub.add(id, {".gitattributes": attributes.encode()}, kind, private=wanted.get("visibility") == "private")
    return Response(body=about)


@route("GET", rf"/api/{REPO}(/revision/(?P<revision>[^/]+))?")
def _info(hub: "Hub", request: Request, kind: str, id: str, revision: str | None) -> Response:
    sha, files = hub.commit(request, kind, id, revision)
    about = {"_id": "0" * 24, "id": id, "author": id.split("/")[0], "sha": sha, "tags": [], "gated": False}
    about |= {"private": hub.find(request, kind, id).private, "disabled": False, "downloads": 0, "likes": 0}
    about |= {"lastModified": DATE, "createdAt": DATE, "siblings": [{"rfilename": path} for path in sorted(files)]}
    return Response(body=about)


@route("GET", rf"/api/{REPO}/refs")
def _refs(hub: "Hub", request: Request, kind: str, id: str) -> Response:
    repo = hub.find(request, kind, id)
    refs = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
    body = {
        name: [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": sha} for n, sha in shas.items()]
        for name, (folder, shas) in refs.items()
    }
    return Response(body=body | {"converts": []})


@route("GET", rf"/api/{REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?")
def _tree(hub: "Hub", request: Request, kind: str, id: str, revision: str, folder: str | None) -> Response:
    _, files = hub.commit(request, kind, id, revision)
    prefix = f"{folder.strip('/')}/" if folder else ""
    inside = {path.removeprefix(prefix): file for path, file in files.items() if path.startswith(prefix)}
    if prefix and not inside:
        raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision}")
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    parents = {str(parent) for path in inside for parent in Path(path).parents if str(parent) != "."}
    entries = [{"type": "directory", "path": prefix + path, "oid": "0" * 40, "size": 0} for path in parents]
    entries += [_entry(prefix + path, file) for path, file in inside.items()]
    if not recursive:
        entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
    return Response(body=sorted(entries, key=lambda entry: entry["path"]))


@route("POST", rf"/api/{REPO}/paths-info/(?P<revision>[^/]+)")
def _paths_info(hub: "Hub", request: Request, kind: str, id: str, revision: str) -> Response:
    _, files = hub.commit(request, kind, id, revision)
    paths = parse_qs(request.body.decode()).get("paths", [])
    return Response(body=[_entry(path, files[path]) for path in paths if path in files])


def _entry(path: str, file: "File") -> dict:
    entry = {"type": "file", "path": path, "oid": file.git_sha1, "size": file.size}
    return entry | ({"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {})


@route("POST", rf"/api/{REPO}/preupload/(?P<revision>[^/]+)")
def _preupload(hub: "Hub", request: Request, kind: str, id: str, revision: str) -> Response:
    hub.writable(request, kind, id)
    _, present = hub.commit(request, kind, id, revision)
    answers = []
    for wanted in request.json()["files"]:
        path = wanted["path"]
        mode = "lfs" if is_lfs(path, wanted["size"]) else "regular"
        oid = present[path].etag if path in present else None
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Response(body={"files": answers})


@route("POST", r"/((?P<kind>datasets|kernels)/)?(?P<id>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")
def _lfs_batch(hub: "Hub", request: Request, kind: str | None, id: str) -> Response:
    hub.writable(request, kind, id)
    objects = []
    for wanted in request.json()["objects"]:
        actions = {"upload": {"href": f"{request.storage}/{wanted['oid']}"}}
        objects.append(wanted | ({} if wanted["oid"] in hub.blobs else {"actions": actions}))
    headers = {"Content-Type": "application/vnd.git-lfs+json"}
    return Response(body={"transfer": "basic", "objects": objects}, headers=headers)


@route("PUT", "/storage/(?P<oid>[0-9a-f]{64})")
def _store(hub: "Hub", request: Request, oid: str) -> Response:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, None, "the content has another sha256")
    hub.blobs[oid] = request.body
    return Response()


@route("POST", rf"/api/{REPO}/commit/(?P<revision>[^/]+)")
def _make_commit(hub: "Hub", request: Request, kind: str, id: str, revision: str) -> Response:
    repo, branch = hub.writable(request, kind, id), unquote(revision)
    if branch not in repo.branches:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {branch}")
    files, message = dict(repo.commits[repo.branches[branch]]), ""
    for line in request.body.splitlines():
        key, value = (json.loads(line)[name] for name in ("key", "value"))
        path = value.get("path")
        if key == "header":
            message = value["summary"]
            if value.get("parentCommit", repo.branches[branch]) != repo.branches[branch]:
                raise Refusal(412, None, "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            files[path] = hub.store(base64.b64decode(value["content"]), False)
        elif key == "lfsFile":
            if value["oid"] not in hub.blobs:
                raise Refusal(400, None, f"Your push was rejected: LFS pointer {path} points to a missing file")
            files[path] = hub.store(hub.blobs[value["oid"]], True)
        elif key == "deletedFile":
            del files[path]
        elif key == "deletedFolder":
            files = {name: file for name, file in files.items() if not name.startswith(f"{path.rstrip('/')}/")}
    sha = repo.commit(branch, files, message)
    return Response(
        body={"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{_prefix(kind)}{id}/commit/{sha}"}
    )


@route("POST DELETE", rf"/api/{REPO}/(?P<what>branch|tag)/(?P<name>[^/]+)")
def _change_refs(hub: "Hub", request: Request, kind: str, id: str, what: str, name: str) -> Response:
    repo, name = hub.writable(request, kind, id), unquote(name)
    refs, start = (repo.branches, "main") if what == "branch" else (repo.tags, name)
    if request.method == "DELETE":
        refs.pop(name)
        return Response(body={})
    if what == "tag":
        name = request.json()["tag"]
    if name in refs:
        raise Refusal(409, None, f"Reference already exists: {name}")
    refs[name], _ = hub.commit(request, kind, id, quote(request.json().get("startingPoint") or start, safe=""))
    return Response(body={})


@route("HEAD GET", r"/((?P<kind>datasets|kernels)/)?(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def _resolve(hub: "Hub", request: Request, kind: str | None, id: str, revision: str, path: str) -> Response:
    sha, files = hub.commit(request, kind, id, revision)
    if path not in files:
        refusal = Refusal(404, "EntryNotFound", "Entry not found")
        refusal.response.headers["X-Repo-Commit"] = sha
        raise refusal
    file, headers = files[path], {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        return Response(302, b"", headers | {"Location": f"{request.storage}/{file.sha256}"})
    return _ranged(request, hub.blobs[file.sha256], headers | {"ETag": f'"{file.git_sha1}"'})


@route("HEAD GET", "/storage/(?P<oid>[0-9a-f]{64})")
def _fetch(hub: "Hub", request: Request, oid: str) -> Response:
    return _ranged(request, hub.blobs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _ranged(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    headers = headers | {"Content-Type": "application/octet-stream"}
    if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
        first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return Response(206, data[first : last + 1], headers)
    return Response(200, data, headers)


def _prefix(kind: str) -> str:
    return "" if kind == "models" else f"{kind}/"
