"""Are the p-values of features what they claim to be where there is nothing to find?

Labels are moved between whole pictures within each split, 20 times, and latents are chosen and scored anew each time,
with the functions that the workflow calls: patches by class (scores.parquet), pictures by class (image_scores.parquet,
where pictures have labels), labels of the strongest pictures (purity.parquet), and the probe of a concept on 20 and 20
pictures drawn at random. A p-value that means what it says is then drawn evenly from 0 to 1. p-values of one shuffle
depend on each other, so the Kolmogorov-Smirnov test takes one of each kind a shuffle: of another class each time.
Purity and coverage are shares of few pictures, whose p-values are steps and too large at each but the last: for those
the test is whether they are too small.

    python bench/nulls.py --features results/features/scenes/dinov2-small/layer10/topk/scenes
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import kstest

from visae.config.settings import FeatureSettings
from visae.data.index import read_index
from visae.explore.files import FeatureFiles
from visae.features.codes import read_codes_manifest, scan_codes
from visae.features.concepts import METRICS
from visae.features.image_scores import POOLINGS, write_image_scores
from visae.features.purity import write_purity
from visae.features.scores import write_scores
from visae.features.semantic_probe import probed

PERMUTATIONS = 39
PROBED_PICTURES = 40
LEAST = 0.01
"""Below that, the Kolmogorov-Smirnov test says that p-values are not even."""

Values = dict[str, list[float]]


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--features", type=Path, required=True, help="folder of features: …/SAE/DATASET")
    made.add_argument("--shuffles", type=int, default=20)
    made.add_argument("--check", action="store_true", help="exit with 1 where p-values are not even")
    arguments = made.parse_args()
    table = tested(list(shuffled_p_values(FeatureFiles.find(arguments.features), arguments.shuffles)))
    print("| p-value | values | at most 0.05 | Kolmogorov-Smirnov p |")
    print("| --- | --- | --- | --- |")
    for row in table.iter_rows(named=True):
        print(f"| {row['kind']} | {row['values']} | {row['small']:.3f} | {row['ks_p']:.3f} |")
    return int(arguments.check and bool((table["ks_p"] <= LEAST).any()))


def tested(shuffles: list[Values]) -> pl.DataFrame:
    """Test the p-values of all shuffles: kind, values (how many), small (share of at most 0.05), ks_p."""
    rows = []
    for kind in shuffles[0]:
        found = [shuffle[kind] for shuffle in shuffles if shuffle[kind]]
        one_each = [values[number % len(values)] for number, values in enumerate(found)]
        steps = kind.startswith(("purity", "coverage"))
        rows.append(
            {
                "kind": kind,
                "values": sum(map(len, found)),
                "small": float(np.mean([value <= 0.05 for values in found for value in values])),
                "ks_p": float(kstest(one_each, "uniform", alternative="greater" if steps else "two-sided").pvalue),
            }
        )
    return pl.DataFrame(rows)


def shuffled_p_values(files: FeatureFiles, n_shuffles: int) -> Iterator[Values]:
    """Yield the p-values of each kind, after each shuffle of the labels."""
    settings = FeatureSettings(permutations=PERMUTATIONS)
    splits = [range(*ends) for ends in read_codes_manifest(files.codes)["splits"].values()]
    has_masks, has_labels = files.patch_labels.is_file(), read_index(files.index)["label"].count() > 0
    for number in range(n_shuffles):
        random = np.random.default_rng(number)
        with tempfile.TemporaryDirectory() as folder:
            moved = _moved_labels(files, splits, random, Path(folder))
            output = Path(folder) / "scored.parquet"
            found: Values = {}
            if has_masks:
                write_scores(moved.codes, moved.patch_labels, moved.index, output, settings, seed=number)
                found |= _of_scores(pl.read_parquet(output), "patches")
            if has_labels:
                write_image_scores(moved.codes, moved.index, output, settings, seed=number)
                scores = pl.read_parquet(output)
                for pooling in POOLINGS:
                    found |= _of_scores(scores.filter(pooling=pooling), f"pictures by {pooling}")
            if has_masks or has_labels:
                labels = moved.patch_labels if has_masks else None
                write_purity(moved.codes, moved.index, output, settings, labels, seed=number)
                purity = pl.read_parquet(output).sample(fraction=1, shuffle=True, seed=number)
                found |= {kind: purity[f"{kind}_p"].drop_nulls().to_list() for kind in ("purity", "coverage")}
            probe = probed(_sums(files, random), np.arange(PROBED_PICTURES) % 2 == 0, PERMUTATIONS, number)
            found |= {"probe": [probe.p], "probe, best of all latents": [probe.p_best]}
        print(f"shuffle {number + 1} of {n_shuffles}", file=sys.stderr, flush=True)
        yield found


def _moved_labels(files: FeatureFiles, splits: list[range], random: np.random.Generator, folder: Path) -> FeatureFiles:
    """Write index and patch labels in which each picture has the labels of another one of its split."""
    index = read_index(files.index)
    order = np.arange(index.height)
    for split in splits:
        order[split.start : split.stop] = random.permutation(order[split.start : split.stop])
    labels = index["label", "label_name"][order]
    index.with_columns(labels).write_parquet(folder / "index.parquet")
    shutil.copy(files.index.with_name("summary.json"), folder)
    moved = folder / "labels.parquet"
    if files.patch_labels.is_file():
        given_to = pl.DataFrame({"image_id": order, "to": range(len(order))}, schema_overrides={"to": pl.Int32})
        patches = pl.read_parquet(files.patch_labels).join(given_to.cast({"image_id": pl.Int32}), on="image_id")
        patches.drop("image_id").rename({"to": "image_id"}).write_parquet(moved)
    return replace(files, index=folder / "index.parquet", patch_labels=moved)


def _of_scores(scores: pl.DataFrame, units: str) -> Values:
    """p-values of the best latent of each class."""
    best = scores.filter(pl.col("rank") == 0)
    kinds = {"_p": "", "_p_best": ", best of all latents"}
    return {
        f"{metric} of {units}{kind}": best[f"{metric}{ending}"].drop_nulls().to_list()
        for metric in METRICS
        for ending, kind in kinds.items()
    }


def _sums(files: FeatureFiles, random: np.random.Generator) -> np.ndarray:
    """Sum over the patches of every latent in pictures drawn at random, (PROBED_PICTURES, width)."""
    manifest = read_codes_manifest(files.codes)
    drawn = random.choice(manifest["n_images"], PROBED_PICTURES, replace=False)
    found = (
        scan_codes(files.codes)
        .filter(pl.col("image_id").is_in(drawn.tolist()))
        .group_by("image_id", "latent")
        .agg(pl.col("value").cast(pl.Float64).sum())
        .collect()
    )
    sums = np.zeros((PROBED_PICTURES, manifest["width"]))
    place = found["image_id"].replace_strict(drawn.tolist(), range(PROBED_PICTURES)).to_numpy()
    sums[place, found["latent"].to_numpy()] = found["value"].to_numpy()
    return sums


if __name__ == "__main__":
    sys.exit(main())
