"""A repository of the Hugging Face hub: what is in it, and one file after another of it. Nothing in it is ever run."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from visae.errors import ModelError
from visae.notices import Notice

_FULL = (errno.ENOSPC, errno.EDQUOT)
for _client in ("httpx", "httpx2"):  # which tell of each request
    logging.getLogger(_client).setLevel(logging.WARNING)
_UNKNOWN_TOKEN, _OF_THE_SERVER = 401, 500


@dataclass(frozen=True)
class HubName:
    """A place on the hub.

    Attributes
    ----------
    repository
        owner/name.
    inside
        Folder or file in it; empty for all of it.
    revision
        Branch, tag or commit; None for the hub's own choice.
    """

    repository: str
    inside: str
    revision: str | None


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit.

    Attributes
    ----------
    revision
        The commit.
    files
        sha256 by file, None where the hub does not say it.
    notices
        What a person should know of it.
    is_kept
        Whether it was read from the cache, without a network.
    """

    revision: str
    files: Mapping[str, str | None]
    notices: tuple[Notice, ...] = ()
    is_kept: bool = field(default=False)


def listed(name: HubName, text: str) -> Listing:
    """List a repository's files, from the cache where the hub cannot be reached.

    Parameters
    ----------
    text
        The name as it was written, for messages.

    Raises
    ------
    ModelError
        If there is no such repository or revision, or it cannot be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi().model_info(name.repository, revision=name.revision, files_metadata=True)
    except (HfHubHTTPError, HFValidationError) as error:
        if _status(error) >= _OF_THE_SERVER:
            return _kept(name, text, error)
        raise ModelError(f"{text}: {_refusal(error, name)}") from error
    except Exception as error:  # of several libraries, by version; all mean that nobody answers
        return _kept(name, text, error)
    files = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()}
    return Listing(str(info.sha), files)


def fetched(name: HubName, listing: Listing, file: str, text: str) -> Path:
    """Path of one file in the cache, fetched if it is not there.

    Raises
    ------
    ModelError
        If it cannot be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if listing.is_kept:
            return Path(hf_hub_download(name.repository, file, revision=listing.revision, local_files_only=True))
        # By the name of the branch, so that the cache knows its commit when there is no network.
        path = Path(hf_hub_download(name.repository, file, revision=name.revision))
        if listing.revision not in path.parts:  # it has moved on since
            path = Path(hf_hub_download(name.repository, file, revision=listing.revision))
        return path
    except HfHubHTTPError as error:
        raise ModelError(f"{text}: {file}: {_refusal(error, name)}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        raise ModelError(
            f"{text}: {file} could not be fetched ({_line(error)}); look at the network and run this again: what has "
            "arrived is kept"
        ) from error


def _refusal(error: Exception, name: HubName) -> str:
    """Say what the hub has refused, and what to do."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, HFValidationError):
        return f"{name.repository} is no name of a repository ({_line(error)})"
    if isinstance(error, GatedRepoError):
        return (
            f"{name.repository} is gated: its owner lets in who has accepted its terms; accept them on its page, then "
            "log in on this machine with `hf auth login`, or set HF_TOKEN"
        )
    if isinstance(error, DisabledRepoError):
        return f"the hub has disabled {name.repository}; ask its owner"
    if isinstance(error, RevisionNotFoundError):
        return f"{name.repository} has no revision {name.revision}; {_revisions(name)}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the hub has no model repository {name.repository} that you may see (data sets and spaces are none); look "
            "at the spelling, and if it is private, log in with `hf auth login`, or set HF_TOKEN"
        )
    if _status(error) == _UNKNOWN_TOKEN:
        return "the hub does not know the token of this machine; log in again with `hf auth login`, or mend HF_TOKEN"
    return f"the hub refuses it ({_line(error)}); try again later"


def _status(error: Exception) -> int:
    """Status of the hub's answer; 0 where there was none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _revisions(name: HubName) -> str:
    """Branches and tags of a repository, as far as the hub tells them."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(name.repository)
    except Exception:  # only a hint
        return "leave it out for the newest, and write a subfolder before the @"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return f"it has: {', '.join(names)}, and commits; a subfolder is written before the @"


def _kept(name: HubName, text: str, error: Exception) -> Listing:
    """What the cache has of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{name.repository.replace('/', '--')}"
    commits = sorted(path.name for path in (folder / "snapshots").glob("*"))
    named = folder / "refs" / (name.revision or "main")
    if named.is_file():
        wanted = named.read_text().strip()
        commits = [commit for commit in commits if commit == wanted] or commits
    elif name.revision is not None:
        commits = [commit for commit in commits if commit.startswith(name.revision)]
    if len(commits) != 1:
        part = f" --include '{name.inside}*'" if name.inside else ""
        place = f"{name.repository}{f'@{name.revision}' if name.revision else ''}"
        found = f"has several commits of it ({', '.join(commits)}: name one with @)" if commits else f"has no {place}"
        raise ModelError(
            f"{text}: the hub cannot be reached ({_line(error)}), and its cache on this machine {found}; look at the "
            f"network, or fetch it where there is one by `hf download {name.repository}{part} --local-dir FOLDER`, "
            "and give the folder"
        )
    snapshot = folder / "snapshots" / commits[0]
    files = {path.relative_to(snapshot).as_posix(): None for path in snapshot.rglob("*") if path.is_file()}
    said = f"{text}: the hub cannot be reached; taken from its cache on this machine, commit {commits[0]}"
    return Listing(commits[0], files, (Notice("note", said),), is_kept=True)


def _line(error: Exception) -> str:
    """First line of an error that says something, with its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
