"""Proving an SAE's place: a look at all of a model, a longer one at what is near, and a verdict."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import torch

from visae.config.saes import TokenKinds
from visae.data.noticed import Noticed
from visae.data.walks import walked
from visae.errors import DataError, ModelError
from visae.notices import Notice
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.place import Place
from visae.sae.proof.choice import best_of, nulls_of
from visae.sae.proof.fits import Fit
from visae.sae.proof.hypotheses import Hypothesis, moments_of, own_setup, setups
from visae.sae.proof.search import (
    by_setup,
    every_kind,
    fits_at,
    kinds_of,
    most_codes_of,
    readable_points,
    worth_more,
)
from visae.sae.proof.settings import ProofSettings
from visae.sae.proof.tokens import Reading, ReadTokens, read_tokens
from visae.sae.proof.verdict import MUCH_LESS, Resampled, Verdict, Word, differing, error_of, fits
from visae.vision.hook_points import Hook
from visae.vision.model import HookPoint, VisionModel

# The first look: few pictures, and few patches of each.
_FIRST_PICTURES, _FIRST_PATCHES = 32, 8
# Fewer pictures say little: a warning.
_FEW = 32
_NAMED = 5


@dataclass(frozen=True)
class Proof:
    """What was found of an SAE's place.

    Attributes
    ----------
    fits
        All that were measured, the best first and then by their errors.
    claimed
        What was claimed, where it can be measured.
    nulls
        Fits of the best place with its dimensions in other orders.
    resampled
        Resamples of the pictures, for intervals.
    severity
        Outlier severity of the best place's tokens.
    most_codes
        Codes a token at which places were compared.
    n_first
        Places that the first look was at.
    """

    verdict: Verdict
    fits: list[Fit]
    claimed: Hypothesis | None
    nulls: list[Fit]
    resampled: Resampled
    severity: float | None
    most_codes: float
    n_first: int
    n_pictures: int
    unreadable: list[str]
    notices: list[Notice]


class _Reader(NamedTuple):
    """What reading pictures takes."""

    model: VisionModel
    settings: ProofSettings
    seed: int

    def read(
        self, points: Sequence[HookPoint], paths: Sequence[str], folder: Path, patches: int, what: str
    ) -> ReadTokens:
        """Tokens at hook points; raises DataError where no two pictures could be read."""
        folder.mkdir()
        reading = Reading(patches, self.settings.batch_size, self.settings.workers, self.seed)
        found = read_tokens(self.model, points, paths, folder, reading, what)
        if found.n_pictures < 2:
            example = f", such as {found.unreadable[0]}" if found.unreadable else ""
            raise DataError(
                f"--pictures {self.settings.pictures}: {found.n_pictures} of {len(paths)} pictures could be read"
                f"{example}; give a folder of some 100 that the model is made for"
            )
        return found


def prove(sae: SparseAutoencoder, model: VisionModel, claim: Place, settings: ProofSettings, seed: int = 0) -> Proof:
    """Measure what an SAE reconstructs at every place of a model, and say where it belongs.

    Parameters
    ----------
    claim
        Where it is said to belong; a layer of None claims nothing.
    settings
        Which pictures, and how many; the model that these name is not looked at.
    seed
        Decides which pictures and patches are read, and the resamples.

    Raises
    ------
    ModelError
        If the SAE is a transcoder or of another width than the model, or the model has no such layer.
    DataError
        If there are no pictures, or fewer than two can be read.
    """
    if sae.is_transcoder:
        raise ModelError("sae-place: a transcoder reads one place and gives another; no place alone can be proven")
    if claim.layer is not None:  # a hook point of another project has a block all the same
        model.card.check(HookPoint(claim.layer, claim.hook if claim.hook in get_args(Hook) else "residual"), "layer")
    points, kinds = readable_points(model, sae.d_model), kinds_of(model)
    claimed, notices = _claimed(sae, model, claim, points, kinds)
    paths, more = _pictures(settings, seed)
    reader = _Reader(model, settings, seed)
    with tempfile.TemporaryDirectory(prefix="visae-sae-place-") as scratch:
        first = reader.read(
            points, paths[:_FIRST_PICTURES], Path(scratch) / "first", _FIRST_PATCHES, "first look at every layer"
        )
        # Of all tokens most are patches: in the first look these stand for them.
        everywhere = every_kind(
            [setup for point in points for setup in setups(sae, point)], [kind for kind in kinds if kind != "all"]
        )
        looked = list(fits_at(sae, everywhere, first.points, None, "first look"))
        most_codes = most_codes_of(sae, looked)
        ranked = list(by_setup(looked))
        chosen = worth_more(sae, ranked, claimed.setup if claimed else None, points)
        some = sorted({setup.point for setup in chosen})
        read = reader.read(some, paths, Path(scratch) / "second", settings.patches, "pictures")
        resampled = Resampled(read.n_pictures, seed)
        found = list(fits_at(sae, every_kind(chosen, kinds), read.points, most_codes, "places"))
        best, clamped, of_tokens = best_of(sae, found, claimed, read.points, resampled, most_codes)
        nulls = nulls_of(sae, best.hypothesis, read.points[best.hypothesis.point], most_codes, seed)
        severity = moments_of(read.points[best.hypothesis.point], best.hypothesis.tokens).severity
    found += clamped
    found.sort(key=lambda each: (each.hypothesis != best.hypothesis, error_of(each)))
    verdict = _verdict(best, claimed, nulls, resampled, of_tokens)
    notices = [*more, *notices, *_of_other_pictures(best, found), *_few(read)]
    return Proof(
        verdict, found, claimed, nulls, resampled, severity, most_codes,
        len(everywhere), read.n_pictures, read.unreadable, notices,
    )  # fmt: skip


def _claimed(
    sae: SparseAutoencoder, model: VisionModel, claim: Place, points: Sequence[HookPoint], kinds: Sequence[TokenKinds]
) -> tuple[Hypothesis | None, list[Notice]]:
    """What is claimed, where it can be measured; and what is odd about it."""
    notices = []
    card = model.card
    if claim.model is not None and claim.model != card.architecture:
        text = f"it is said to be of {claim.model}, and is looked for in {card.architecture}"
        notices.append(Notice("warning", text))
    elif claim.weights_sha256 is not None and claim.weights_sha256 != card.weights_sha256:
        text = f"it is said to be of other weights of {card.architecture} than these ({card.weights_origin})"
        notices.append(Notice("warning", text))
    if claim.layer is None:
        return None, notices
    point = HookPoint(claim.layer, claim.hook)
    if point not in points or claim.tokens not in kinds:
        text = f"what is claimed cannot be read here: layer {claim.layer}, {claim.hook}, tokens {claim.tokens}"
        return None, [*notices, Notice("warning", text)]
    return Hypothesis(own_setup(sae, point), claim.tokens), notices


def _pictures(settings: ProofSettings, seed: int) -> tuple[list[str], list[Notice]]:
    """Pictures of a folder, in an order by the seed, as many as are wanted; and what was left out."""
    folder = settings.pictures
    if folder is None or not folder.expanduser().is_dir():
        raise DataError(f"--pictures {folder}: there is no such folder; name one of pictures")
    noticed = Noticed()
    paths = list(walked(str(folder.expanduser()), noticed, set()))
    notices = list(noticed.notices())
    if not paths:
        said = "; ".join(notice.text for notice in notices)
        raise DataError(
            f"--pictures {folder}: no pictures in it{f' ({said})' if said else ''}; name a folder of some 100"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(paths), generator=generator).tolist()
    return [paths[number] for number in order[: settings.limit or None]], notices


def _verdict(
    best: Fit,
    claimed: Hypothesis | None,
    nulls: Sequence[Fit],
    resampled: Resampled,
    kinds: list[TokenKinds],
) -> Verdict:
    differs = [] if claimed is None else differing(best.hypothesis, claimed)
    word: Word = "found" if claimed is None else "another" if differs else "claimed"
    return Verdict(word if fits(best, nulls, resampled) else "none", best, differs, kinds)


def _of_other_pictures(best: Fit, found: Sequence[Fit]) -> list[Notice]:
    """Warn where the SAE's own mean and scale are not those of these pictures."""
    if best.hypothesis.setup.statistics != "own":
        return []
    setup = best.hypothesis.setup._replace(statistics="pictures")
    theirs = next((each for each in found if each.hypothesis == best.hypothesis._replace(setup=setup)), best)
    if error_of(theirs) > (1 - MUCH_LESS) * error_of(best):
        return []
    text = (
        f"with the mean and scale of these pictures its error is {error_of(theirs):.3f}, with its own "
        f"{error_of(best):.3f}: it was trained on pictures of another kind, or these are not its own"
    )
    return [Notice("warning", text)]


def _few(read: ReadTokens) -> list[Notice]:
    notices = []
    if read.unreadable:
        text = f"{len(read.unreadable)} pictures cannot be read and were left out: "
        named = "; ".join(read.unreadable[:_NAMED])
        more = f"; and {len(read.unreadable) - _NAMED} more" if len(read.unreadable) > _NAMED else ""
        notices.append(Notice("warning", f"{text}{named}{more}"))
    if read.n_pictures < _FEW:
        text = f"{read.n_pictures} pictures are few to tell places apart by; give some 100"
        notices.append(Notice("warning", text))
    return notices
