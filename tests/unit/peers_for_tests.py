"""Packages of other projects, in which tests open files and make some: installed once, and kept in a cache.

All but sae-lens are installed without what they depend on, into a folder that is put before visae's own environment:
torch and the rest are there already. What a package imports only for language models is an empty module beside it.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path.home() / ".cache/visae/test-peers"


@dataclass(frozen=True)
class Peer:
    """A package of another project.

    Parameters
    ----------
    pins
        What is installed.
    has_own_environment
        Whether it has an environment of its own, with all that the pins depend on.
    stand_ins
        Text of modules, by name, that it imports and that nothing in the tests calls.
    """

    pins: tuple[str, ...]
    has_own_environment: bool = False
    stand_ins: dict[str, str] = field(default_factory=dict)


PEERS = {
    "saelens": Peer(("torch==2.13.0", "sae-lens==6.54.12"), has_own_environment=True),
    "dictionary_learning": Peer(
        ("dictionary-learning==0.1.0", "einops==0.8.1"),
        stand_ins={
            "nnsight": "LanguageModel = None\n",
            "datasets": "load_dataset = None\n",
            "zstandard": "",
            "wandb": "",
        },
    ),
    "visaebench": Peer(("visaebench==0.1.0",)),
    "saev": Peer(
        ("saev==0.1.0", "einops==0.8.1", "beartype==0.23.1", "jaxtyping==0.3.11", "wadler-lindig==0.1.8"),
    ),
    "overcomplete": Peer(("overcomplete==0.3.0", "einops==0.8.1")),
    "sparsify": Peer(
        (
            *("eai-sparsify==1.3.3", "einops==0.8.1", "natsort==8.4.0", "simple-parsing==0.1.9"),
            "docstring-parser==0.17.0",
        )
    ),
}


def run_peer(name: str, script: Path, *arguments: object) -> None:
    """Run a script where a peer can be imported; what it prints is shown if it fails."""
    python, environment = _installed(name)
    command = [str(python), str(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{name}: {script.name} failed:\n{done.stdout}{done.stderr}"


def _installed(name: str) -> tuple[Path, dict[str, str]]:
    """Python and environment variables with which a peer can be imported, after installing it where it is not."""
    peer, folder = PEERS[name], CACHE / name
    mark = folder / ".installed"
    wanted = repr(peer)
    with _alone(CACHE / f"{name}.lock"):
        if not mark.is_file() or mark.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _install(peer, folder)
            mark.write_text(wanted)
    environment = dict(os.environ)
    if peer.has_own_environment:
        environment.pop("PYTHONPATH", None)
        return folder / "bin/python", environment
    # visae can be imported too: PyPI's torchvision needs its guard, which scripts call before such a peer is imported.
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [environment.get("PYTHONPATH")])])
    return Path(sys.executable), environment


def _install(peer: Peer, folder: Path) -> None:
    if peer.has_own_environment:
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", *peer.pins], check=True)
        return
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--target", folder]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *peer.pins], check=True)
    for module, text in peer.stand_ins.items():
        (folder / f"{module}.py").write_text(text)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for other test processes that install the same."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
