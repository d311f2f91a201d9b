"""Which columns of a Parquet file hold pictures, masks and labels: its types tell, and the features beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow
from pyarrow import types

from visae.config.settings import HuggingFaceSettings
from visae.data.table_files import is_text
from visae.errors import DataError

_LABELS = ("label", "labels")  # what columns of classes are called where no features tell
_NAMED = 12


class _Column(NamedTuple):
    """A column, or a field of a struct: its name with dots, its type, and what the features say of it."""

    name: str
    kind: pyarrow.DataType
    feature: Any


@dataclass(frozen=True)
class PictureColumn:
    """A column of pictures or masks.

    Attributes
    ----------
    content, path
        The columns of the bytes and of the names, as Parquet calls those that it stores; no name without a struct.
    """

    name: str
    content: str
    path: str | None


@dataclass(frozen=True)
class LabelColumn:
    """A column of classes.

    Attributes
    ----------
    names
        Of the classes 0, 1, ...; None where the file has none.
    """

    name: str
    is_text: bool
    names: tuple[str, ...] | None


@dataclass(frozen=True)
class Columns:
    """What is read of a file."""

    picture: PictureColumn
    mask: PictureColumn | None
    label: LabelColumn | None
    group: LabelColumn | None = None


def columns_of(schema: pyarrow.Schema, settings: HuggingFaceSettings, where: str) -> Columns:
    """Find the columns that settings name, or those that are meant where there is one choice only.

    Parameters
    ----------
    where
        Key and file, named in errors.

    Raises
    ------
    DataError
        If a column is missing, of another type, or there is more than one choice.
    """
    found = _Found(schema, where)
    mask = None if settings.mask is None else found.picture_column(found.named(settings.mask, "mask"), "mask")
    picture = found.named(settings.image, "image") if settings.image != "auto" else found.only_picture(settings.mask)
    label = None
    if settings.label_column is not None:
        chosen = (
            found.only_label(picture, settings.group)
            if settings.label_column == "auto"
            else found.named(settings.label, "label")
        )
        label = found.label_column(chosen) if chosen else None
    group = None if settings.group is None else found.label_column(found.named(settings.group, "group"), "group")
    return Columns(found.picture_column(picture, "image"), mask, label, group)


class _Found:
    """The columns of one file."""

    def __init__(self, schema: pyarrow.Schema, where: str) -> None:
        self.where = where
        self._columns = list(_columns(schema, _features(schema.metadata or {}, where), ""))

    def named(self, name: str, key: str) -> _Column:
        """The column that a key names."""
        for column in self._columns:
            if column.name == name:
                return column
        raise DataError(f"{self.where}: {key}: it has no column {name}; its columns are {self._listed()}")

    def only_picture(self, mask: str | None) -> _Column:
        """The one column of pictures."""
        found = [column for column in self._columns if _is_picture(column) and column.name != mask]
        if len(found) > 1:
            names = ", ".join(column.name for column in found)
            raise DataError(
                f"{self.where}: the columns {names} hold pictures; name that of the pictures by image:, and that of "
                "masks, if one is, by mask: and their classes by classes:"
            )
        if not found:
            raise DataError(
                f"{self.where}: no column holds pictures, as a struct of bytes and path; name one of bytes by image:. "
                f"Its columns are {self._listed()}"
            )
        return found[0]

    def only_label(self, picture: _Column, group: str | None) -> _Column | None:
        """The one column of classes, beside that of groups; None where none is called so, or only the pictures' is."""
        found = [c for c in self._columns if _type_of(c.feature) == "ClassLabel" and c.name != group]
        by_name = [column for column in self._columns if column.name in _LABELS and column != picture]
        found = found or [column for column in by_name if _is_label(column.kind)]
        if len(found) > 1:
            names = ", ".join(column.name for column in found)
            raise DataError(f"{self.where}: the columns {names} hold labels; name one by label:, or set label: none")
        lists = [c for c in self._columns if _is_list(c.kind) and _type_of(_of_items(c.feature)) == "ClassLabel"]
        if not found and (unfit := lists or by_name):
            self.label_column(unfit[0])
        return found[0] if found else None

    def picture_column(self, column: _Column, key: str) -> PictureColumn:
        """Check that a column holds pictures."""
        if _is_binary(column.kind):
            return PictureColumn(column.name, column.name, None)
        fields = {field.name: field.type for field in column.kind} if types.is_struct(column.kind) else {}
        if "bytes" in fields and _is_binary(fields["bytes"]):
            has_names = "path" in fields and is_text(fields["path"])
            return PictureColumn(column.name, f"{column.name}.bytes", f"{column.name}.path" if has_names else None)
        if _is_list(column.kind):
            problem = "it holds several pictures a row, or numbers; a picture is one file's bytes a row"
        elif is_text(column.kind):
            problem = "it holds paths or addresses, and no pictures; a table of paths is read by kind: table"
        else:
            problem = f"it has type {column.kind}; a picture is bytes, or a struct of bytes and path"
        raise DataError(f"{self.where}: {key}: the column {column.name}: {problem}")

    def label_column(self, column: _Column, key: str = "label") -> LabelColumn:
        """Check that a column holds a class, or a group, a row."""
        if not _is_label(column.kind):
            several = f"it holds several {key}s a row" if _is_list(column.kind) else f"it has type {column.kind}"
            one, instead = ("class", ", or set label: none") if key == "label" else (key, "")
            raise DataError(
                f"{self.where}: the column {column.name}: {several}; a picture has one {one}, an integer or a text: "
                f"name another column by {key}:{instead}"
            )
        names = column.feature.get("names") if _type_of(column.feature) == "ClassLabel" else None
        as_text = is_text(column.kind) or types.is_boolean(column.kind)
        known = tuple(map(str, names)) if isinstance(names, list) and not as_text else None
        return LabelColumn(column.name, as_text, known)

    def _listed(self) -> str:
        shown = [f"{column.name} ({column.kind})" for column in self._columns if "." not in column.name]
        return ", ".join(shown[:_NAMED]) + (f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else "")


