"""A Hugging Face hub of a few repositories, as far as a client asks it what they hold, and for their files."""

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Repository:
    """Folders by the branch or tag that holds them; of a gated one the list of files can be seen, and no file."""

    branches: dict[str, Path]
    is_gated: bool = False

    def folder(self, revision: str) -> Path | None:
        """Folder of a branch, a tag or a commit."""
        by_commit = {commit_of(folder): folder for folder in self.branches.values()}
        return self.branches.get(revision) or by_commit.get(revision)


@contextmanager
def served(folder: Path, repository: str = "someone/some-vit") -> Iterator[str]:
    """Serve a folder's files as a repository's; yield the hub's address."""
    with serving({repository: Repository({"main": folder})}) as address:
        yield address


@contextmanager
def serving(repositories: dict[str, Repository], asked: list[str] | None = None) -> Iterator[str]:
    """Serve repositories by name; yield the hub's address. What is asked for is added to `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            if asked is not None:
                asked.append(path)
            is_api = path.startswith("api/models/")
            owner, name, *rest = path.removeprefix("api/models/").split("/")
            repository = repositories.get(f"{owner}/{name}")
            if repository is None:
                self.answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            elif is_api and rest == ["refs"]:
                self.answer_json(_refs(repository))
            elif is_api:
                self.answer_info(repository, "/".join(rest[1:]) or "main", f"{owner}/{name}")
            else:
                self.answer_file(repository, rest[1:])

        do_GET = do_HEAD

        def answer_info(self, repository: Repository, revision: str, name: str) -> None:
            folder = repository.folder(revision)
            if folder is None:
                self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                self.answer_json(_info(repository, folder, name))

        def answer_file(self, repository: Repository, parts: list[str]) -> None:
            # A revision may have slashes in it.
            cuts = ((("/".join(parts[:n])), "/".join(parts[n:])) for n in range(1, len(parts)))
            found = next(((repository.folder(at), file) for at, file in cuts if repository.folder(at)), None)
            if found is None:
                self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            elif repository.is_gated:
                self.answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            elif not (found[0] / found[1]).is_file():
                self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit_of(found[0])})
            else:
                body = (found[0] / found[1]).read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()}"'
                self.answer(200, {"ETag": tag, "X-Repo-Commit": commit_of(found[0])}, body)

        def answer_json(self, value: object) -> None:
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def commit_of(folder: Path) -> str:
    """Forty digits that stand for all files in a folder."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}
    parts = [f"{name} {hashlib.sha256(body).hexdigest()}" for name, body in files.items()]
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _info(repository: Repository, folder: Path, name: str) -> dict[str, object]:
    """What is said of a repository at one commit; binary files lie in LFS there, with their sha256."""
    siblings = []
    for path in _files(folder):
        body = path.read_bytes()
        file = {"rfilename": path.relative_to(folder).as_posix(), "size": len(body), "blobId": "0" * 40}
        if path.suffix not in (".json", ".jsonl", ".md", ".py"):
            file["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
        siblings.append(file)
    said = {"id": name, "modelId": name, "private": False, "gated": "auto" if repository.is_gated else False}
    return {**said, "sha": commit_of(folder), "tags": [], "siblings": siblings}


def _refs(repository: Repository) -> dict[str, object]:
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit_of(folder)}
        for name, folder in repository.branches.items()
    ]
    return {"branches": branches, "tags": [], "converts": []}


def only_this_hub(address: str, home: Path) -> dict[str, str]:
    """Environment of a process that knows no hub but this one."""
    known = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }
    return {**os.environ, **known}
