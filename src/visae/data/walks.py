"""Walk through folders of pictures; what is no picture is left out and counted."""

from __future__ import annotations

import os
from collections.abc import Iterator

from visae.data.images import SUFFIXES
from visae.data.noticed import Level, Noticed
from visae.errors import DataError

# Folders that systems and programs make for themselves, in lower case: thumbnails, bins, snapshots, archives' remains.
_SERVICE = frozenset(
    (
        *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "~snapshot", "@__thumb", "@tmp"),
        *("@sharebin", "@sharesnap", "@syno", "@synoresource", "@download", "@transcode"),
        *("__macosx", "$recycle.bin", "system volume information", "lost+found"),
        *("network trash folder", "temporary items", "__pycache__"),
    )
)
# Such too, but they may be somebody's classes.
_MAYBE_SERVICE = frozenset(("thumbnails", "thumbs", "_thumbs", "recycler"))
_SERVICE_FILES = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini"))
# What people have as pictures and no decoder here reads: left out, it may be missed.
_UNREAD = frozenset(
    (
        *(".heic", ".heif", ".hif", ".avci", ".jxl", ".jxr", ".wdp", ".hdp", ".bpg", ".flif", ".jls"),
        *(".dng", ".raw", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".orf", ".raf", ".rw2"),
        *(".pef", ".srw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".rwl", ".mef", ".mos", ".gpr"),
        *(".svg", ".psd", ".psb", ".xcf", ".kra", ".ai", ".eps", ".pdf", ".exr", ".hdr", ".dcm", ".dicom", ".nii"),
        *(".npy", ".npz", ".mat", ".h5", ".hdf5", ".czi", ".nd2", ".lif", ".svs", ".ndpi", ".mrxs", ".scn", ".fits"),
        *(".pcx", ".pcd", ".dds", ".ico", ".icns", ".cur", ".xpm", ".xbm", ".im", ".msp", ".ras", ".psp", ".djvu"),
        *(".avif", ".webp", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".avifs"),
        *(".mp4", ".mov", ".avi", ".mkv", ".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"),
    )
)


def walked(folder: str, noticed: Noticed, seen: set[str]) -> Iterator[str]:
    """Yield paths of pictures depth first, in their order as texts.

    Of all names, those in one folder are held, and in its subfolder while that is walked.

    Parameters
    ----------
    seen
        Real paths of folders that were walked; one that is reached again through a link is left out.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    real = os.path.realpath(folder)
    if real in seen:
        noticed.leave_out("folders that were reached before, through a link", folder)
        return
    seen.add(real)
    for name in wanted_names(folder, noticed):
        path = os.path.join(folder, name)
        if name.endswith("/"):
            yield from walked(path[:-1], noticed, seen)
        else:
            yield path


def wanted_names(folder: str, noticed: Noticed, beside: str = "") -> list[str]:
    """Names of pictures in a folder, and of its folders with a slash, in order.

    Parameters
    ----------
    beside
        Where only folders are wanted: what pictures are that lie beside them.
    """
    try:
        with os.scandir(folder) as entries:
            # The slash sorts a folder where its pictures' paths belong.
            return sorted(name for entry in entries if (name := _wanted(entry, noticed, beside)))
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read: {error.strerror}") from error


def _wanted(entry: os.DirEntry[str], noticed: Noticed, beside: str) -> str:
    """Name of a picture, or of a folder with a slash; empty for what is left out."""
    name = entry.name
    if entry.is_dir():
        maybe = name.lower() in _MAYBE_SERVICE
        if maybe or name.startswith(".") or name.lower() in _SERVICE:
            # Empty ones hide nothing.
            if n_files := sum(len(files) for _, _, files in os.walk(entry.path)):
                level: Level = "warning" if maybe else "note"
                noticed.leave_out(f"files in {name} folders", entry.path, n_files, level)
            return ""
        return f"{name}/"
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        noticed.leave_out("._ files of macOS" if name.startswith("._") else "hidden files", entry.path)
    elif name.lower() in _SERVICE_FILES:
        noticed.leave_out(f"{name} files", entry.path)
    elif suffix not in SUFFIXES:
        of_suffix: Level = "warning" if suffix in _UNREAD else "note"
        noticed.leave_out(f"{suffix} files" if suffix else "files without a suffix", entry.path, level=of_suffix)
    elif beside:
        noticed.leave_out(beside, entry.path, level="warning")
    else:
        return name
    return ""


def is_service_folder(name: str) -> bool:
    """Whether a folder's name is one that systems make for themselves, or hidden."""
    return name.startswith(".") or name.casefold() in _SERVICE


def may_be_missed(suffix: str) -> bool:
    """Whether files of that suffix, in lower case, may be pictures that no decoder here reads, or archives of such."""
    return suffix in _UNREAD


def kind_of_file(name: str) -> str:
    """What files like this one are called where they are counted, by suffix."""
    if name.startswith("."):
        return "._ files of macOS" if name.startswith("._") else "hidden files"
    suffix = os.path.splitext(name)[1].lower()
    return f"{suffix} files" if suffix else "files without a suffix"
