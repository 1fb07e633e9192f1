"""A model hub on loopback that keeps what clients send: repositories, commits, tags and LFS files.

It speaks what `huggingface_hub` needs to create, upload, tag and download, and checks what the real
one checks: the token, hashes of large files, the parent of a commit, tags that exist. A test makes
it fail by setting an attribute.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import yaml

from tests.loopback import Loopback

TOKEN = "hf_of_a_test"
LARGE = (".ptl", ".onnx", ".pte", ".npz", ".f32", ".png", ".jpg")  # as .gitattributes would say
ATTRIBUTES = "".join(f"*{ending} filter=lfs\n" for ending in LARGE).encode()

Tree = dict[str, tuple[str, bytes]]  # by path: "lfs" or "regular", and the content


@dataclass
class Repository:
    commits: dict[str, Tree] = field(default_factory=dict)
    branch: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, tree: Tree, message: str) -> str:
        parts = [self.branch, message, *(f"{k} {sha256(v[1])}" for k, v in sorted(tree.items()))]
        self.branch = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        self.commits[self.branch] = tree
        return self.branch

    def resolve(self, revision: str) -> str | None:
        oid = {"main": self.branch, **self.tags}.get(revision, revision)
        return oid if oid in self.commits else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Refused(Exception):
    def __init__(self, status: int, words: str, code: str = "") -> None:
        super().__init__(words)
        self.status, self.code = status, code


class Hub(Loopback):
    """Serves while in a ``with`` block."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.put: list[str] = []  # hashes of the LFS files that were sent
        self.posted: list[str] = []
        self.cuts = 0  # so many uploads are cut after half
        self.damages = False  # flips a bit of each large file that arrives
        self.forgets: str | None = None  # a path that commits leave out
        self.before: dict[str, Callable[[Repository], object]] = {}  # "commit" or "tag"
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                try:
                    answer = hub.answer(self, unquote(urlsplit(self.path).path))
                except Refused as error:
                    headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
                    self.send(error.status, {"error": str(error)}, headers)
                else:
                    if answer is not None:
                        self.send(200, *answer)

            do_GET = do_HEAD = do_POST = do_PUT = handle_one

            def send(
                self, status: int, body: object, headers: dict[str, str] | None = None
            ) -> None:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def body(self) -> bytes:
                return self.rfile.read(int(self.headers["Content-Length"] or 0))

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(Handler)

    def answer(self, request: BaseHTTPRequestHandler, path: str):
        method = request.command
        if method == "PUT":
            return self.keep_large(request, path.rpartition("/")[2])
        body = request.body() if method == "POST" else b""
        if method == "POST":
            self.posted.append(path)
            if request.headers["Authorization"] != f"Bearer {TOKEN}":
                raise Refused(401, "Invalid credentials in Authorization header")
        routes = {
            r"/api/repos/create": self.create,
            r"/api/validate-yaml": self.validate,
            r"/api/models/([^/]+/[^/]+)/refs": self.refs,
            r"/api/models/([^/]+/[^/]+)/tree/([^/]+)": self.tree,
            r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)": self.preupload,
            r"/api/models/([^/]+/[^/]+)/commit/([^/]+)": self.commit,
            r"/api/models/([^/]+/[^/]+)/tag/([^/]+)": self.tag,
            r"/api/models/([^/]+/[^/]+)/revision/([^/]+)": self.about,
            r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": self.batch,
            r"/lfs/verify": self.verify,
            r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self.resolve,
        }
        for pattern, serve in routes.items():
            if match := re.fullmatch(pattern, path):
                return serve(body, *match.groups())
        raise Refused(404, f"no such page: {path}")

    def repository(self, name: str) -> Repository:
        if name not in self.repositories:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return self.repositories[name]

    def at(self, name: str, revision: str) -> tuple[str, Tree]:
        repository = self.repository(name)
        oid = repository.resolve(revision)
        if oid is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repository.commits[oid]

    def create(self, body: bytes):
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            raise Refused(409, "You already created this model repo")
        made = Repository(private=asked["visibility"] == "private")
        made.commit({".gitattributes": ("regular", ATTRIBUTES)}, "initial commit")
        self.repositories[name] = made
        return ({"url": f"{self.address}/{name}"},)

    def validate(self, body: bytes):
        parts = json.loads(body)["content"].split("---\n")
        try:
            assert isinstance(yaml.safe_load(parts[1]), dict)
        except (IndexError, AssertionError, yaml.YAMLError):
            raise Refused(400, "the card has no metadata") from None
        return ({"errors": [], "warnings": []},)

    def refs(self, body: bytes, name: str):
        def ref(kind: str, key: str, oid: str) -> dict[str, str]:
            return {"name": key, "ref": f"refs/{kind}/{key}", "targetCommit": oid}

        found = self.repository(name)
        tags = [ref("tags", key, oid) for key, oid in found.tags.items()]
        return ({"branches": [ref("heads", "main", found.branch)], "converts": [], "tags": tags},)

    def about(self, body: bytes, name: str, revision: str):
        oid, tree = self.at(name, revision)
        return ({"id": name, "sha": oid, "siblings": [{"rfilename": path} for path in tree]},)

    def tree(self, body: bytes, name: str, revision: str):
        _, tree = self.at(name, revision)
        return ([self.entry(path, *file) for path, file in sorted(tree.items())],)

    def entry(self, path: str, mode: str, content: bytes) -> dict[str, object]:
        found = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
        if mode == "lfs":
            pointer = f"version lfs\noid sha256:{sha256(content)}\nsize {len(content)}\n".encode()
            large = {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}
            found |= {"oid": git_sha1(pointer), "lfs": large}
        return found

    def preupload(self, body: bytes, name: str, revision: str):
        _, tree = self.at(name, revision)

        def one(path: str) -> dict[str, object]:
            mode = "lfs" if path.endswith(LARGE) else "regular"
            there = tree.get(path)
            oid = there and (sha256 if mode == "lfs" else git_sha1)(there[1])
            return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

        return ({"files": [one(file["path"]) for file in json.loads(body)["files"]]},)

    def batch(self, body: bytes, name: str):
        self.repository(name)

        def one(asked: dict[str, object]) -> dict[str, object]:
            if asked["oid"] in self.large:
                return asked
            upload = {"href": f"{self.address}/lfs/{asked['oid']}"}
            return {
                **asked,
                "actions": {"upload": upload, "verify": {"href": f"{self.address}/lfs/verify"}},
            }

        return ({"transfer": "basic", "objects": [one(o) for o in json.loads(body)["objects"]]},)

    def keep_large(self, request: BaseHTTPRequestHandler, oid: str):
        length = int(request.headers["Content-Length"])
        if self.cuts:
            self.cuts -= 1
            request.rfile.read(length // 2)
            request.close_connection = True
            request.connection.close()
            return None
        content = request.rfile.read(length)
        if self.damages:
            content = bytes([content[0] ^ 1]) + content[1:]
        if sha256(content) != oid:
            raise Refused(400, "The SHA-256 of the content is not the one that was announced")
        self.large[oid] = content
        self.put.append(oid)
        return (b"",)

    def verify(self, body: bytes):
        asked = json.loads(body)
        if len(self.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object")
        return ({},)

    def commit(self, body: bytes, name: str, revision: str):
        found = self.repository(name)
        if act := self.before.pop("commit", None):
            act(found)
        header, *lines = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit", found.branch) != found.branch:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(found.commits[found.branch])
        for line in lines:
            value = line["value"]
            if line["key"] == "deletedFile":
                del tree[value["path"]]
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    raise Refused(400, f"LFS pointer points to a file that does not exist: {value}")
                tree[value["path"]] = ("lfs", self.large[value["oid"]])
            else:
                tree[value["path"]] = ("regular", base64.b64decode(value["content"]))
        tree.pop(self.forgets or "", None)
        oid = found.commit(tree, header["value"]["summary"])
        return ({"commitUrl": f"{self.address}/{name}/commit/{oid}", "commitOid": oid},)

    def tag(self, body: bytes, name: str, revision: str):
        found = self.repository(name)
        if act := self.before.pop("tag", None):
            act(found)
        key = json.loads(body)["tag"]
        if key in found.tags:
            raise Refused(409, "Tag reference exists already")
        found.tags[key] = self.at(name, revision)[0]
        return ({},)

    def resolve(self, body: bytes, name: str, revision: str, path: str):
        oid, tree = self.at(name, revision)
        if path not in tree:
            raise Refused(404, "Entry not found", "EntryNotFound")
        mode, content = tree[path]
        etag = sha256(content) if mode == "lfs" else git_sha1(content)
        return content, {"X-Repo-Commit": oid, "ETag": f'"{etag}"'}
