"""Sparse codes and the products that training needs from them, none of which makes a dense matrix of codes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# NumPy's stable sort of 16-bit keys is a radix sort, many times faster than any comparison sort.
_RADIX_WIDTH = 1 << 16


@dataclass(frozen=True)
class SparseCodes:
    """Codes of n tokens, token after token.

    Parameters
    ----------
    latents
        int64 (nnz,), which latent each entry is of.
    values
        float32 (nnz,), its value.
    offsets
        int64 (n + 1,): entries of token i are `offsets[i]` up to `offsets[i + 1]`.
    width
        Number of latents.
    leading
        Dimensions that the tokens have where those are not (n,): their product is n.
    """

    latents: Tensor
    values: Tensor
    offsets: Tensor
    width: int
    leading: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape that the dense codes would have: tokens, latents."""
        return len(self.offsets) - 1, self.width

    @property
    def tokens(self) -> Tensor:
        """int64 (nnz,), which token each entry is of."""
        return torch.repeat_interleave(self.offsets.diff(), output_size=len(self.values))

    def dense(self) -> Tensor:
        """Return the codes as a (tokens, latents) matrix; with leading dimensions, (…, latents)."""
        matrix = torch.zeros(self.shape, dtype=self.values.dtype, device=self.values.device)
        matrix[self.tokens, self.latents] = self.values
        return matrix if self.leading is None else matrix.view(*self.leading, self.width)

    def without_zeros(self) -> SparseCodes:
        """Drop the entries whose value is zero."""
        kept = self.values != 0
        before = torch.zeros(len(kept) + 1, dtype=torch.int64, device=kept.device)
        torch.cumsum(kept, 0, out=before[1:])
        return SparseCodes(self.latents[kept], self.values[kept], before[self.offsets], self.width, self.leading)

    def between(self, first: int, end: int) -> SparseCodes:
        """Return the codes of latents `first` up to `end`, counted from `first`."""
        kept = (self.latents >= first) & (self.latents < end)
        before = torch.zeros(len(kept) + 1, dtype=torch.int64, device=kept.device)
        torch.cumsum(kept, 0, out=before[1:])
        offsets = before[self.offsets]
        return SparseCodes(self.latents[kept] - first, self.values[kept], offsets, end - first, self.leading)

    def parts(self, codes_at_once: int) -> Iterator[tuple[slice, SparseCodes]]:
        """Ranges of tokens and their codes, views of these, about so many at once; all where there are fewer."""
        tokens = max(1, self.shape[0])
        size = max(1, tokens * codes_at_once // max(1, len(self.values)))
        if size >= tokens:  # to ask a GPU for the offsets would be to wait for it
            yield slice(0, tokens), self
            return
        for first in range(0, tokens, size):
            offsets = self.offsets[first : first + size + 1]
            entries = slice(int(offsets[0]), int(offsets[-1]))
            codes = SparseCodes(self.latents[entries], self.values[entries], offsets - offsets[0], self.width)
            yield slice(first, first + size), codes

    def with_values(self, values: Tensor) -> SparseCodes:
        """Return the same entries with other values (nnz,)."""
        return SparseCodes(self.latents, values, self.offsets, self.width, self.leading)


def weighted_rows(rows: Tensor, members: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Weighted sum of chosen rows for each bag, (bags, d); an empty bag gives zeros.

    Parameters
    ----------
    rows
        (m, d).
    members, weights
        (nnz,), the rows in the bags, bag after bag, and their weights.
    offsets
        (bags + 1,), where each bag starts.
    """
    return functional.embedding_bag(
        members, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def value_gradients(codes: SparseCodes, output_gradient: Tensor, rows: Tensor) -> Tensor:
    """Gradient of each code value, (nnz,): its decoder row times its token's output gradient.

    Parameters
    ----------
    output_gradient
        (tokens, d).
    rows
        (latents, d), the decoder.
    """
    if rows.device.type == "cpu":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            nothing = torch.zeros_like(codes.values)
            pattern = torch.sparse_csr_tensor(
                codes.offsets, codes.latents, nothing, codes.shape, check_invariants=False
            )
            return torch.sparse.sampled_addmm(pattern, output_gradient, rows.T, beta=0.0).values()
    return _fused_on_gpu()(rows, codes.latents, output_gradient, codes.tokens)


def gathered_products(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
    """Inner products (m,) of chosen rows of two matrices; eager torch makes two matrices (m, d) on the way."""
    return (left[left_rows] * right[right_rows]).sum(1)


@cache
def _fused_on_gpu() -> Callable[..., Tensor]:
    """The same as one kernel that reads rows where they lie."""
    return torch.compile(gathered_products, dynamic=True)


@dataclass(frozen=True)
class ByLatent:
    """Codes of one batch in the order of latents, which makes weight gradients sums over bags of tokens.

    Parameters
    ----------
    order
        int64 (nnz,), positions of the entries in the order of tokens.
    tokens
        int64 (nnz,), token of each entry.
    offsets
        int64 (latents + 1,).
    """

    order: Tensor
    tokens: Tensor
    offsets: Tensor

    def row_gradients(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Sum of weight times token row over the tokens of each latent, (latents, d); `weights` is by token."""
        return weighted_rows(rows, self.tokens, weights[self.order], self.offsets)

    def sums(self, weights: Tensor) -> Tensor:
        """Sum of the weights of each latent, (latents,)."""
        return torch.segment_reduce(weights[self.order], "sum", offsets=self.offsets, initial=0)


def by_latent(codes: SparseCodes) -> ByLatent:
    """Reorder codes from token after token to latent after latent; a stable, hence deterministic, sort."""
    if codes.latents.device.type == "cpu" and codes.width <= _RADIX_WIDTH:
        keys = codes.latents.numpy().astype(np.uint16)
        order = torch.from_numpy(np.argsort(keys, kind="stable"))
        offsets = offsets_of(codes.latents, codes.width)
    else:
        order, offsets = sorted_groups(codes.latents, codes.width)
    return ByLatent(order, codes.tokens[order], offsets)


def sorted_groups(groups: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Stable order (nnz,) of entries by group, and where each group then starts, int64 (n_groups + 1,).

    Nothing here waits for a GPU, as counting with bincount would.
    """
    # Half the width takes a radix sort half the passes.
    keys, order = torch.sort(groups.to(torch.int32), stable=True)
    return order, torch.searchsorted(keys, torch.arange(n_groups + 1, dtype=torch.int32, device=groups.device))


def sums_by_group(groups: Tensor, values: Tensor, n_groups: int) -> Tensor:
    """Sum of the float64 values (nnz,) of each group, (n_groups,)."""
    if groups.device.type == "cpu":
        return torch.bincount(groups, values, minlength=n_groups)
    return values.new_zeros(n_groups).scatter_add_(0, groups, values)


def offsets_of(groups: Tensor, n_groups: int) -> Tensor:
    """Where each group starts when entries are ordered by group, int64 (n_groups + 1,)."""
    offsets = torch.zeros(n_groups + 1, dtype=torch.int64, device=groups.device)
    torch.cumsum(torch.bincount(groups, minlength=n_groups), 0, out=offsets[1:])
    return offsets
