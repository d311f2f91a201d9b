"""Three maps of a latent in a picture: where it is active, where its value comes from, and what covering takes away."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.attribution.response import Response
from visae.config.attribution import AttributionSettings

_REACH = 3  # standard deviations after which a blur ends


@dataclass(frozen=True)
class Maps:
    """Maps of b pictures, each with one latent, over the n patches.

    Attributes
    ----------
    activation
        (b, n) codes; NaN where the SAE is not of patches.
    attribution
        (b, n) parts of `response - without` by gradients.
    occlusion
        (b, n) falls of the response when the window around a patch is covered, a patch of the window.
    response, without
        (b,) the latent's response to the picture, and to the baseline.
    """

    activation: NDArray[np.float32]
    attribution: NDArray[np.float32]
    occlusion: NDArray[np.float32]
    response: NDArray[np.float32]
    without: NDArray[np.float32]

    def of(self, number: int) -> dict[str, Any]:
        """Maps and responses of one picture, by name."""
        return {spec.name: getattr(self, spec.name)[number] for spec in fields(self)}


def maps_of(
    response: Response, pixels: Tensor, latents: Tensor, tokens: list[int], settings: AttributionSettings
) -> Maps:
    """Make the maps of some pictures, one latent for each.

    Parameters
    ----------
    pixels
        uint8 (b, 3, height, width), as many as go through the network at once.
    latents
        int64 (b,).
    tokens
        Id of the token, of each picture, at which the latent is strongest.
    settings
        Section `attribution`.
    """
    device = response.model.device
    pixels, latents = pixels.to(device), latents.to(device)
    codes = response.codes(pixels, latents)
    where = attributed_tokens(response, codes, tokens, settings.token)
    images = response.model.normalized(pixels)
    baselines = baseline_of(images, settings.baseline, response.grid)
    attributed = gradient_map(response, images, baselines, latents, where, settings.points)
    with torch.no_grad():
        found = [response.values(one, latents, where) for one in (images, baselines)]
    windows = windows_of(response.grid, settings.window)
    covered = [
        occlusion_map(response, image, base, latent, at, windows, settings.batch_size)
        for image, base, latent, at in zip(images, baselines, latents, where, strict=True)
    ]
    activation = codes[:, response.model.card.n_prefix :]
    if response.sae.place.tokens == "class":
        activation = torch.full_like(activation, torch.nan)
    return Maps(*(part.cpu().numpy() for part in (activation, attributed, torch.stack(covered), *found)))


def attributed_tokens(response: Response, codes: Tensor, tokens: list[int], which: str) -> Tensor:
    """Tokens whose responses are added up, bool like codes (b, n_tokens); the strongest is always among them."""
    where = codes > 0 if which == "active" else torch.zeros_like(codes, dtype=torch.bool)
    where[torch.arange(len(tokens)), [response.position(token) for token in tokens]] = True
    return where


def baseline_of(images: Tensor, kind: str, grid: tuple[int, int]) -> Tensor:
    """Pictures without information, like `images` (b, 3, height, width): their mean colour, or blurred."""
    if kind == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    height, width = images.shape[2:]
    return _blurred(_blurred(images, height / grid[0]).mT, width / grid[1]).mT


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Pictures (b, 3, height, width) blurred from top to bottom by a normal curve, mirrored at the edges."""
    # Mirroring reaches no farther than the picture.
    reach = min(round(_REACH * sigma), images.shape[2] - 1)
    steps = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    curve = torch.exp(-0.5 * (steps / sigma).square())
    padded = torch.nn.functional.pad(images, (0, 0, reach, reach), mode="reflect")
    kernel = (curve / curve.sum()).view(1, 1, -1, 1).expand(3, 1, -1, 1)
    return torch.nn.functional.conv2d(padded, kernel, groups=3)


def gradient_map(
    response: Response, images: Tensor, baselines: Tensor, latents: Tensor, where: Tensor, points: int
) -> Tensor:
    """Gradient times difference from the baseline, summed over the pixels of each patch, (b, n_patches).

    With several points it is that of integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365), by the
    midpoint rule: the more points, the closer the sum over patches is to the response less that to the baseline.
    With one point the gradient is that at the picture itself.
    """
    difference, total = images - baselines, torch.zeros_like(images)
    for point in range(points):
        share = 1.0 if points == 1 else (point + 0.5) / points
        at = (baselines + share * difference).detach().requires_grad_(True)
        with torch.enable_grad():
            answer = response.values(at, latents, where).sum()
        total += torch.autograd.grad(answer, at)[0] / points
    return by_patch((total * difference).sum(dim=1), response.grid)


@torch.no_grad()
def occlusion_map(
    response: Response,
    image: Tensor,
    baseline: Tensor,
    latent: Tensor,
    where: Tensor,
    windows: NDArray[np.int64],
    batch_size: int,
) -> Tensor:
    """Fall of the response when one window after the other shows the baseline, (n_patches,).

    A window's fall is spread evenly over its patches, so that maps of all window sizes add up alike (Zeiler and Fergus
    2014, arXiv 1311.2901).

    Parameters
    ----------
    image, baseline
        (3, height, width), normalized.
    latent, where
        (), and bool (n_tokens,): as of `Response.values`.
    windows
        (n_patches,) number of each patch's window.
    """
    own = torch.as_tensor(windows, device=image.device)
    n_windows = int(own.max()) + 1
    of_pixels = _over_pixels(own, response.grid, image.shape[1:])
    whole = response.values(image[None], latent[None], where[None])
    falls = []
    for numbers in torch.arange(n_windows, device=image.device).split(batch_size):
        covered = torch.where((of_pixels == numbers[:, None, None])[:, None], baseline, image)
        many = len(numbers)
        falls.append(whole - response.values(covered, latent.expand(many), where.expand(many, -1)))
    sizes = torch.bincount(own, minlength=n_windows)
    return (torch.cat(falls) / sizes)[own]


def windows_of(grid: tuple[int, int], side: int) -> NDArray[np.int64]:
    """Number of the window that each patch is in, (n_patches,); those at the right and lower edge may be smaller."""
    rows, columns = (np.arange(cells) // side for cells in grid)
    return (rows[:, None] * (columns[-1] + 1) + columns).ravel()


def by_patch(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum of pixels (b, height, width) in each patch of a grid that divides them, (b, n_patches)."""
    rows, columns = grid
    cells = pixels.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
    return cells.sum(dim=(2, 4)).flatten(1)


def _over_pixels(patches: Tensor, grid: tuple[int, int], size: torch.Size) -> Tensor:
    """Values of patches (n_patches,) at each pixel, (height, width)."""
    down, across = size[0] // grid[0], size[1] // grid[1]
    return patches.view(grid).repeat_interleave(down, 0).repeat_interleave(across, 1)
