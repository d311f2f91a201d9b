"""A Hugging Face hub of one repository, as far as a client asks it for files."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(folder: Path, repository: str = "someone/some-vit") -> Iterator[str]:
    """Serve a folder's files as a repository's; yield the hub's address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            path = folder / Path(self.path).name
            is_there = self.path.startswith(f"/{repository}/resolve/main/")
            self.send_response(200 if is_there and path.is_file() else 404)
            body = path.read_bytes() if is_there and path.is_file() else b""
            if is_there and not path.is_file():
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def only_this_hub(address: str, home: Path) -> dict[str, str]:
    """Environment of a process that knows no hub but this one."""
    known = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }
    return {**os.environ, **known}
