"""The audit of an SAE's latents on a data set: every proposed meaning, and what other pictures say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.activations.store import ActivationStore
from visae.arms.dictionaries import MOST_PATCHES
from visae.audit.dictionary import Dictionary
from visae.audit.given import from_atlas, from_names, from_user
from visae.audit.held_out import held_out, untestable
from visae.audit.meanings import Aspect, Drawn, Vocabulary, known_aspects
from visae.audit.proposals import Proposal, proposed
from visae.audit.results import beside_untrained, judged, summary_of, yields_of
from visae.audit.untrained import encoded_untrained
from visae.config.audit import AuditSettings
from visae.data.split_names import Splits
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.features.blocks import read_matching_manifest
from visae.features.scores import pictures_of
from visae.files import write_json, write_table
from visae.provenance import Provenance
from visae.sae import load_sae

FIT, MEASURED = Splits()
"""Splits that meanings are proposed on, and tested on."""


@dataclass(frozen=True, kw_only=True)
class AuditFiles:
    """The files that an audit is made from.

    Attributes
    ----------
    codes
        manifest.json of the SAE's codes of the data set.
    index
        index.parquet of the data set.
    labels
        Patch labels on the grid of the codes; empty where there are none.
    min_purity
        How much of a patch its class has to fill.
    sae, manifest
        config.json of the SAE and manifest.json of the activations, for untrained dictionaries; without them, none.
    names
        CSV file of names that people gave to latents: latent, name.
    proposals
        CSV file of proposals of any other source, such as a language model: latent, meaning and, if you like, source.
    effects
        effects.parquet of atlases of tasks on this data set.
    """

    codes: str
    index: str
    labels: str = ""
    min_purity: float = 0.9
    sae: str = ""
    manifest: str = ""
    names: str = ""
    proposals: str = ""
    effects: list[str] = field(default_factory=list)

    def named(self) -> list[str]:
        """Paths of the small files that there are and that the summary keeps the hash of."""
        files = (self.codes, self.index, self.sae, self.manifest, self.names, self.proposals, *self.effects)
        return [path for path in files if path]


def run_audit(
    files: AuditFiles, settings: AuditSettings, output: Path, *, device: str = "auto", seed: int = 0
) -> dict[str, Any]:
    """Test what is proposed as the meaning of latents; write proposals.parquet, yields.parquet, audit.json.

    Meanings are classes of patches, classes of pictures and, of scenes, known causes. They are proposed on split train:
    by F1 of patches, by AUC of pictures, by AUC of causes, by the most frequent class among exemplars, by an atlas of
    causes; by your names and proposals; and at random, as a control. Each is one test on split val: whether the
    latent's value is larger on patches or pictures with the meaning than on others (area under the ROC curve), against
    labels moved between pictures, corrected over all proposals of a source. The yield is the share that survives.
    Dictionaries with random directions propose and are tested in the same way; each proposal is compared with theirs.

    Parameters
    ----------
    files
        What it is made from.
    settings
        Section `audit`.
    output
        Folder.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What audit.json holds.

    Raises
    ------
    DataError
        If a split is missing, pictures have no classes at all, or a file of proposals is wrong.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    codes, index = Path(files.codes), Path(files.index)
    labels = Path(files.labels) if files.labels else None
    drawn = _drawn(codes, index, settings.pictures, seed)
    aspects = known_aspects(index, labels, files.min_purity, drawn)
    own = Dictionary(codes, drawn)
    given = _given(files, own.width, aspects)
    table = _audited(own, aspects, settings, seed, given=given, resamples=settings.bootstrap)
    untrained: list[pl.DataFrame] = []
    if files.sae and files.manifest and settings.untrained:
        sae, store = load_sae(files.sae, chosen), ActivationStore.open(files.manifest)
        others = encoded_untrained(sae, store, codes, drawn, settings.untrained, seed)
        untrained = [_audited(other, aspects, settings, seed) for other in others]
    table = beside_untrained(table, untrained)
    write_table(output / "proposals.parquet", table)
    yields = [yields_of(table)]
    for number, one in enumerate(untrained):
        # Each beside the others: what an untrained dictionary's yield is when it is tested itself.
        rest = [*untrained[:number], *untrained[number + 1 :]]
        yields.append(yields_of(beside_untrained(one, rest), number))
    all_yields = pl.concat(yields)
    write_table(output / "yields.parquet", all_yields)
    summary = {
        "width": own.width,
        "n_pictures": {split: len(ids) for split, ids in drawn.items()},
        "meanings": {aspect.name: list(aspect.values) for aspect in aspects},
        **summary_of(table, all_yields, settings.permutations),
        "provenance": provenance.record(),
    }
    write_json(output / "audit.json", summary)
    return summary


def _drawn(codes: Path, index: Path, most: int, seed: int) -> Drawn:
    """Pictures of both splits, drawn where there are more than are looked at."""
    record = read_matching_manifest(codes, index)
    most = min(most, max(2, MOST_PATCHES * record["n_images"] // max(1, record["n_tokens"])))
    found: dict[str, NDArray[np.int64]] = {}
    for number, split in enumerate((FIT, MEASURED)):
        pictures = pictures_of(record, split, codes)
        if not len(pictures):
            raise DataError(f"{codes}: split {split} has no picture")
        order = np.random.default_rng([seed, number, 33]).permutation(len(pictures))[:most]
        found[split] = np.sort(order) + pictures.start
    return found


def _given(files: AuditFiles, width: int, aspects: Sequence[Aspect]) -> list[Proposal]:
    """Proposals that come from files."""
    vocabulary, found = Vocabulary(aspects), []
    if files.names:
        found += from_names(Path(files.names), width, vocabulary)
    if files.proposals:
        found += from_user(Path(files.proposals), width, vocabulary)
    for effects in files.effects:
        found += from_atlas(Path(effects), [files.codes], width, vocabulary, {aspect.name for aspect in aspects})
    return found


def _audited(
    dictionary: Dictionary,
    aspects: Sequence[Aspect],
    settings: AuditSettings,
    seed: int,
    *,
    given: Sequence[Proposal] = (),
    resamples: int = 0,
) -> pl.DataFrame:
    """Propose and test: the table of one dictionary."""
    own, fit = proposed(dictionary, aspects, FIT, settings, seed)
    proposals = [*own, *given]
    why_not = {
        (aspect.name, number): untestable(aspect, number, MEASURED)
        for aspect in aspects
        for number in range(len(aspect.values))
    }
    tests = {
        (found.aspect, proposal.latent, found.number)
        for proposal in proposals
        if (found := proposal.found) is not None and why_not[found.aspect, found.number] is None
    }
    held = held_out(
        dictionary,
        aspects,
        MEASURED,
        tests,
        n_permutations=settings.permutations,
        resamples=resamples,
        seed=seed,
    )
    return judged(proposals, fit, held, why_not)
