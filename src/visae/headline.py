"""The numbers that a finished workflow is looked at for first, and where to look next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from visae.attribution.headline import attribution_lines
from visae.audit.headline import audit_lines
from visae.config.parse import load_config
from visae.config.settings import Settings, StudySettings, UnionSettings
from visae.counterfactual.headline import counterfactual_lines
from visae.discovery.headline import atlas_lines, interaction_lines, sets_lines
from visae.experiments.tables import read_table
from visae.figures.units import EDITED
from visae.files import read_json
from visae.gain.headline import gain_lines
from visae.groups.headline import groups_lines
from visae.layout import COUNTERFACTUALS

# What else is said of a task, by the file that says it.
_OF_TASKS = {
    "atlas.json": atlas_lines,
    "sets.json": sets_lines,
    "interactions.json": interaction_lines,
    "gain.json": gain_lines,
    "groups.json": groups_lines,
}
SMALL_DOSE = -0.5
"""At larger ones nearly every answer changes, and arms differ little."""


def print_headline(configfile: Path) -> None:
    """Print the main numbers of every study of a configuration, and the paths of its pictures.

    Parameters
    ----------
    configfile
        The YAML that the workflow ran with.
    """
    settings = load_config(configfile)
    for name, study in settings.studies.items():
        print("\n".join(study_headline(settings, name, study)))


def study_headline(settings: Settings, name: str, study: StudySettings) -> list[str]:
    """Lines of one study; a part that has not been made is left out."""
    results = Path(settings.results)
    lines = ["", f"Study {name}: {study.stored_model}, layer {study.point}, trained on {study.train_on}", ""]
    lines += _warnings(settings, study)
    for sae in study.saes:
        summary = results / "saes" / study.train_on / study.stored_model / f"layer{study.point}" / sae / "summary.json"
        if summary.is_file():
            found = read_json(summary)
            tokens = EDITED[found.get("tokens", "patches")]
            lines.append(
                f"  SAE {sae}: normalized MSE {found['normalized_mse']:.3f} on held-out {tokens}, "
                f"L0 {found['l0']:.1f}, dead {found['dead_share']:.1%}"
            )
        folder = results / "features" / study.train_on / study.stored_model / f"layer{study.point}" / sae
        lines += _scores(folder / (study.segmentation or "") / "scores.parquet")
        looked_at = dict.fromkeys([*study.describe, study.counterfactuals])
        lines += [line for data in looked_at if data for line in attribution_lines(folder / data, sae, data)]
    lines += _heads(results, study)
    for sae in study.saes:
        lines += _faithfulness(results / "interventions" / name / sae / "faithfulness.json", sae)
        for task in study.tasks:
            folder = results / "interventions" / name / sae / task
            lines += _experiment(folder, task, sae)
            lines += [line for file, lines_of in _OF_TASKS.items() for line in lines_of(folder / file)]
        lines += [line for data in study.describe for line in audit_lines(results / "audits" / name / sae / data, sae)]
    lines += counterfactual_lines(results / COUNTERFACTUALS.format(study=name) / "summary.json")
    lines += ["", "  Look at:"]
    figures = sorted((results / "figures" / name).rglob("*.png"))
    lines += [f"    {path}" for path in [*figures, results / "report.html"] if path.is_file()]
    return lines


def _warnings(settings: Settings, study: StudySettings) -> list[str]:
    """What may make the numbers below wrong: warnings of the data sets and of the model."""
    results, trained_on = Path(settings.results), settings.datasets[study.train_on]
    members = trained_on.members if isinstance(trained_on, UnionSettings) else []
    tasks = (study.classification, study.segmentation, study.counterfactuals)
    names = dict.fromkeys([study.train_on, *members, *study.describe, *tasks])
    places = {name: results / "datasets" / name / "summary.json" for name in names if name}
    places[study.stored_model] = results / "models" / study.stored_model / "model.json"
    lines = []
    for name, path in places.items():
        kept = read_json(path).get("notices", ()) if path.is_file() else ()
        lines += [f"  Warning, {name}: {notice['text']}" for notice in kept if notice["level"] == "warning"]
    return lines


def _heads(results: Path, study: StudySettings) -> list[str]:
    lines = []
    heads = results / "heads"
    probe = heads / (study.classification or "") / study.stored_model / "probe" / "metrics.json"
    if study.classification and probe.is_file():
        lines.append(f"  Linear probe: accuracy {read_json(probe)['accuracy']:.3f} on val")
    head = heads / (study.segmentation or "") / study.stored_model / "segmentation" / "metrics.json"
    if study.segmentation and head.is_file():
        metrics = read_json(head)
        lines.append(
            f"  Segmentation head: patch mIoU {metrics['patch_miou']:.3f}, pixel mIoU {metrics['pixel_miou']:.3f}, "
            f"pixel accuracy {metrics['pixel_accuracy']:.3f} on val"
        )
    return lines


def _scores(path: Path) -> list[str]:
    """F1 of each class's best latent: chosen on train, measured on val."""
    if not path.is_file():
        return []
    best = pl.read_parquet(path).filter(pl.col("rank") == 0, pl.col("f1").is_not_null()).sort("f1", descending=True)
    columns = best.select("class_name", "f1", "f1_low", "f1_high").iter_rows()
    found = [f"{name} {f1:.2f} [{low:.2f}, {high:.2f}]" for name, f1, low, high in columns]
    return [f"    F1 of one latent on val: {', '.join(found)}"]


