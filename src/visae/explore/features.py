"""One SAE's latents on one data set, to be looked at, asked about and edited from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visae.explore.edit import Edited, Place, Task
from visae.explore.latents import Latents
from visae.explore.query import Query


class Features(Latents):
    """One SAE's latents on one data set: what they are, and what activates them.

    Parameters
    ----------
    files
        Where everything lies; `load` finds it.
    names
        CSV file of names; without it, those that the configuration gave, if any.

    Examples
    --------
    >>> features = visae.Features.load("results/features/birds/clip/layer10/topk/birds")  # doctest: +SKIP
    >>> features.select(log10_frequency=(-3, -1.5), limit=5)["latent"]  # doctest: +SKIP
    >>> features.show(905)  # doctest: +SKIP
    """

    def query(
        self,
        image: str | int | Path | None = None,
        *,
        patches: Sequence[int] | None = None,
        mask: str | Path | None = None,
        class_name: str | None = None,
        min_purity: float = 0.9,
        device: str = "auto",
    ) -> Query:
        """Ask which latents are active in a region and not elsewhere.

        Parameters
        ----------
        image
            image_id or path of a picture of the data set, or a new file, which goes through the model and the SAE.
        patches
            Patches inside, counted row by row from 0.
        mask
            Or a picture of the size of `image`, not 0 inside; a patch is inside where half of it is.
        class_name
            Or a class: of `image`, which is of the data set then, or without one of the whole data set.
        min_purity
            Share of a patch that a class has to fill for the patch to count.
        device
            For new pictures: `auto`, `cpu` or `cuda`.
        """
        return Query.of(
            self, image=image, patches=patches, mask=mask, class_name=class_name, min_purity=min_purity, device=device
        )

    def edit(
        self,
        image: str | int | Path,
        latents: int | Sequence[int],
        dose: float = -2.0,
        *,
        task: Task | None = None,
        device: str = "auto",
        **place: Any,
    ) -> Edited:
        """Edit latents in a picture, and see what the study's heads make of it.

        Parameters
        ----------
        image
            image_id or path of a picture of the data set, or a new file.
        latents
            Which; several are edited at once.
        dose
            What each is set to, as a multiple of its largest value on split train; 0 suppresses.
        task
            `classification` or `segmentation`; without it, the first of them that has a head.
        device
            `auto`, `cpu` or `cuda`.
        place
            Where, one of `Place`: `patches` counted row by row from 0; `box`, its first row, first column, last row and
            last column; `mask`, a picture of the size of `image`, not 0 inside; `predicted`, a class that the
            segmentation head predicts there. Without any, where some of the latents is active.

        Raises
        ------
        DataError
            If there is no such picture, patch or latent, or the edit would change nothing.
        ModelError
            If the task has no head.
        """
        return Edited.of(self, image, self.known(latents), dose=dose, place=Place(**place), task=task, device=device)
