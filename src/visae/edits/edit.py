"""Edits of latents inside the residual stream: which, how, in which unit and where.

A token x becomes x + (new - old) times the latent's direction, summed over latents. What the sparse autoencoder does
not reconstruct stays as it was, so an effect is the latents' and not the reconstruction's. Under the normalization
`per_token` a direction is the decoder's row times the deviation of x itself, as the decoder means it.

Edited are tokens of the kind that the sparse autoencoder was trained on: patches, the class token, or all.
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

from visae.config.kinds import token_slice
from visae.errors import DataError, ModelError
from visae.features.codes import scan_codes
from visae.sae import SparseAutoencoder
from visae.sae.place import among_last


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
        the value that `source` has at the same token. `insert_largest`: the largest value that `source` has.
    amount
        One number, or one a latent.
    unit
        What `amount` of `set` and `add` counts: `value`, the latent's own units; `largest`, multiples of its largest
        value on the selection split; `quantile`, that quantile of its active values there.
    where
        `all` tokens that the SAE is of; those where any of the latents is `active`; numbers of patches; a mask on the
        layer's grid, bool (n_patches,) or (rows, columns); or `PredictedAs`. Of an SAE of class tokens only `all` and
        `active`.
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
    """Read the values of some latents on consecutive pictures, on tokens that their SAE is of."""
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
        (b, n_prefix + n_patches, d_model) raw activations; those that the SAE is not of are never edited.
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
        If the edit does not fit: latents, tokens or a mask that the layer does not have, no source to insert from.
    """
    latents = list(edit.latents)
    if not latents or not 0 <= min(latents) <= max(latents) < site.sae.width:
        raise DataError(f"edit: latents {latents}: the SAE of layer {site.layer} has latents 0 to {site.sae.width - 1}")
    kinds = site.sae.place.tokens
    if kinds == "class" and not n_prefix:
        raise DataError("edit: an SAE of class tokens, and a model without one; give an SAE of patches")
    own = token_slice(kinds, n_prefix)
    chosen = _chosen(edit, site, tokens, n_prefix, predicted)
    mask = among_last(chosen, kinds, tokens.shape[1])
    rows = patch_rows(tokens, mask)
    old = site.sae.latent_values(rows, latents)
    new = _new_values(edit, site, old, chosen, tokens.shape[1], own)
    return with_rows(tokens, mask, moved(rows, site.sae.change(new - old, latents, like=rows)))


def _chosen(edit: Edit, site: Site, tokens: Tensor, n_prefix: int, predicted: Tensor | None) -> Tensor:
    """Tokens to edit, bool (b, n_own), of all tokens (b, n_tokens, d_model)."""
    kinds, where = site.sae.place.tokens, edit.where
    if isinstance(where, str):
        rows = tokens[:, token_slice(kinds, n_prefix)]
        if where == "active":
            return (site.sae.latent_values(rows.flatten(0, 1), list(edit.latents)) > 0).any(dim=1).view(rows.shape[:2])
        if where == "all":
            return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        raise DataError(f"edit: where: {where!r}; allowed: all, active, numbers of patches, a mask, PredictedAs")
    if kinds == "class":
        raise DataError(
            f"edit: where: {where}: the SAE of layer {site.layer} is of class tokens, which lie on no patch; write "
            "all, or active"
        )
    patches = _patches(where, site, tokens[:, n_prefix:], predicted)
    return patches if kinds == "patches" else torch.nn.functional.pad(patches, (n_prefix, 0))


def _patches(
    where: tuple[int, ...] | Tensor | PredictedAs, site: Site, rows: Tensor, predicted: Tensor | None
) -> Tensor:
    """Patches to edit, bool (b, n_patches), of rows (b, n_patches, d_model)."""
    shape = rows.shape[:2]
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
    patches = torch.zeros(shape, dtype=torch.bool, device=rows.device)
    numbers = list(where)
    if not all(isinstance(number, int) and 0 <= number < shape[1] for number in numbers):
        raise DataError(f"edit: where: {where}: layer {site.layer} has patches 0 to {shape[1] - 1}")
    patches[:, numbers] = True
    return patches


def _new_values(edit: Edit, site: Site, old: Tensor, chosen: Tensor, n_tokens: int, own: slice) -> Tensor:
    """Values (n, m) that the latents get, from those that they have; `own` are the tokens that `chosen` is about."""
    if edit.how in ("insert", "insert_largest"):
        if edit.source is None or edit.source.shape != (n_tokens, site.sae.d_model):
            raise DataError(
                f"edit: how: {edit.how}: give as source the activations of another picture at layer {site.layer}, "
                f"({n_tokens}, {site.sae.d_model})"
            )
        values = site.sae.latent_values(edit.source[own].to(old.device), list(edit.latents))
        if edit.how == "insert_largest":
            return values.amax(dim=0).expand_as(old)
        return values[chosen.nonzero()[:, 1]]
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
    """Chosen tokens (n, d_model) of tokens (b, n_prefix + n_patches, d_model), picture after picture.

    The mask `patches` (b, m) is over the last m tokens: all patches, or all tokens.
    """
    return tokens[:, tokens.shape[1] - patches.shape[1] :][patches]


def with_rows(tokens: Tensor, patches: Tensor, rows: Tensor) -> Tensor:
    """Copy of the tokens whose chosen ones, a mask as of `patch_rows`, are replaced by rows (n, d_model)."""
    result = tokens.clone()
    result[:, tokens.shape[1] - patches.shape[1] :][patches] = rows
    return result
