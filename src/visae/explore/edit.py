"""The paper's experiment on any picture, region and latent: what the heads say before an edit and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.data.images import pixels
from visae.data.index import read_classes
from visae.device import chosen_device
from visae.edits.edit import Edit, Site, Where, active_values
from visae.edits.opened import open_edited
from visae.errors import DataError, ModelError
from visae.experiments.one_picture import Passes, passes_of
from visae.explore.files import FeatureFiles
from visae.explore.latents import Latents
from visae.explore.pictures import found_picture
from visae.explore.regions import of_box, of_mask, of_patches
from visae.features.codes import read_codes_manifest
from visae.figures import strips
from visae.figures.gallery import GalleryFigure
from visae.figures.pictures import load_pictures
from visae.heads.probe import Probe, load_probe
from visae.heads.segmentation_head import SegmentationHead, load_segmentation_head
from visae.sae import SparseAutoencoder
from visae.sae.place import among_last
from visae.vision.hook_points import HookPoint
from visae.vision.model import ModelCard, VisionModel

Task = Literal["classification", "segmentation"]

_HEADS: dict[Task, str] = {"classification": "probe", "segmentation": "segmentation"}
# The edited picture may be an exemplar too, and has its region in the first column only.
_ASKED = -2


@dataclass(frozen=True)
class Place:
    """Where a picture is edited; without any, where some of the latents is active.

    Latents of class tokens are edited at the class token alone, whatever its values there, and take no place.

    Attributes
    ----------
    patches
        Patches counted row by row from 0: 3,4,5.
    box
        Or first row, first column, last row and last column, counted from 0: 2,3,5,6.
    mask
        Or a picture of the size of the image, not 0 inside; a patch is inside where half of it is.
    predicted
        Or a class: where the segmentation head predicts it.
    """

    patches: list[int] | None = None
    box: list[int] | None = None
    mask: str | Path | None = None
    predicted: str | None = None


@dataclass(frozen=True)
class Edited:
    """What an edit of one picture does.

    Attributes
    ----------
    features
        Whose latents are edited.
    path
        The picture.
    inside
        The edited patches, bool (rows, columns).
    tokens
        All edited tokens: patches from 0, the class token -1.
    latents, dose
        What is edited, and the multiple of its largest value that each is set to.
    task
        What is measured.
    table
        In classification one row a class, the likeliest before or after the edit first: class_name, and its probability
        before, after and after the control. In segmentation one row a patch: token, edited, and the class that is
        predicted before, after and after the control. The control is a random change of the same length on each edited
        patch; probabilities are means over several draws, the map is that of the first.
    """

    features: Latents
    path: str
    inside: NDArray[np.bool_]
    tokens: tuple[int, ...]
    latents: tuple[int, ...]
    dose: float
    task: Task
    table: pl.DataFrame

    @classmethod
    @torch.inference_mode()
    def of(
        cls,
        features: Latents,
        image: str | int | Path,
        latents: Sequence[int],
        *,
        dose: float,
        place: Place,
        task: Task | None,
        device: str,
    ) -> Edited:
        """Edit; the parameters are those of `Features.edit`."""
        if sum(part is not None for part in vars(place).values()) > 1:
            raise DataError("edit: give one of patches, box, mask and predicted; without any, patches that are active")
        if not latents or not math.isfinite(dose):
            raise DataError(f"edit: latents {list(latents)}, dose {dose}: name one latent at least, and a finite dose")
        files, where = features.files, chosen_device(device)
        _, path = found_picture(files, image)
        point = HookPoint.parse(files.point)
        if point.hook != "residual":
            raise DataError(f"edit: {files.folder}: latents of hook {point.hook}; edits need the residual stream")
        there: list[Task] = [t for t, head in _HEADS.items() if _metrics(files, head).is_file()]
        measured: Task = task or (there[0] if there else "classification")
        model, sae = open_edited(files.card, files.sae, point.layer, where)
        assert model is not None
        head = _loaded_head(files, measured, model.card, where)
        tokens = model.read(pixels(path, model.card)[None].to(where), [point])[point].float()
        chosen = tuple(latents)
        site = _site(files, point.layer, sae, chosen)
        inside = _inside(features, place, path, model, site, tokens)
        kinds = sae.place.tokens
        if inside is None:
            own = _own_tokens(sae, model.card, tokens, chosen, path)
            spot: Where = "all" if kinds == "class" else "active"
        else:
            spot = own = torch.from_numpy(inside.ravel())
            if kinds == "all":
                own = torch.nn.functional.pad(own, (model.card.n_prefix, 0))
        edit = Edit(point.layer, chosen, amount=dose, unit="largest", where=spot)
        passes = passes_of(model, site, tokens, edit, own)
        ids = np.array(model.card.tokens(point.layer)[-len(own) :])[own.numpy()]
        inside = np.isin(np.arange(np.prod(features.grid)), ids).reshape(features.grid)
        table = _probabilities(head, passes) if isinstance(head, Probe) else _map(head, passes, inside)
        return cls(features, path, inside, tuple(ids.tolist()), chosen, dose, measured, table)

    def summary(self) -> pl.DataFrame:
        """Return the likeliest classes, or how many patches are predicted as which class, edited ones and others."""
        if self.task == "classification":
            return self.table.head(2 * strips.TOP_CLASSES)
        long = self.table.unpivot(["before", "after", "control"], index="edited", value_name="class_name")
        counted = long.pivot("variable", index=["class_name", "edited"], values="edited", aggregate_function="len")
        return counted.fill_null(0).sort("edited", "before", "after", descending=True)

    def show(self, *, settings: FigureSettings | None = None) -> GalleryFigure:
        """Draw the strip: the picture with the region, exemplars of the latents, predictions before and after."""
        return self.draw(self.strip_table(), settings)

    def strip_table(self) -> pl.DataFrame:
        """Return what `show` draws: one row a number."""
        kept = ["class_name"] if self.task == "classification" else ["token"]
        outcome = self.table.select(*kept, "before", "after", "control")
        if self.task == "classification":
            outcome = outcome.head(strips.TOP_CLASSES)
        names = self.features.table.filter(pl.col("latent").is_in(self.latents))
        named = dict(names.select("latent", "name").drop_nulls().iter_rows())
        title = strips.title(self.latents, named, self.dose, self.tokens)
        strip = strips.Strip(
            title[0].upper() + title[1:],
            _ASKED,
            self.tokens,
            self.latents,
            outcome,
        )
        return strips.data([strip], self.features.exemplars(self.latents, "top"))

    def draw(self, table: pl.DataFrame, settings: FigureSettings | None = None) -> GalleryFigure:
        """Draw what `strip_table` returned."""
        features = self.features
        pictures = features.pictures(table.filter(part="exemplar")["image_id"])
        pictures |= load_pictures({_ASKED: self.path}, features.card)
        control = strips.CONTROLS["random_vector"]
        classes = list(read_classes(features.files.index).values())
        return strips.draw(table, settings or FigureSettings(), pictures, features.grid, control, classes)


def _metrics(files: FeatureFiles, head: str) -> Path:
    return files.heads / head / "metrics.json"


def _loaded_head(files: FeatureFiles, task: Task, card: ModelCard, device: torch.device) -> Probe | SegmentationHead:
    """Load the head of a task, if there is one."""
    metrics = _metrics(files, _HEADS[task])
    if not metrics.is_file():
        raise ModelError(
            f"{metrics}: no such file, so {task} cannot be measured; name this data set as {task} in a study and run "
            f"the stage heads: snakemake heads"
        )
    return (load_probe if task == "classification" else load_segmentation_head)(metrics, card, device)


def _site(files: FeatureFiles, layer: int, sae: SparseAutoencoder, latents: Sequence[int]) -> Site:
    """The layer with its SAE, and the values of the latents on split train, which doses are multiples of."""
    splits = read_codes_manifest(files.codes)["splits"]
    first, stop = splits["train"] if "train" in splits else (0, max(end for _, end in splits.values()))
    return Site(layer, sae, active_values(files.codes, range(first, stop), latents))


def _inside(
    features: Latents, place: Place, path: str, model: VisionModel, site: Site, tokens: torch.Tensor
) -> NDArray[np.bool_] | None:
    """Patches (rows, columns) of a place; None where none is named."""
    grid, named = features.grid, [name for name, part in vars(place).items() if part is not None]
    if named and site.sae.place.tokens == "class":
        raise DataError(f"edit: {named[0]}: latents of class tokens lie on no patch; leave {named[0]} out")
    if place.patches is not None:
        return of_patches(place.patches, grid, whole=True)
    if place.box is not None:
        return of_box(place.box, grid)
    if place.mask is not None:
        return of_mask(place.mask, path, features.card, grid, whole=True)
    if place.predicted is not None:
        final = model.resume(tokens, site.layer)
        return _predicted(features.files, place.predicted, model, final).reshape(grid)
    return None


def _own_tokens(
    sae: SparseAutoencoder, card: ModelCard, tokens: torch.Tensor, latents: tuple[int, ...], path: str
) -> torch.Tensor:
    """Tokens where some latent is active, a mask over the last ones of a picture; of class tokens always that one."""
    kinds, own = sae.place.tokens, card.token_slice(sae.place.tokens)
    active = (sae.latent_values(tokens[0, own], list(latents)) > 0).any(dim=1).cpu()
    if kinds == "class":
        return among_last(torch.ones_like(active)[None], kinds, tokens.shape[1])[0]
    if not active.any():
        what = "patch" if kinds == "patches" else "token"
        raise DataError(
            f"edit: latents {list(latents)} are active on no {what} of {path}; give patches, a box or a mask"
        )
    return active


def _predicted(files: FeatureFiles, class_name: str, model: VisionModel, final: torch.Tensor) -> NDArray[np.bool_]:
    """Patches (n_patches,) that the segmentation head predicts as a class."""
    head = _loaded_head(files, "segmentation", model.card, final.device)
    assert isinstance(head, SegmentationHead)
    names = [c["name"] for c in head.classes]
    if class_name not in names:
        raise DataError(f"predicted: the segmentation head has no class {class_name!r}, only {', '.join(names)}")
    inside = head(final).argmax(dim=1).flatten().cpu().numpy() == names.index(class_name)
    if not inside.any():
        raise DataError(f"predicted: the head predicts {class_name!r} on no patch of this picture")
    return inside


def _probabilities(probe: Probe, passes: Passes) -> pl.DataFrame:
    parts = (passes.before, passes.after, passes.control)
    before, after, control = (probe(final).softmax(dim=1).mean(dim=0).cpu().numpy() for final in parts)
    table = pl.DataFrame({"class_name": [c["name"] for c in probe.classes], "before": before, "after": after})
    table = table.with_columns(control=pl.Series(control))
    return table.sort(pl.max_horizontal("before", "after"), descending=True, maintain_order=True)


def _map(head: SegmentationHead, passes: Passes, inside: NDArray[np.bool_]) -> pl.DataFrame:
    names = np.array([c["name"] for c in head.classes])
    parts = {"before": passes.before, "after": passes.after, "control": passes.control[:1]}
    maps = {name: names[head(final).argmax(dim=1).flatten().cpu().numpy()] for name, final in parts.items()}
    tokens = pl.Series("token", range(inside.size), dtype=pl.Int16)
    return pl.DataFrame({"token": tokens, "edited": inside.ravel(), **maps})