def _faithfulness(path: Path, sae: str) -> list[str]:
    """Shares of what replacing the SAE's tokens by zero costs that the reconstruction recovers."""
    if not path.is_file():
        return []
    found = []
    summary = read_json(path)
    for measure, quantities in summary["measures"].items():
        recovered = {key: quantities["recovered_from_zero"][key] for key in ("value", "low", "high")}
        if recovered["value"] is not None:
            value, low, high = (f"{bound:.1%}" for bound in recovered.values())
            found.append(f"{measure} {value} [{low}, {high}]")
    said = ", ".join(found) or "nothing that can be measured"
    tokens = EDITED[summary.get("tokens", "patches")]
    return ["", f"  Of what zeroing all {tokens} costs, the reconstruction of {sae} recovers: {said}"]


def _experiment(folder: Path, task: str, sae: str) -> list[str]:
    """Arms of one task: means over classes, then each class, then doses."""
    if not (folder / "arms.parquet").is_file():
        return []
    arms, summary = read_table(folder / "arms.parquet"), read_json(folder / "summary.json")
    mean = arms.filter(pl.col("class_name") == "mean", pl.col("class_id").is_null())
    lines = ["", f"  {task}, latents of {sae}: share of answers that change, class mean [95 %]:"]
    ordered = mean.sort("edit", "scale", "size", "arm", descending=[True, False, False, False])
    for row in ordered.iter_rows(named=True):
        measured = f"target {_share(row, 'target_change')}, other {_share(row, 'other_change')}"
        lines.append(f"    {row['edit']} {row['arm']:18} {row['size']} at {row['scale']:+.1f} x max: {measured}")
    lines += _by_class(arms.filter(edit="suppress"), summary) + _by_dose(folder / "doses.parquet", summary)
    return lines


def _by_class(arms: pl.DataFrame, summary: dict[str, Any]) -> list[str]:
    """Selectivity of each class's latents and of random ones, at the strongest scale."""
    strongest = max(arms["scale"].unique().to_list(), key=abs, default=0.0)
    shown = arms.filter(pl.col("class_id").is_not_null(), scale=strongest)
    lines = [f"  Selectivity (target minus other change) by class at {strongest:+.1f} x max [95 %]:"]
    for found in summary["classes"]:
        of_class = shown.filter(class_id=found["id"])
        parts = [
            f"{words} {_share(of_class.filter(arm=arm, size=size).row(0, named=True), 'selectivity')}"
            for arm, size, words in (
                ("automatic", "natural", "its latents"),
                ("random_latent", "natural", "random latent"),
                ("random_latent", "matched", "as long"),
            )
            if not of_class.filter(arm=arm, size=size).is_empty()
        ]
        if parts and "p_untrained" in found:
            called = "significant" if found["significant"] else "not significant"
            parts.append(f"p {found['p_untrained']:.3f} against untrained dictionaries, {called}")
        if parts:
            lines.append(f"    {found['name']:12} {'; '.join(parts)}")
    return lines


def _by_dose(doses: Path, summary: dict[str, Any]) -> list[str]:
    """Mean over classes at a dose at which arms differ, and the dose that changes half of the answers."""
    if not doses.is_file():
        return []
    mean = pl.read_parquet(doses).filter(pl.col("class_id").is_null(), unit="largest", dose=SMALL_DOSE)
    halves = {
        found["arm"]: found["half_dose"]
        for found in summary["responses"]
        if found["class_id"] is None and found["side"] == "below"
    }
    lines = [
        f"    {row['arm']:18} as long: target {_share(row, 'target_change')}, other {_share(row, 'other_change')}; "
        + (f"half at {halves[row['arm']]:+.2f} x max" if halves.get(row["arm"]) is not None else "half never changes")
        for row in mean.iter_rows(named=True)
    ]
    return [f"  At {SMALL_DOSE:+.1f} x max, and the dose that changes half [95 %]:", *lines] if lines else []


def _share(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:6.1%} [{row[key + '_low']:.1%}, {row[key + '_high']:.1%}]"
