"""What is written and printed of an SAE's place."""

from __future__ import annotations

import math
from typing import Any

from visae.intervals import COVERAGE, RESAMPLES
from visae.notices import as_plain
from visae.sae.proof.fits import Fit
from visae.sae.proof.hypotheses import Hypothesis
from visae.sae.proof.prove import Proof
from visae.sae.proof.verdict import MOST_OF_NULL, Measured, error_of
from visae.vision.card import ModelCard

# Rows that are printed, and that an SAE's file keeps.
_SHOWN = 12


def as_found(proof: Proof, card: ModelCard, pictures: str, seed: int) -> dict[str, Any]:
    """Return what the JSON holds."""
    best = proof.verdict.best
    return {
        "verdict": proof.verdict.word,
        "reason": _reason(proof),
        "differs": proof.verdict.differs,
        "best": _place(best.hypothesis),
        "tokens_may_be": proof.verdict.kinds,
        "claimed": None if proof.claimed is None else _place(proof.claimed),
        "null_mse": min(error_of(null) for null in proof.nulls),
        "outlier_severity": proof.severity,
        "codes_at_most": proof.most_codes,
        "model": {
            "architecture": card.architecture,
            "weights_origin": card.weights_origin,
            "weights_sha256": card.weights_sha256,
        },
        "pictures": pictures,
        "n_pictures": proof.n_pictures,
        "unreadable": proof.unreadable,
        "n_first_look": proof.n_first,
        "coverage": COVERAGE,
        "resamples": RESAMPLES,
        "seed": seed,
        "rows": [_row(proof, fit) for fit in proof.fits],
        "notices": as_plain(proof.notices),
    }


def for_file(found: dict[str, Any]) -> dict[str, Any]:
    """Return what an SAE's own file keeps of it: the best rows and the claimed one, and counts for lists."""
    kept = [row for number, row in enumerate(found["rows"]) if number < _SHOWN or row["claimed"]]
    return {**found, "rows": kept, "unreadable": len(found["unreadable"])}


def described(found: dict[str, Any]) -> list[str]:
    """Lines of the report, from what the JSON holds."""
    lines = [
        f"{found['model']['architecture']}, weights: {found['model']['weights_origin']}",
        f"{found['n_pictures']} pictures of {found['pictures']}; first look at {found['n_first_look']} places, "
        f"{len(found['rows'])} measured",
        f"error: squared error over squared deviation from the mean there, at {found['codes_at_most']:.4g} codes a "
        f"token at most; [{found['coverage']:.0%} intervals]",
        "",
        f"{'layer':>5}  {'hook':9}  {'tokens':7}  {'normalization':30}  {'clamp':>5}  {'error':21}  "
        f"{'L0':22}  {'dead':17}",
    ]
    shown = [row for number, row in enumerate(found["rows"]) if number < _SHOWN or row["claimed"]]
    for row in shown:
        whose = {"pictures": ", these pictures'", "length": ", by length"}.get(row["statistics"], "")
        normalization = row["normalization"] + whose
        clamp = "" if row["clamp"] is None else f"{row['clamp']:g}"
        error, l0, dead = (_shown(row, name, digits) for name, digits in (("error", 3), ("l0", 1), ("dead_share", 2)))
        lines.append(
            f"{row['layer']:>5}  {row['hook']:9}  {row['tokens']:7}  {normalization:30}  {clamp:>5}  {error:21}  "
            f"{l0:22}  {dead:17}{'  claimed' if row['claimed'] else ''}"
        )
    return [*lines, "", f"verdict: {found['reason']}"]


def _reason(proof: Proof) -> str:
    """The verdict in a sentence."""
    best, word = proof.verdict.best, proof.verdict.word
    null = min(error_of(null) for null in proof.nulls)
    error = f"{error_of(best):.3f}"
    if len(proof.verdict.kinds) > 1:
        error += f" (tokens {' or '.join(proof.verdict.kinds)}: these cannot be told apart there)"
    if word == "none":
        return (
            f"none fits: the best is {best.hypothesis}, with an error of {error}, where the mean alone has 1 and "
            f"the same activations with their dimensions in another order {null:.3f} (a fit has less than "
            f"{MOST_OF_NULL:g} of that); the SAE is of another model, or of a place that is not read here"
        )
    if word == "claimed":
        return f"the claimed place is the best: {best.hypothesis}, error {error}"
    if word == "found":
        return f"no place was claimed; it fits {best.hypothesis}, error {error}"
    fit = next((fit for fit in proof.fits if fit.hypothesis == proof.claimed), None)
    than = "" if fit is None else f" against {error_of(fit):.3f} at the claimed place"
    return f"another fits better ({', '.join(proof.verdict.differs)}): {best.hypothesis}, error {error}{than}"


def _place(hypothesis: Hypothesis) -> dict[str, Any]:
    setup = hypothesis.setup
    return {
        "layer": setup.point.layer,
        "hook": setup.point.hook,
        "tokens": hypothesis.tokens,
        "normalization": setup.normalization,
        "statistics": setup.statistics,
        "clamp": setup.clamp,
    }


def _row(proof: Proof, fit: Fit) -> dict[str, Any]:
    measured = {
        "error": proof.resampled.ratio(fit.worse, fit.deviation),
        "normalized_mse": proof.resampled.ratio(fit.squared, fit.deviation),
        "l0": proof.resampled.ratio(fit.codes, fit.tokens),
        "dead_share": proof.resampled.dead_share(fit),
    }
    row = {**_place(fit.hypothesis), "claimed": fit.hypothesis == proof.claimed, "bias_share": fit.bias}
    for name, value in measured.items():
        row |= _ends(name, value)
    return row


def _ends(name: str, value: Measured) -> dict[str, float | None]:
    """Return a value and its interval; None where it is undefined, as where all tokens are the same."""
    found = {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return {key: number if math.isfinite(number) else None for key, number in found.items()}


def _shown(row: dict[str, Any], name: str, digits: int) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
