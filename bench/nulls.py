"""Are the p-values of features what they claim to be where there is nothing to find?

Labels are moved between whole pictures within each split, 20 times, and latents are chosen and scored anew each time,
with the functions that the workflow calls: patches by class (scores.parquet), pictures by class (image_scores.parquet,
where pictures have labels), labels of the strongest pictures (purity.parquet), and the probe of a concept on 20 and 20
pictures drawn at random. p-values of one shuffle depend on each other, so the Kolmogorov-Smirnov test takes one of each
kind a shuffle, of another class each time.

even       drawn evenly from 0 to 1: the test is two-sided
not small  allowed to be larger than that, but not smaller: the test is one-sided. So it is with _p_best, which compares
           one latent with the largest of all, and with scores that can take few values: purity, coverage, and classes
           on few pictures, whose p-values are steps

    python bench/nulls.py --features results/features/scenes/dinov2-small/layer10/topk/scenes
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
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

COMMON = 0.2
"""Share of the pictures on which a class has to be for its scores to take many values."""

EVEN, NOT_SMALL = "even", "not small"


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--features", type=Path, required=True, help="folder of features: …/SAE/DATASET")
    made.add_argument("--shuffles", type=int, default=20)
    made.add_argument("--check", action="store_true", help="exit with 1 where p-values are not as they should be")
    arguments = made.parse_args()
    files = FeatureFiles.find(arguments.features)
    found = []
    for number in range(arguments.shuffles):
        found.append(p_values(files, number).with_columns(shuffle=pl.lit(number)))
        print(f"shuffle {number + 1} of {arguments.shuffles}", file=sys.stderr, flush=True)
    table = evenness(pl.concat(found))
    print("| p-value | should be | values | at most 0.05 | Kolmogorov-Smirnov p |")
    print("| --- | --- | --- | --- | --- |")
    for row in table.iter_rows(named=True):
        print(f"| {row['kind']} | {row['shape']} | {row['values']} | {row['small']:.3f} | {row['ks_p']:.3f} |")
    return int(arguments.check and bool((table["ks_p"] <= LEAST).any()))


def evenness(found: pl.DataFrame) -> pl.DataFrame:
    """Test the p-values of all shuffles.

    Parameters
    ----------
    found
        kind, shape, p, shuffle.

    Returns
    -------
    DataFrame
        kind, shape, values (how many), small (share of at most 0.05), ks_p.
    """
    rows = []
    for (kind, shape), of_kind in found.group_by("kind", "shape", maintain_order=True):
        shuffles = of_kind.partition_by("shuffle", maintain_order=True)
        one_each = [shuffle["p"][number % shuffle.height] for number, shuffle in enumerate(shuffles)]
        ks_p = kstest(one_each, "uniform", alternative="two-sided" if shape == EVEN else "greater").pvalue
        small = (of_kind["p"] <= 0.05).mean()
        rows.append({"kind": kind, "shape": shape, "values": of_kind.height, "small": small, "ks_p": float(ks_p)})
    return pl.DataFrame(rows)


def p_values(files: FeatureFiles, seed: int) -> pl.DataFrame:
    """Return the p-values after one shuffle of the labels: kind, shape, p."""
    settings = FeatureSettings(permutations=PERMUTATIONS)
    has_masks, has_labels = files.patch_labels.is_file(), read_index(files.index)["label"].count() > 0
    random = np.random.default_rng(seed)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        moved = moved_labels(files, random, Path(folder))
        output = Path(folder) / "scored.parquet"
        if has_masks:
            write_scores(moved.codes, moved.patch_labels, moved.index, output, settings, seed=seed)
            found += _of_scores(pl.read_parquet(output), "patches", _common_classes(files))
        if has_labels:
            write_image_scores(moved.codes, moved.index, output, settings, seed=seed)
            every = read_index(files.index)["label"].unique().to_list()
            for pooling in POOLINGS:
                scores = pl.read_parquet(output).filter(pooling=pooling)
                found += _of_scores(scores, f"pictures, by {pooling}", every)
        if has_masks or has_labels:
            write_purity(
                moved.codes, moved.index, output, settings, moved.patch_labels if has_masks else None, seed=seed
            )
            purity = pl.read_parquet(output).sample(fraction=1, shuffle=True, seed=seed)
            found += [(kind, NOT_SMALL, p) for kind in ("purity", "coverage") for p in purity[f"{kind}_p"]]
    sums = _sums(files, random)
    probe = probed(sums, np.arange(len(sums)) % 2 == 0, PERMUTATIONS, seed)
    found += [("probe", EVEN, probe.p), ("probe, best of all latents", EVEN, probe.p_best)]
    return pl.DataFrame(found, schema=["kind", "shape", "p"], orient="row").drop_nulls()


def moved_labels(files: FeatureFiles, random: np.random.Generator, folder: Path) -> FeatureFiles:
    """Write index and patch labels in which each picture has the labels of another one of its split."""
    index = read_index(files.index)
    order = np.arange(index.height)
    for first, stop in read_codes_manifest(files.codes)["splits"].values():
        order[first:stop] = random.permutation(order[first:stop])
    labels = index["label", "label_name"][order]
    index.with_columns(labels).write_parquet(folder / "index.parquet")
    shutil.copy(files.index.with_name("summary.json"), folder)
    moved = folder / "labels.parquet"
    if files.patch_labels.is_file():
        given_to = pl.DataFrame({"image_id": order, "to": range(len(order))}, schema_overrides={"to": pl.Int32})
        patches = pl.read_parquet(files.patch_labels).join(given_to.cast({"image_id": pl.Int32}), on="image_id")
        patches.drop("image_id").rename({"to": "image_id"}).write_parquet(moved)
    return replace(files, index=folder / "index.parquet", patch_labels=moved)


def _common_classes(files: FeatureFiles) -> list[int]:
    """Classes that fill some patch of a good share of the pictures."""
    first, stop = read_codes_manifest(files.codes)["splits"]["val"]
    pure = pl.col("image_id").is_between(first, stop, closed="left") & (
        pl.col("purity") >= FeatureSettings().min_purity
    )
    shown = pl.read_parquet(files.patch_labels).filter(pure).group_by("label").agg(pl.col("image_id").n_unique())
    return shown.filter(pl.col("image_id") >= COMMON * (stop - first))["label"].to_list()


def _of_scores(scores: pl.DataFrame, units: str, common: list[int]) -> list[tuple[str, str, float]]:
    """Kind, shape and p of the best latent of each class."""
    best = scores.filter(pl.col("rank") == 0)
    rare = pl.col("class_id").is_in(common).not_()
    found = []
    for metric in METRICS:
        of_units = f"{metric} of {units}"
        found += [(of_units, EVEN, p) for p in best.filter(~rare)[f"{metric}_p"]]
        found += [(f"{of_units}, rare classes", NOT_SMALL, p) for p in best.filter(rare)[f"{metric}_p"]]
        found += [(f"{of_units}, best of all latents", NOT_SMALL, p) for p in best[f"{metric}_p_best"]]
    return found


def _sums(files: FeatureFiles, random: np.random.Generator) -> np.ndarray:
    """Sum over the patches of every latent in pictures drawn at random, (pictures, width)."""
    manifest = read_codes_manifest(files.codes)
    drawn = random.permutation(manifest["n_images"])[:PROBED_PICTURES].tolist()
    codes = scan_codes(files.codes).filter(pl.col("image_id").is_in(drawn))
    found = codes.group_by("image_id", "latent").agg(pl.col("value").cast(pl.Float64).sum()).collect()
    sums = np.zeros((len(drawn), manifest["width"]))
    picture = found["image_id"].replace_strict(drawn, range(len(drawn))).to_numpy()
    sums[picture, found["latent"].to_numpy()] = found["value"].to_numpy()
    return sums


if __name__ == "__main__":
    sys.exit(main())
