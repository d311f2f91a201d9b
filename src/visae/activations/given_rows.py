"""Rows of a user's own Parquet files: every cell is checked, and what is wrong is named by file, column and row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from visae.activations.schema import DTYPES, ShardHeader, TokenChoice, as_tensor
from visae.errors import StoreError

COLUMNS = ("image_id", "token", "activation")
_IDS = (0, 2**63 - 1)
_TOKENS = (-(2**15), 2**15 - 1)  # tokens are stored as int16
_EXACT = 2**53  # above it, a float64 does not tell one integer from the next
_BATCH_ROWS = 8192


@dataclass(frozen=True)
class GivenFile:
    """One Parquet file whose columns are there.

    Attributes
    ----------
    has_tokens
        Whether it has a column `token`; without, a picture has one row.
    others
        Columns that are not read.
    """

    path: Path
    has_tokens: bool
    others: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> GivenFile:
        """Look at the columns' names.

        Raises
        ------
        StoreError
            If it is no Parquet file, or columns are missing, named otherwise or there twice.
        """
        try:
            names = pq.read_schema(path).names
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise StoreError(f"{path}: not a whole Parquet file ({error})") from error
        others = tuple(name for name in names if name not in COLUMNS)
        for name in others:
            wanted = name.strip().casefold()
            if wanted in COLUMNS and wanted not in names:
                raise StoreError(f"{path}: column {name!r}: write its name {wanted!r}")
        for name in COLUMNS:
            if names.count(name) > 1:
                raise StoreError(f"{path}: column {name!r} is there {names.count(name)} times; leave one")
            if name not in names and name != "token":
                raise StoreError(f"{path}: no column {name!r}; it has {', '.join(names)}")
        return cls(path, "token" in names, others)

    def tokens(self) -> TokenChoice:
        """Tokens of the first picture, which all others have to have.

        Raises
        ------
        StoreError
            If there are no rows, or a token comes twice or is out of order.
        """
        first, found = None, list[int]()
        for _, ids, tokens in self._keys():
            first = ids[0] if first is None else first
            same = len(ids) if (ids == first).all() else int((ids != first).argmax())
            found += tokens[:same].tolist()
            if same < len(ids):
                break
        if first is None:
            raise StoreError(f"{self.path}: no rows")
        for row, (token, following) in enumerate(itertools.pairwise(found), start=2):
            if following in found[: row - 1]:
                hint = "" if self.has_tokens else "; only a column 'token' could tell the rows of a picture apart"
                self._refuse("token", row, f"image_id {first} has the token {following} twice{hint}")
            if token >= 0 and following < token:
                problem = f"{following} comes after {token}; tokens below 0 come first, then patches in order"
                self._refuse("token", row, problem)
        if max(found) < 0:
            problem = (
                "no token is 0 or above, but SAEs learn of these only; number them from 0, or leave the column out"
            )
            self._refuse("token", 1, f"{found[0]}: {problem}")
        return TokenChoice(tuple(found))

    def picture_ids(self, choice: TokenChoice) -> np.ndarray:
        """The user's own ids, int64 (n_images,), once every row is known to be where it has to be.

        Raises
        ------
        StoreError
            If a cell is empty or no integer, rows of a picture are not together, or a picture comes twice.
        """
        n_rows, expected = choice.n_rows, np.array(choice.tokens)
        pictures: list[np.ndarray] = []
        current, n_read = np.empty(0, dtype=np.int64), 0  # id of the picture that the last batch ended in
        for first, ids, tokens in self._keys():
            position = np.arange(n_read, n_read + len(ids)) % n_rows
            started = np.concatenate([current, ids[position == 0]])
            # Without a carried picture, the first row of the batch starts picture 0.
            number = np.cumsum(position == 0) - 1 + len(current)
            wrong = (ids != started[number]) | (tokens != expected[position])
            if wrong.any():
                row = int(wrong.argmax())
                self._refuse(
                    "token" if self.has_tokens else "image_id",
                    first + row,
                    f"image_id {ids[row]}, token {tokens[row]}: the rows of a picture are not together, or its tokens "
                    f"are not those of the first picture ({_listed(choice.tokens)}); sort by image_id and token",
                )
            pictures.append(ids[position == 0])
            current, n_read = started[-1:], n_read + len(ids)
        if not n_read:
            raise StoreError(f"{self.path}: no rows")
        if n_read % n_rows:
            raise StoreError(
                f"{self.path}: {n_read} rows are no multiple of {n_rows}, the tokens of the first picture; every "
                "picture has to have the same tokens, in the same order"
            )
        found = np.concatenate(pictures)
        order = np.argsort(found, kind="stable")
        again = order[1:][found[order][1:] == found[order][:-1]]
        if len(again):
            picture = int(again.min())
            self._refuse("image_id", picture * n_rows + 1, f"{found[picture]} is the id of an earlier picture too")
        return found

    def d_model(self) -> int:
        """Length of the first activation; raises StoreError as `activations` does, for the first rows."""
        values = next(self.activations(None, "float32"), None)
        if values is None:
            raise StoreError(f"{self.path}: no rows")
        return values.shape[1]

    def activations(self, d_model: int | None, dtype: str) -> Iterator[torch.Tensor]:
        """Yield activations (rows, d_model) in pieces.

        Parameters
        ----------
        d_model
            Their length; None takes that of the first.
        dtype
            What they are to be stored as: values that it cannot hold are refused.

        Raises
        ------
        StoreError
            If a cell is empty, no list of numbers, of another length, or not finite.
        """
        first = 1
        for batch in self._batches(["activation"]):
            if len(batch):
                values = self._values(batch["activation"], first, d_model)
                d_model = values.shape[1]
                for kind in (torch.float32, DTYPES[dtype]):
                    finite = values.to(kind).isfinite()
                    if not finite.all():
                        row, place = (int(index) for index in (~finite).nonzero()[0])
                        hint = "" if kind == torch.float32 else f" as {dtype}; set dtype: float32"
                        self._refuse("activation", first + row, f"{values[row, place]:g} is not finite{hint}")
                yield values
            first += len(batch)

    def _keys(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Pieces of the columns image_id and token (0 where there is none), and the number of their first row."""
        first = 1
        for batch in self._batches([name for name in COLUMNS[:2] if name == "image_id" or self.has_tokens]):
            if len(batch):
                ids = self._integers(batch, "image_id", first, *_IDS)
                tokens = self._integers(batch, "token", first, *_TOKENS) if self.has_tokens else np.zeros_like(ids)
                yield first, ids, tokens
            first += len(batch)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(_BATCH_ROWS, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{self.path}: {', '.join(columns)}: it cannot be read ({error})") from error

    def _integers(self, batch: pa.RecordBatch, name: str, first: int, low: int, high: int) -> np.ndarray:
        """Cells of a column as int64; whole floats are integers too, as pandas makes them."""
        column = batch[name]
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        self._not_empty(column, name, first)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            self._refuse(name, first, f"{column[0].as_py()!r} is {column.type}; make the column integers")
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f":
            values = values.astype(np.float64)
            wrong = ~(np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < _EXACT))
            if wrong.any():
                self._refuse(name, first + int(wrong.argmax()), f"{values[wrong.argmax()]} is no integer")
        outside = (values < low) | (values > high)
        if outside.any():
            value = values[outside.argmax()]
            self._refuse(name, first + int(outside.argmax()), f"{value:.0f}: it goes from {low} to {high}")
        return values.astype(np.int64)

    def _values(self, column: pa.Array, first: int, d_model: int | None) -> torch.Tensor:
        """Activations of a column of lists of numbers, or of a shard's fixed-size binary."""
        kind: Any = column.type
        self._not_empty(column, "activation", first)
        if isinstance(column, pa.FixedShapeTensorArray) and len(kind.shape) == 1:
            column, kind = column.storage, kind.storage_type
        if pa.types.is_fixed_size_binary(kind):
            dtype = self._dtype_of_bytes(first)
            values = as_tensor(column, kind.byte_width // DTYPES[dtype].itemsize, dtype).clone()
            widths = np.full(len(column), values.shape[1])
        else:
            inner = kind.value_type if _is_list(kind) else kind
            if not _is_list(kind) or not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
                self._refuse("activation", first, f"the column is {kind}; it has to hold lists of floats")
            flat = column.flatten()
            widths = np.asarray(column.value_lengths())
            if flat.null_count:
                place = int(np.asarray(flat.is_null()).argmax())
                row = int(np.searchsorted(np.cumsum(widths), place, side="right"))
                self._refuse("activation", first + row, "its list has an empty value")
            wide = np.float32 if inner in (pa.float16(), pa.float32()) else np.float64
            values = torch.from_numpy(flat.to_numpy(zero_copy_only=False).astype(wide))
        wanted = d_model or int(widths[0])
        if not wanted or (widths != wanted).any():
            row = int((widths != wanted).argmax())
            self._refuse("activation", first + row, f"its list has {widths[row]} values, that of the first {wanted}")
        return values.view(len(column), wanted)

    def _dtype_of_bytes(self, first: int) -> str:
        try:
            return ShardHeader.read(self.path).dtype
        except StoreError as error:
            problem = "bytes are read of shards that visae wrote only; it has to hold lists of floats"
            raise StoreError(f"{self.path}: column 'activation', row {first}: {problem}") from error

    def _not_empty(self, column: pa.Array, name: str, first: int) -> None:
        if column.null_count:
            self._refuse(name, first + int(np.asarray(column.is_null()).argmax()), "it is empty")

    def _refuse(self, column: str, row: int, problem: str) -> NoReturn:
        raise StoreError(f"{self.path}: column {column!r}, row {row}: {problem}")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _listed(tokens: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, tokens[:4]))
    return shown if len(tokens) <= 4 else f"{shown}, ... {tokens[-1]}"
