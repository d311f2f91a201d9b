"""Where the files lie that belong to one SAE's latents on one data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visae.errors import DataError
from visae.layout import CARD, HEADS, INDEX, PATCH_LABELS, SAE

_PARTS = "features/TRAINED_ON/MODEL/layerN/SAE/DATASET"


@dataclass(frozen=True)
class FeatureFiles:
    """Files of one SAE's latents on one data set; those that a study need not have may not exist."""

    folder: Path
    index: Path
    patch_labels: Path
    card: Path
    sae: Path
    names: Path
    heads: Path
    point: str

    @property
    def codes(self) -> Path:
        """Manifest of the codes."""
        return self.folder / "codes" / "manifest.json"

    @property
    def statistics(self) -> Path:
        """stats.parquet."""
        return self.folder / "stats.parquet"

    @property
    def exemplars(self) -> Path:
        """exemplars.parquet."""
        return self.folder / "exemplars.parquet"

    @property
    def scores(self) -> Path:
        """scores.parquet, which data sets with masks have."""
        return self.folder / "scores.parquet"

    @classmethod
    def find(cls, path: str | Path) -> FeatureFiles:
        """Find the files by the folder of the features, or any file in it, such as codes/manifest.json.

        Raises
        ------
        DataError
            If there are no features, or they do not lie in a tree of results.
        """
        start = Path(path).absolute()
        folder = next((at for at in (start, *start.parents[:2]) if (at / "stats.parquet").is_file()), None)
        if folder is None:
            raise DataError(f"{path}: no stats.parquet there; give the folder results/{_PARTS}")
        # From the end: DATASET, SAE, layerN, MODEL, TRAINED_ON, features.
        dataset, sae, layer, model, trained_on, features = [*folder.parts[:-7:-1], *[""] * 6][:6]
        if features != "features" or not layer.startswith("layer"):
            raise DataError(f"{folder}: features are found by where they lie, results/{_PARTS}; move them there")
        results, point = folder.parents[5], layer.removeprefix("layer")
        known = {"trained_on": trained_on, "model": model, "layer": point, "sae": sae, "dataset": dataset}

        def at(pattern: str) -> Path:
            return results / pattern.format(**known)

        return cls(
            folder=folder,
            index=at(INDEX),
            patch_labels=at(PATCH_LABELS),
            card=at(CARD),
            sae=at(SAE) / "config.json",
            names=at(SAE) / "names.csv",
            heads=at(HEADS),
            point=point,
        )