def _columns(fields: Any, features: Any, prefix: str) -> Iterator[_Column]:
    """Columns with the fields of structs, but those of a picture."""
    for field in fields:
        feature = features.get(field.name) if isinstance(features, dict) else None
        column = _Column(prefix + field.name, field.type, feature)
        yield column
        if types.is_struct(field.type) and not _is_picture(column):
            yield from _columns(field.type, feature, f"{column.name}.")


def _features(metadata: dict[bytes, bytes], where: str) -> Any:
    """What the hub's library wrote of the columns; nothing where another program wrote the file."""
    text = metadata.get(b"huggingface")
    try:
        return json.loads(text)["info"]["features"] if text else {}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(
            f"{where}: its metadata under the key huggingface is damaged ({error}); write it anew"
        ) from error


def _type_of(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _of_items(feature: Any) -> Any:
    """What the features say of the items of a list; older versions wrote a list of one."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return feature.get("feature") if isinstance(feature, dict) else None


def _is_picture(column: _Column) -> bool:
    if not types.is_struct(column.kind):
        return False
    is_said = _type_of(column.feature) in ("Image", "")  # sounds are such structs too
    return is_said and any(field.name == "bytes" and _is_binary(field.type) for field in column.kind)


def _is_list(kind: pyarrow.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            types.is_list,
            types.is_large_list,
            types.is_fixed_size_list,
            types.is_list_view,
            types.is_large_list_view,
        )
    ) or isinstance(kind, pyarrow.BaseExtensionType)


def _is_binary(kind: pyarrow.DataType) -> bool:
    if types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_label(kind: pyarrow.DataType) -> bool:
    if types.is_dictionary(kind):
        return _is_label(kind.value_type)
    return types.is_integer(kind) or types.is_boolean(kind) or is_text(kind)
