"""Real activations for the comparison of quality: the embedded ViT-S/14, layer 10, patches of photographs or scenes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.store.extraction import LAYER, NETWORK, dump, prepared
from visae.activations.extract import StoreSource, publish_store
from visae.activations.store import ActivationStore
from visae.config.settings import ImageFolderSettings, ScenesSettings
from visae.data.index import build_index
from visae.files import atomic_path, file_sha256

# Held-out tokens, drawn from all held-out pictures.
HELD_OUT = 8192


@dataclass(frozen=True)
class Activations:
    """Files of float32 rows to train on and to measure on.

    Attributes
    ----------
    name
        Whose activations they are, as in the table.
    manifest
        The store that they are from.
    """

    name: str
    train: Path
    held_out: Path
    d_model: int
    manifest: Path

    def fingerprint(self) -> str:
        """Hash of both files."""
        return file_sha256(self.train) + file_sha256(self.held_out)


def photographs() -> Path | None:
    """Folder of `imagenet-sample`, if VISAE_DATA says where it is."""
    root = Path(os.environ.get("VISAE_DATA", "")) / "imagenet-sample"
    return root if "VISAE_DATA" in os.environ and root.is_dir() else None


def activations(scratch: Path, quick: bool) -> Activations:
    """Activations of photographs where VISAE_DATA has them, else of made scenes; made once and kept in `scratch`."""
    root = photographs()
    name = "scenes" if quick or root is None else "photographs"
    folder = scratch / (f"few-{name}" if quick else name)
    manifest = folder / "store" / f"layer{LAYER}" / "manifest.json"
    if not manifest.is_file():
        _make_store(folder, name, 60 if quick else 480, root, manifest)
    store = ActivationStore.open(manifest)
    made = Activations(name, folder / "train.bin", folder / "held-out.bin", store.d_model, manifest)
    if not made.held_out.is_file():
        _write(store, "train", made.train, None)
        _write(store, "val", made.held_out, HELD_OUT)
    return made


def _make_store(folder: Path, name: str, train: int, root: Path | None, manifest: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    card, index = prepared(NETWORK, folder / "model"), folder / "index.parquet"
    if name == "scenes":
        build_index(ScenesSettings(kind="scenes", train=train, val=train // 4, test=1), index)
    else:
        build_index(ImageFolderSettings(kind="image_folder", root=str(root), labels="none", test_share=0), index)
    dump(LAYER, NETWORK, index, card, manifest.parents[1])
    publish_store(NETWORK, StoreSource(index, card, 1), str(LAYER), manifest, device="cpu")


def _write(store: ActivationStore, split: str, path: Path, count: int | None) -> None:
    rows = store.read(store.image_ids(split)).flatten(0, 1).numpy()
    if count is not None:
        rows = rows[np.random.default_rng(0xE7A1).permutation(len(rows))[:count]]
    with atomic_path(path) as temporary:
        rows.astype(np.float32, copy=False).tofile(temporary)
