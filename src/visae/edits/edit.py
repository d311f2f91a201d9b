"""Edits of latents inside the residual stream: which, how, in which unit and where.

A patch x becomes x + (new - old) times the latent's direction, summed over latents. What the sparse autoencoder does
not reconstruct stays as it was, so an effect is the latents' and not the reconstruction's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.errors import DataError, ModelError
from visae.features.codes import scan_codes
from visae.sae import SparseAutoencoder


@dataclass(frozen=True)
class PredictedAs:
    """The patches that a head, on the unedited picture, predicts as one of its channels."""

    channel: int


Where = Literal["all", "active"] | tuple[int, ...] | Tensor | PredictedAs


@dataclass(frozen=True, eq=False)
class Edit:
    """What is done to some latents of one layer.

    Attributes
    ----------
    layer
        Layer whose output is edited.
    latents
        One or several, edited at once.
    how
        `set`: to `amount` (0 suppresses). `add`: `amount` to the value. `scale`: the value times `amount`. `insert`:
        the value that `source` has at the same patch. `insert_largest`: the largest value that `source` has.
    amount
        One number, or one a latent.
    unit
        What `amount` of `set` and `add` counts: `value`, the latent's own units; `largest`, multiples of its largest
        value on the selection split; `quantile`, that quantile of its active values there.
    where
        `all` patches; those where any of the latents is `active`; numbers of patches; a mask on the layer's grid, bool
        (n_patches,) or (rows, columns); or `PredictedAs`.
    source
        (n_tokens, d_model) raw activations of another picture at this layer.

    Examples
    --------
    >>> suppressed = Edit(10, (7,))
    >>> strong = Edit(10, (7, 30), amount=-2.0, unit="largest", where=PredictedAs(3))
    """

    layer: int
    latents: tuple[int, ...]
    how: Literal["set", "add", "scale", "insert", "insert_largest"] = "set"
    amount: float | tuple[float, ...] = 0.0
    unit: Literal["value", "largest", "quantile"] = "value"
    where: Where = "all"
    source: Tensor | None = None


@dataclass(frozen=True)
class ActiveValues:
    """Values above 0 of latents on the selection split, ascending, by latent."""

    by_latent: dict[int, NDArray[np.float32]]

    def largest(self, latent: int) -> float:
        """Return the largest value."""
        return self.quantile(latent, 1.0)

    def quantile(self, latent: int, share: float) -> float:
        """Return a quantile of the active values; DataError where the latent is never active."""
        values = self.by_latent.get(latent)
        if values is None or not len(values):
            raise DataError(
                f"latent {latent} is never active on the selection split, so it has no largest value and no quantiles "
                "there; choose another latent, or give the new value itself (unit: value)"
            )
        return float(np.quantile(values, share))


def active_values(codes_manifest: str | Path, image_ids: range, latents: Sequence[int]) -> ActiveValues:
    """Read the values of some latents on consecutive pictures, patches only."""
    wanted = sorted(set(latents))
    found = (
        scan_codes(codes_manifest)
        .filter(
            pl.col("latent").is_in(wanted)
            & pl.col("image_id").is_between(image_ids.start, image_ids.stop, closed="left")
            & (pl.col("value") > 0)
        )
        .select("latent", "value")
        .sort("latent", "value")
        .collect(engine="streaming")
    )
    parts = found.partition_by("latent", maintain_order=True, as_dict=True)
    return ActiveValues({int(key[0]): part["value"].to_numpy() for key, part in parts.items()})


@dataclass(frozen=True)
class Site:
    """A layer that can be edited: its SAE, and what its latents do on the selection split."""

    layer: int
    sae: SparseAutoencoder
    observed: ActiveValues = ActiveValues({})


def refuse_transcoder(sae: SparseAutoencoder, config: str | Path) -> None:
    """Raise ModelError if what the SAE gives belongs to another layer than what it reads."""
    if sae.is_transcoder:
        raise ModelError(
            f"{config}: a transcoder (target_layer) cannot be edited: its latents' directions belong to another layer "
            "than its codes; edit with an SAE without target_layer"
        )


def edited(tokens: Tensor, edit: Edit, site: Site, n_prefix: int, predicted: Tensor | None = None) -> Tensor:
    """Do an edit to the tokens of its layer.

    Parameters
    ----------
    tokens
        (b, n_prefix + n_patches, d_model) raw activations; prefix tokens are never edited.
    site
        The layer's SAE, on the same device.
    n_prefix
        Tokens before the patches.
    predicted
        (b, n_patches) channels that a head predicts on the unedited pictures, for `PredictedAs`.

    Returns
    -------
    Tensor
        Same shape as `tokens`. Where a latent has its new value already, bits are unchanged.

    Raises
    ------
    DataError
        If the edit does not fit: latents, patches or a mask that the layer does not have, no source to insert from.
    """
    latents = list(edit.latents)
    if not latents or not 0 <= min(latents) <= max(latents) < site.sae.width:
        raise DataError(f"edit: latents {latents}: the SAE of layer {site.layer} has latents 0 to {site.sae.width - 1}")
    patches = _patches(edit, site, tokens[:, n_prefix:], predicted)
    rows = patch_rows(tokens, patches)
    old = site.sae.latent_values(rows, latents)
    new = _new_values(edit, site, old, patches, n_prefix)
    return with_rows(tokens, patches, moved(rows, value_change(old, new, site.sae.directions()[latents])))


def _patches(edit: Edit, site: Site, rows: Tensor, predicted: Tensor | None) -> Tensor:
    """Patches to edit, bool (b, n_patches), of rows (b, n_patches, d_model)."""
    shape, where = rows.shape[:2], edit.where
    if isinstance(where, PredictedAs):
        if predicted is None or predicted.shape != shape:
            raise DataError(f"edit: where: {where}: give the head's predictions, one a patch {tuple(shape)}")
        return predicted == where.channel
    if isinstance(where, Tensor):
        if where.dtype != torch.bool or where.numel() != shape[1]:
            raise DataError(
                f"edit: where: a mask of {where.dtype} {tuple(where.shape)}, but layer {site.layer} has {shape[1]} "
                "patches a picture; give a bool mask on the grid of that layer"
            )
        return where.flatten().to(rows.device).expand(shape)
    if where == "active":
        return (site.sae.latent_values(rows.flatten(0, 1), list(edit.latents)) > 0).any(dim=1).view(shape)
    patches = torch.zeros(shape, dtype=torch.bool, device=rows.device)
    if where == "all":
        return ~patches
    numbers = list(where)
    if not all(isinstance(number, int) and 0 <= number < shape[1] for number in numbers):
        raise DataError(f"edit: where: {where}: layer {site.layer} has patches 0 to {shape[1] - 1}")
    patches[:, numbers] = True
    return patches


def _new_values(edit: Edit, site: Site, old: Tensor, patches: Tensor, n_prefix: int) -> Tensor:
    """Values (n, m) that the latents get, from those that they have."""
    if edit.how in ("insert", "insert_largest"):
        if edit.source is None or edit.source.shape != (n_prefix + patches.shape[1], site.sae.d_model):
            raise DataError(
                f"edit: how: {edit.how}: give as source the activations of another picture at layer {site.layer}, "
                f"({n_prefix + patches.shape[1]}, {site.sae.d_model})"
            )
        values = site.sae.latent_values(edit.source[n_prefix:].to(old.device), list(edit.latents))
        if edit.how == "insert_largest":
            return values.amax(dim=0).expand_as(old)
        return values[patches.nonzero()[:, 1]]
    amounts = edit.amount if isinstance(edit.amount, tuple) else (edit.amount,) * len(edit.latents)
    if len(amounts) != len(edit.latents):
        raise DataError(f"edit: amount: {len(amounts)} numbers for {len(edit.latents)} latents")
    if edit.how == "scale":
        return old * torch.tensor(amounts, dtype=old.dtype, device=old.device)
    if edit.unit == "largest":
        amounts = tuple(a * site.observed.largest(k) for k, a in zip(edit.latents, amounts, strict=True))
    elif edit.unit == "quantile":
        amounts = tuple(site.observed.quantile(k, a) for k, a in zip(edit.latents, amounts, strict=True))
    new = torch.tensor(amounts, dtype=old.dtype, device=old.device).expand_as(old)
    return old + new if edit.how == "add" else new


def value_change(old: Tensor, new: Tensor, directions: Tensor) -> Tensor:
    """Change of the activation (n, d_model) when codes (n, m) go from old to new along directions (m, d_model)."""
    return (new - old) @ directions


def moved(rows: Tensor, change: Tensor) -> Tensor:
    """Rows plus change, each (n, d_model); a value whose change is zero keeps its bits (-0.0 + 0.0 would not)."""
    return torch.where(change != 0, rows + change, rows)


def of_length(change: Tensor, lengths: Tensor, instead: Tensor) -> Tensor:
    """Give each row of a change (n, d_model) a length (n, 1).

    Parameters
    ----------
    instead
        (n, d_model) gives the direction of rows whose change is zero; where it is zero too, they stay zero.
    """
    direction = torch.where((change == 0).all(dim=1, keepdim=True), instead, change)
    norm = direction.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, direction * (lengths / norm.clamp(min=1e-30)), direction)


def patch_rows(tokens: Tensor, patches: Tensor) -> Tensor:
    """Chosen patches (n, d_model) of tokens (b, n_prefix + n_patches, d_model), picture after picture."""
    return tokens[:, tokens.shape[1] - patches.shape[1] :][patches]


def with_rows(tokens: Tensor, patches: Tensor, rows: Tensor) -> Tensor:
    """Copy of the tokens whose chosen patches (b, n_patches) are replaced by rows (n, d_model)."""
    result = tokens.clone()
    result[:, tokens.shape[1] - patches.shape[1] :][patches] = rows
    return result
