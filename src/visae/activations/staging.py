"""Copies of stores on a machine's own disk, for jobs that read them many times."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from visae.activations.schema import ShardRecord, footer_sha256
from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.files import atomic_path, file_sha256
from visae.progress import progress_bar

logger = logging.getLogger(__name__)

_PIECE = 1 << 24


@contextmanager
def staged(manifests: list[Path], scratch: str | None) -> Iterator[list[Path]]:
    """Yield manifests of copies of the stores below `scratch`, each as good as the store itself.

    A copy is named by what its manifest says, so jobs with the same stores share one, and what a killed job has copied
    is used. Every byte is compared with the manifest's hash while it is copied. The last job that uses a copy deletes
    it. Where there is no room, the store is read where it lies, and a warning says so.

    Parameters
    ----------
    scratch
        Folder, with environment variables of this machine such as `$TMPDIR`; None copies nothing.

    Raises
    ------
    StoreError
        If the folder's environment variable is not set here, it cannot be written to, or a shard is not the one that
        its manifest describes.
    """
    if scratch is None:
        yield manifests
        return
    folder = _looked_up(scratch)
    with ExitStack() as stack:
        yield [stack.enter_context(_copied(manifest, folder)) for manifest in manifests]


def _looked_up(scratch: str) -> Path:
    """Folder of all copies; made where it is missing."""
    text = os.path.expanduser(os.path.expandvars(scratch))
    if "$" in text:
        raise StoreError(f"scratch: {scratch}: not set on {socket.gethostname()}; name another folder, or leave it out")
    folder = Path(text) / "visae-stores"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"scratch: {folder} cannot be made on {socket.gethostname()}: {error.strerror}") from error
    return folder


@contextmanager
def _copied(manifest: Path, scratch: Path) -> Iterator[Path]:
    """Yield the manifest of a copy, or the store's own where there is no room for one."""
    store = ActivationStore.open(manifest)
    copy = scratch / file_sha256(manifest)[:16]
    with _in_use(copy):
        with (scratch / f"{copy.name}.copying").open("w") as copying:
            fcntl.flock(copying, fcntl.LOCK_EX)  # others that want the same store wait for this copy
            whole = _fill(store, copy)
        if whole:
            with atomic_path(copy / manifest.name) as temporary:
                shutil.copyfile(manifest, temporary)
        yield copy / manifest.name if whole else manifest


@contextmanager
def _in_use(copy: Path) -> Iterator[None]:
    """Keep a copy from being deleted; the last that leaves deletes it.

    The lock file stays: another job may wait for it. A job that dies gives its locks back.
    """
    with (copy.parent / f"{copy.name}.used").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("%s is still used by another job", copy)
            else:
                shutil.rmtree(copy, ignore_errors=True)


def _fill(store: ActivationStore, copy: Path) -> bool:
    """Copy what is missing; returns False where there is no room, and then leaves nothing."""
    copy.mkdir(exist_ok=True)
    for torn in copy.glob(".*.partial"):
        torn.unlink()
    missing = [shard for shard in store.shards if not _is_there(copy / shard.file, shard)]
    needed, free = sum(shard.bytes for shard in missing), shutil.disk_usage(copy).free
    if needed <= free:
        try:
            with progress_bar(needed, f"copying {store.folder} to {copy}", "B") as bar:
                for shard in missing:
                    _copy(store.folder / shard.file, copy / shard.file, shard.sha256)
                    bar.update(shard.bytes)
        except OSError as error:  # others write there too
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(copy).free
        else:
            logger.info("scratch: %s is read from its copy %s", store.folder, copy)
            return True
    logger.warning(
        "scratch: no room for %s in %s: %d bytes are to be copied and %d are free; it is read where it lies",
        *(store.folder, copy, needed, free),
    )
    shutil.rmtree(copy, ignore_errors=True)
    return False


def _is_there(path: Path, shard: ShardRecord) -> bool:
    """Whether a shard was copied whole; its pages have checksums, which each read verifies."""
    return path.is_file() and path.stat().st_size == shard.bytes and footer_sha256(path) == shard.footer_sha256


def _copy(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with atomic_path(target) as temporary, source.open("rb") as read, temporary.open("wb") as write:
        while piece := read.read(_PIECE):
            digest.update(piece)
            write.write(piece)
        write.flush()
        if digest.hexdigest() != sha256:
            raise StoreError(
                f"{source}: its bytes are not those that were written; find out more with: "
                f"visae activations check {source.parent}"
            )
