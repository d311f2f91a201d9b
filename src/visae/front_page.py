"""The first page of the report: what was found, beside its controls, and what each section holds."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from visae.config.settings import Settings, StudySettings
from visae.config.tasks import TASKS
from visae.experiments.tables import read_table
from visae.figures.arms import ARM_LABELS, edit_in_words
from visae.figures.units import EDITED
from visae.files import read_json, write_text
from visae.layout import FIGURES, INTERVENTIONS, SAE, StudyPaths

_SECTIONS = {
    "What was read": "the data sets and what is odd about them, pictures under their masks or labels, and what models "
    "assume",
    "Training": "how each sparse autoencoder learned; sweeps",
    "Features": "latents by their pictures, and how well they find classes and known causes, beside chance",
    "Heads": "what the probe and the segmentation head get right",
    "Interventions": "edits of latents beside all controls: arms, dose and response, maps, strips, faithfulness; "
    "latents and single causes",
}
_LINE = 8000
_OTHERS = ("random_latent", "random_vector", "neuron", "reconstruction", "head_weight")
"""Arms beside the class's latent, in the order of the table."""


def write_front_page(settings: Settings, output: Path) -> None:
    """Write the page as reStructuredText, with its pictures in it.

    Parameters
    ----------
    settings
        The whole configuration.
    output
        Where to.
    """
    lines = ["What was found", "==============", ""]
    for name, study in settings.studies.items():
        lines += _study(StudyPaths(Path(settings.results), name, study), study)
    lines += ["What each section holds", "-----------------------", ""]
    lines += [f"* **{_plain(section)}**: {_plain(holds)}" for section, holds in _SECTIONS.items()]
    # Snakemake fills in Jinja's braces; names of classes may have some.
    write_text(output, "{% raw %}\n" + "\n".join(lines) + "\n{% endraw %}\n")


def _study(paths: StudyPaths, study: StudySettings) -> Iterator[str]:
    title = f"Study {_plain(paths.name)}: {_plain(study.stored_model)}, layer {_plain(study.point)}"
    yield from (title, "-" * len(title), "")
    for sae in study.saes:
        found = read_json(paths.path(SAE, sae=sae) / "summary.json")
        tokens = EDITED[found.get("tokens", "patches")]
        yield (
            f"SAE *{_plain(sae)}*: normalized MSE {found['normalized_mse']:.3f} on held-out {tokens}, "
            f"L0 {found['l0']:.1f}, dead {found['dead_share']:.1%}."
        )
        yield ""
        for task in study.tasks:
            yield from _experiment(paths, sae, task)


def _experiment(paths: StudyPaths, sae: str, task: str) -> Iterator[str]:
    arms = read_table(paths.path(INTERVENTIONS, sae=sae) / task / "arms.parquet")
    mean = arms.filter(pl.col("class_name") == "mean", pl.col("class_id").is_null(), pl.col("edit") == "suppress")
    if mean.is_empty():
        yield from (f"*{task}*: no class could be edited.", "")
        return
    scale = max(mean["scale"].unique().to_list(), key=abs)
    mean = mean.filter(scale=scale)
    target, other = TASKS[task].target, TASKS[task].other
    yield f"*{_plain(task)}*, {_plain(edit_in_words(scale))}; share of answers that change, means over classes [95 %]:"
    yield ""
    yield from (".. list-table::", "   :header-rows: 1", "")
    yield from _row("arm", target, other, f"{target}, as long as the class's latent's change")
    for arm in ("automatic", *_OTHERS):
        sizes = {row["size"]: row for row in mean.filter(arm=arm).iter_rows(named=True)}
        if sizes:
            cells = [_share(sizes.get("natural"), measure) for measure in ("target_change", "other_change")]
            as_long = "the same" if arm == "automatic" else _share(sizes.get("matched"), "target_change")
            yield from _row(ARM_LABELS[arm], *cells, as_long)
    yield ""
    strips = paths.path(FIGURES) / sae / f"{task}_strips.png"
    if strips.is_file():
        picture = base64.b64encode(strips.read_bytes()).decode()
        yield ".. image:: data:image/png;base64,"
        # docutils refuses longer lines, and joins these.
        yield from (f"      {picture[start : start + _LINE]}" for start in range(0, len(picture), _LINE))
        yield from ("   :width: 100%", "   :alt: strips of edits", "")


def _row(*cells: str) -> Iterator[str]:
    for number, cell in enumerate(cells):
        yield f"   {'*' if number == 0 else ' '} - {_plain(cell)}"


def _share(row: dict | None, measure: str) -> str:
    if row is None or row[measure] is None:
        return ""
    return f"{row[measure]:.1%} [{row[f'{measure}_low']:.1%}, {row[f'{measure}_high']:.1%}]"


def _plain(text: str) -> str:
    """Text that is no markup, whatever it holds."""
    return re.sub(r"([^\w\s])", r"\\\1", " ".join(text.split()))
