"""The section of an SAE that was trained elsewhere, and is taken in instead of being trained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from visae.config.fields import setting
from visae.config.unsaid import Unsaid
from visae.errors import ConfigError

if TYPE_CHECKING:
    from visae.config.settings import Settings, StudySettings

# Latents per dimension that are planned with where a section says no width.
_PLANNED = 16
_HUB = "hub:"
_HUB_NAME = re.compile(r"hub:[^/@\s]+/[^/@\s]+(/[^@]*)?(@\S+)?")
_NORMALIZATIONS = ("data", "none", "per_token")


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """Which SAE it has to be; None leaves it open."""

    sha256: str | None = setting("sha256 of its file of weights; another file is refused.", None)
    width: int | None = setting("Latents that it has; another number is refused.", None, minimum=1)


@dataclass(frozen=True, kw_only=True)
class Wanted(Pinned):
    """What an SAE from elsewhere has to be to be taken in."""

    of_patches: bool = setting("Refuse an SAE of class tokens alone.", False)


@dataclass(frozen=True, kw_only=True)
class PublishedSettings(Unsaid, Pinned):
    """An SAE that somebody published: it is taken in where others are trained.

    Its error is measured on the studies' `train_on`, and what its file has lost is learned again from that.
    """

    kind: Literal["published"]
    source: str = setting("File, folder, or `hub:owner/name[/subfolder or file][@revision]`.")
    revision: str | None = setting(
        "Commit, tag or branch of the hub's repository, where `source` names none; a commit is of the same bytes "
        "whenever it is fetched.",
        None,
    )
    model: str | None = setting("Name from `models` that it belongs to; refused in a study of another.", None)

    @property
    def is_on_hub(self) -> bool:
        """Whether it is fetched."""
        return self.source.startswith(_HUB)

    @property
    def whole_source(self) -> str:
        """Source with its revision."""
        return f"{self.source}@{self.revision}" if self.revision else self.source

    @property
    def wanted(self) -> Wanted:
        """What its file has to hold: of class tokens, rules leave out what is asked about patches."""
        return Wanted(sha256=self.sha256, width=self.width, of_patches=self.tokens != "class")

    def expansion(self, d_model: int) -> int:
        """Latents per dimension that are planned with."""
        return _PLANNED if self.width is None else max(1, round(self.width / d_model))


def published(settings: Settings) -> dict[str, PublishedSettings]:
    """Sections of SAEs that are taken in, by name."""
    return {name: sae for name, sae in settings.saes.items() if isinstance(sae, PublishedSettings)}


def local_files(name: str, sae: PublishedSettings) -> list[Path]:
    """Files of a source on this machine, whose change takes the SAE in again; none where it is on the hub.

    Raises
    ------
    ConfigError
        If there is no such file or folder.
    """
    beside = _normalization_file(name, sae)
    if sae.is_on_hub:
        return beside
    path = Path(sae.source)
    if not path.exists():
        hint = "; a place on the hub is written hub:owner/name[/subfolder]"
        unset = ": the environment variable in it is not set; export it first" if "${" in sae.source else hint
        raise ConfigError(f"saes: {name}: source: {sae.source}: there is no such file or folder{unset}")
    return [*([path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())), *beside]


def _normalization_file(name: str, sae: PublishedSettings) -> list[Path]:
    """JSON file of a mean and a scale; none where a word stands for them."""
    if sae.normalization in (None, *_NORMALIZATIONS):
        return []
    path = Path(str(sae.normalization))
    if not path.is_file():
        raise ConfigError(
            f"saes: {name}: normalization: {path}: there is no such file; allowed: {', '.join(_NORMALIZATIONS)}, or a "
            "JSON file with mean and scale"
        )
    return [path]


def published_problems(settings: Settings) -> Iterator[str]:
    """Yield a line for each that cannot be had, or does not fit a study that lists it."""
    for name, sae in published(settings).items():
        at = f"saes: {name}"
        if sae.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sae.sha256):
            yield f"{at}: sha256: {sae.sha256!r}: write 64 digits of 0 to 9 and a to f"
        if sae.is_on_hub and not _HUB_NAME.fullmatch(sae.source):
            yield f"{at}: source: {sae.source!r}: write hub:owner/name[/subfolder or file][@revision]"
        if sae.revision is not None and not sae.is_on_hub:
            yield f"{at}: revision: {sae.source} is not on the hub; leave it out, or give the sha256"
        if sae.revision is not None and "@" in sae.source:
            yield f"{at}: revision: source names one already, {sae.source}; leave one"
        if sae.model is not None and sae.model not in settings.models:
            yield f"{at}: model: {sae.model!r} is not in models ({', '.join(sorted(settings.models))})"
        for study_name, study in settings.studies.items():
            if name in study.saes:
                yield from _misplaced(f"studies: {study_name}: saes: {name!r}", sae, study)


def _misplaced(at: str, sae: PublishedSettings, study: StudySettings) -> Iterator[str]:
    """Where an SAE belongs, as its section says, and what a study reads instead."""
    places = (("model", sae.model, study.model), ("layer", sae.layer, study.layer), ("hook", sae.hook, study.hook))
    for key, wanted, read in places:
        if wanted is not None and wanted != read:
            yield f"{at} belongs to {key}: {wanted}, but this study has {key}: {read}; correct one of them"
