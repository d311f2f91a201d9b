"""Edit one class's latents where a segmentation head sees the class, and count which patches change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from visae.config.settings import InterventionSettings
from visae.device import chosen_device, described
from visae.features.scores import patch_classes
from visae.files import atomic_path, write_json
from visae.heads.masks import patch_channels
from visae.heads.segmentation_head import load_segmentation_head
from visae.heads.tokens import open_store
from visae.interventions.arms import edited_latents
from visae.interventions.dictionaries import labelled_patches
from visae.interventions.doses import responses
from visae.interventions.edits import refuse_transcoder
from visae.interventions.experiment import MAPS_SCHEMA, SegmentationExperiment
from visae.interventions.participants import Selection, participants
from visae.interventions.segmentation_tables import (
    arms_table,
    becomes_table,
    over_classes,
    significance,
    untrained_table,
)
from visae.interventions.segmenting import Segmenter
from visae.interventions.targets import NOT_LEARNED, Manual, check_manual, latent_activity
from visae.interventions.untrained import rank_tests
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import load_sae
from visae.vision.model import load_model


def segmentation_arms(
    settings: InterventionSettings,
    *,
    manifest: str | Path,
    layer: int,
    sae_config: str | Path,
    codes_manifest: str | Path,
    scores: str | Path,
    card_path: str | Path,
    head_metrics: str | Path,
    index_path: str | Path,
    patch_labels: str | Path,
    output: str | Path,
    min_purity: float = 0.9,
    manual: Manual | None = None,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Run arms, doses and untrained dictionaries; write their tables and summary.json into `output`.

    One class at a time: in each picture of `measure_split` whose mask has it on some patch, the patches that the
    head predicts as the class are edited at `layer`, and the network is resumed from there. `target_change` is the
    share of those patches whose prediction changes, `other_change` the share of the same pictures' other
    patches, `selectivity` the difference of the two; `miou_change` is what becomes of the mIoU of the patches of
    these pictures. Intervals (95 %) come from resampling pictures.

    arms.parquet has one row an arm, size, scale and class, becomes.parquet what edited patches turn into, maps.parquet
    some pictures, doses.parquet one row an arm, class and dose, untrained.parquet the selectivity of the class's
    latents and of those of every untrained dictionary.

    Parameters
    ----------
    manifest, layer
        Store of the layer that is edited, and its number.
    sae_config, codes_manifest
        The SAE, and its codes of this data set: a latent's largest value is taken from `fit_split` there.
    scores
        scores.parquet of the same codes: the best latents of a class by F1 on `fit_split`.
    head_metrics
        metrics.json of the segmentation head.
    patch_labels, min_purity
        Classes of patches, and how much of a patch its class has to fill where latents and directions are chosen.
    output
        Folder.
    manual
        Latents named by hand for some classes: an arm of their own.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What summary.json holds.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    inputs = [manifest, sae_config, codes_manifest, scores, card_path, head_metrics, index_path]
    provenance = Provenance(settings, inputs, seed, described(chosen))
    model, sae = load_model(card_path, chosen), load_sae(sae_config, chosen)
    refuse_transcoder(sae, sae_config)
    model.card.check_editable(layer)
    head = load_segmentation_head(head_metrics, model.card, chosen)
    store = open_store(manifest, model.card, layer)
    classes = {c["id"]: c["name"] for c in head.classes}
    channels = patch_channels(patch_labels, list(classes), head.grid)
    segmenter = Segmenter(model, layer, head, store, channels, settings.batch_size)
    fit_images, images = store.image_ids(fit_split), store.image_ids(measure_split)
    labels = patch_classes(Path(patch_labels), list(classes), min_purity, fit_images)
    patches = labelled_patches(store, labels, classes, seed)
    activity = latent_activity(codes_manifest, fit_images)
    check_manual(manual or {}, "segmentation", head_metrics, classes.values(), sae.width, activity)
    selection = Selection(settings, segmenter, sae, codes_manifest, scores, patches, activity, fit_split, seed)
    targets = selection.targets(settings.choose_by)
    draws = participants(selection, targets, manual or {})
    experiment = SegmentationExperiment(settings, segmenter, sae, images, seed)
    with progress_bar(len(targets), "segmentation arms", "classes") as bar:
        for target in targets:
            experiment.run(target, draws[target.class_id])
            bar.update()
    measured = [counts for counts in experiment.counts if len(counts.images)]
    rows = arms_table(measured, edited_latents(draws), len(images), settings.bootstrap, seed)
    doses = experiment.doses(measured, draws, codes_manifest, fit_split)
    ranked = experiment.against_untrained(measured, selection)
    tests = significance(rows, rank_tests(ranked), max(settings.scales, key=abs))
    tables = {
        "arms": rows,
        "becomes": becomes_table(measured, list(classes.values())),
        "maps": pl.DataFrame(experiment.maps, schema=MAPS_SCHEMA),
        "doses": doses,
        "untrained": untrained_table(ranked, classes),
    }
    for name, table in tables.items():
        with atomic_path(Path(output) / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    summary = {
        "over_classes": over_classes(rows),
        "classes": [
            {
                "id": target.class_id,
                "name": target.class_name,
                "latents": list(target.latents),
                "chosen_by": settings.choose_by,
                "score": target.score,
                "largest": [activity.largest[latent] for latent in target.latents],
                "pictures": len(counts.images),
                "pictures_without_prediction": skipped,
                "arms_not_measurable": [arm for arm in settings.arms if arm not in draws[target.class_id]],
                **tests.get(target.class_id, {}),
            }
            for target, counts, skipped in zip(targets, experiment.counts, experiment.skipped, strict=True)
        ],
        "not_measurable": [
            {"id": class_id, "name": name, "reason": experiment.why_not(class_id)}
            for class_id, name in classes.items()
            if class_id not in {counts.target.class_id for counts in measured}
        ]
        + [{**c, "reason": NOT_LEARNED} for c in head.not_learned],
        "significant_share": sum(test["significant"] for test in tests.values()) / len(tests) if tests else None,
        "responses": responses(doses),
        "n_images": len(images),
        "layer": layer,
        "provenance": provenance.record(),
    }
    write_json(Path(output) / "summary.json", summary)
    return summary
