"""What the names of Parquet files tell, as the hub writes them: their split, and which shard of how many they are."""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from visae.errors import DataError

# As the hub's own library reads names.
_ROLES = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(?P<before>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<after>.*)\.parquet")
_NUMBERED = re.compile(r"(\d+)\.parquet")
_OWN_SPLIT = re.compile(r"\w+", re.ASCII)
_NAMED = 5
_CURE = "set splits, such as splits: {train: data/train-*.parquet, val: data/validation-*.parquet}"


def split_by_names(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Sort files below a folder by the split that their names, or else those of their folders, tell.

    Parameters
    ----------
    files
        In their order, at least one.

    Returns
    -------
    dict
        `{"": files}` where no name tells one.

    Raises
    ------
    DataError
        If only some tell, one tells two, or there are several data sets below the folder.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    first: dict[tuple[str, ...], Path] = {}  # of each data set, by the folders that tell no split
    for file in files:
        split, others = _split_of(file.relative_to(root))
        found[split].append(file)
        first.setdefault(others, file)
    if "" in found and len(found) > 1:
        told = next(split for split in found if split)
        raise DataError(
            f"root: {root}: the name of {found[''][0]} tells no split, that of {found[told][0]} does ({told}); {_CURE}"
        )
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise DataError(
            f"root: {root}: several data sets or configurations lie there, of {one} and of {other}; set root to the "
            f"folder of one, or {_CURE}"
        )
    return dict(found)


def _split_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """The split that a path tells, empty for none, and what in it tells no split."""
    folders = path.parts[:-1]
    others = tuple(part for part in folders if part != "data" and not _roles(part))
    shard = _SHARD.fullmatch(path.name)
    before = shard["before"].rstrip("-._") if shard else ""
    # Where the hub's own library writes them, any name is that of a split: `data/unlabelled-00000-of-00002.parquet`.
    if before and folders[-1:] == ("data",) and _OWN_SPLIT.fullmatch(before):
        return next((role for role, names in _ROLES.items() if before in names), before), others
    for part in (path.stem, *reversed(folders)):
        roles = _roles(part)
        if len(roles) > 1:
            raise DataError(f"root: {path}: its name tells {' and '.join(roles)}; {_CURE}")
        if roles:
            # `a-train-00000-of-00002` and `b-train-00000-of-00002` are of two data sets.
            return roles[0], (*others, *sorted(_words(before) - set(_ROLES[roles[0]])))
    return "", others


def _roles(name: str) -> list[str]:
    return [role for role, names in _ROLES.items() if _words(name) & set(names)]


def _words(name: str) -> set[str]:
    return set(re.split(r"[\W\d_]+", name.casefold())) - {""}


def check_whole(files: Iterable[Path], place: str, pattern: str = "*") -> None:
    """Refuse files of a split of whose shards some are missing.

    Parameters
    ----------
    place
        Key that the files come from.
    pattern
        What names the files; shards that it does not name are not missed.

    Raises
    ------
    DataError
        If a shard is missing, comes twice, or is of another number of shards than the others.
    """
    shards: dict[tuple[Path, str], dict[int, re.Match[str]]] = defaultdict(dict)
    numbered: dict[Path, set[int]] = defaultdict(set)
    for file in files:
        if shard := _SHARD.fullmatch(file.name):
            known = shards[file.parent, shard["before"]]
            first = next(iter(known.values()), shard)
            if first["total"] != shard["total"]:
                raise DataError(
                    f"{place}: {file.parent}: {first.string} and {file.name} are of two versions of one split; leave "
                    "one version"
                )
            other = known.setdefault(int(shard["number"]), shard)
            if other is not shard:
                raise DataError(f"{place}: {file.parent}: {other.string} and {file.name} are one shard; leave one")
        elif numbers := _NUMBERED.fullmatch(file.name):
            numbered[file.parent].add(int(numbers[1]))
    for (folder, before), known in shards.items():
        shard = next(iter(known.values()))
        total, width = int(shard["total"]), len(shard["number"])
        names = {number: f"{before}{number:0{width}d}-of-{shard['total']}.parquet" for number in range(total)}
        _refuse_missing(place, folder, [names[n] for n in names if n not in known], total, pattern)
    for folder, known_numbers in numbered.items():
        last = max(known_numbers)
        missing = [f"{n:04d}.parquet" for n in range(last) if n not in known_numbers] if 0 in known_numbers else []
        _refuse_missing(place, folder, missing, last + 1, pattern)


def _refuse_missing(place: str, folder: Path, names: list[str], total: int, pattern: str) -> None:
    missing = [name for name in names if fnmatch.fnmatch(name, pattern.rpartition("/")[2])]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise DataError(
            f"{place}: {folder}: of {total} shards {len(missing)} are missing: {', '.join(missing[:_NAMED])}{more}; "
            "download them, or name in splits, by a pattern that leaves these out, what is meant to be read"
        )
