"""List the pictures of Parquet files as the Hugging Face hub serves them: a row a picture, its bytes within the row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from visae.config.settings import HuggingFaceSettings
from visae.data.containers import count_beside, files_by_split, place_of
from visae.data.labels import Labels
from visae.data.noticed import Noticed
from visae.data.parquet_columns import LabelColumn
from visae.data.parquet_rows import Shard
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits, in_order
from visae.data.shard_names import check_whole, split_by_names
from visae.data.split_names import check_split_name
from visae.errors import DataError

_ALL = "**/*.parquet"
_CURE = "set label: none"
_LEARNED_AND_MEASURED = ("", "train", "val")  # drawn splits may be either


def list_huggingface(settings: HuggingFaceSettings, seed: int) -> Listing:
    """List the pictures of Parquet files in the order of the files' names and of their rows, split by split.

    Raises
    ------
    DataError
        If a file is missing or damaged, columns are not as they have to be or not plain, a picture lies outside its
        file, or labels do not fit together.
    """
    if (settings.mask is None) != (settings.classes is None):
        raise DataError("mask and classes: the one names the column of masks, the other lists their classes; set both")
    root = _folder(settings)
    where, noticed = f"root: {root}", Noticed()
    by_split = _files(root, settings)
    count_beside(root, {file for files in by_split.values() for file in files}, noticed)
    shards = {
        split: [Shard.open(file, settings, f"{place_of(split)}: {file}") for file in files]
        for split, files in by_split.items()
    }
    column = _same_label_column([shard for of in shards.values() for shard in of])
    as_text = column is not None and (column.is_text or (column.names is not None and settings.mask is not None))
    labels = Labels(where, _CURE, settings.classes, always_text=as_text, zero_based=settings.zero_based)
    _note_labels(shards, labels, noticed)
    if settings.label not in ("auto", "none") and not labels.seen:
        raise DataError(f"{where}: the column {settings.label} is empty, or -1, in all rows; {_CURE}")
    classes = labels.classes(noticed)
    for shard in (shard for of in shards.values() for shard in of):
        shard.notice_size(noticed)

    def with_keys(split: str) -> Iterator[tuple[str, Picture]]:
        for shard in shards[split]:
            for row in shard.rows():
                number, name = labels.of(row.label)
                yield f"{shard.key}:{row.number}", Picture(row.picture, split, number, name, row.mask, group=row.group)

    if "" not in shards:
        return Listing((picture for split in shards for _, picture in with_keys(split)), classes, noticed)
    check_shares(settings)
    return Listing(in_drawn_splits(lambda: with_keys(""), settings, seed, where), classes, noticed)


def _folder(settings: HuggingFaceSettings) -> Path:
    file = Path(settings.root).expanduser()
    if file.is_file():
        raise DataError(f"root: {file} is a file; set root to its folder, and splits to {{train: {file.name}}}")
    return existing(settings.root, "root")


def _files(root: Path, settings: HuggingFaceSettings) -> dict[str, list[Path]]:
    """Files by split, in order; the split is empty where splits are drawn."""
    for split in settings.splits:
        check_split_name(split, "splits")
    if not settings.splits and not any(root.glob(_ALL)) and (arrow := next(root.rglob("*.arrow"), None)):
        raise DataError(
            f"root: {root}: it has no Parquet files; {arrow.name} was written by save_to_disk: load it with "
            "datasets.load_from_disk and write each split by to_parquet"
        )
    patterns = {
        split: f"{pattern.rstrip('/')}/{_ALL}" if (root / pattern).is_dir() else pattern
        for split, pattern in (settings.splits or {"": _ALL}).items()
    }
    found = files_by_split(root, patterns, "Parquet file")
    if not settings.splits:
        by_name = split_by_names(root, found[""])
        found = {split: by_name[split] for split in in_order(by_name)}
    for split, files in found.items():
        check_whole(files, place_of(split), patterns.get(split, "*"))
    return found


def _same_label_column(shards: list[Shard]) -> LabelColumn | None:
    """The column of labels that all files have; refuses files that do not name classes alike."""
    first = shards[0]
    for shard in shards[1:]:
        one, other = first.columns.label, shard.columns.label
        if (one is None) != (other is None):
            without, given = (first, shard) if one is None else (shard, first)
            raise DataError(f"{without.where}: it has no column of labels, but {given.file} has; {_CURE}")
        if one is None or other is None:
            continue
        if one.is_text != other.is_text:
            raise DataError(f"{shard.where}: the column {other.name}: integers here are texts in {first.file}, or back")
        if one.names != other.names:
            pairs = enumerate(zip(one.names or (), other.names or (), strict=False))
            differ = next((f": {n} is {a!r} there and {b!r} here" for n, (a, b) in pairs if a != b), "")
            raise DataError(
                f"{shard.where}: the column {other.name}: its classes are not those of {first.file}{differ}; "
                "are these files of one data set?"
            )
    return first.columns.label


def _note_labels(shards: Mapping[str, list[Shard]], labels: Labels, noticed: Noticed) -> None:
    """Walk over all rows once; pictures without a label are counted where nothing is learned or measured on them."""
    for split, of in shards.items():
        n_rows = 0
        for shard in of:
            for row in shard.rows():
                n_rows += 1
                place = f"row {row.number + 1} of {shard.file.name}"
                if row.label is None and split not in _LEARNED_AND_MEASURED and row.mask is None:
                    if shard.columns.label:
                        text = f"{{n}} pictures of {split} have no label (-1 or empty), such as {{example}}"
                        noticed.count("note", text, place)
                    continue
                labels.add(place, split, row.label, row.label_name, row.mask)
        if not n_rows:
            raise DataError(f"{place_of(split)}: its files have no rows: {of[0].file}")
