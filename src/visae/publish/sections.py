"""What a model card says to people, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from visae.publish.facts import Facts
from visae.sae.variants.baselines import BASELINES
from visae.version import __version__

WEIGHTS, CONFIG, PICTURE = "sae.safetensors", "config.json", "exemplars.png"
# What summary.json says, and how it is read; the hub's metadata have the same under the same names.
METRICS = {
    "normalized_mse": ("Normalized MSE", "squared error over squared deviation from the mean; the mean alone has 1"),
    "explained_variance": ("Explained variance", "1 less the variance of the error over that of the activations"),
    "l0": ("Codes a token", "latents that are active on a token, on average"),
    "dead_share": ("Dead latents", "share that was silent for long"),
    "dense_share": ("Dense latents", "share that is active on more than a tenth of the tokens"),
}
# Of each code rule its name, paper, and how z = encoder_weight x' + encoder_bias becomes codes.
_RULES = {
    "topk": ("TopK", "Gao et al. 2024, arXiv 2406.04093", "the `k` largest of z, cut at zero"),
    "frozen_decoder": (
        "TopK over a frozen random decoder",
        "as in arXiv 2602.14111",
        "the `k` largest of z, cut at zero",
    ),
    "batchtopk": ("BatchTopK", "Bussmann et al. 2024, arXiv 2412.06410", "z where it is above `variant.threshold`"),
    "matryoshka": ("Matryoshka", "Bussmann et al. 2025, arXiv 2503.17547", ""),
    "archetypal": ("Archetypal", "Fel et al. 2025, arXiv 2502.12892", "the `k` largest of z, cut at zero"),
    "relu": ("ReLU", "Stevens et al. 2025, arXiv 2502.06755", "z, cut at zero"),
    "jumprelu": (
        "JumpReLU",
        "Rajamanoharan et al. 2024, arXiv 2407.14435",
        "z where it is above exp(`variant.log_threshold`)",
    ),
    "gated": (
        "Gated",
        "Rajamanoharan et al. 2024, arXiv 2404.16014",
        "where z is above zero exp(`variant.log_scale`) (z − encoder_bias) + `variant.magnitude_bias`, cut at zero",
    ),
}
_RULES |= {name: (name, "", _RULES["topk"][2]) for name in BASELINES}
_RULES |= {
    "quantized": (
        *("quantized codes", "overcomplete"),
        "the `levels` of z: the nearest where `is_hard`, else their mean weighted by softmax(−distance²); cut at zero",
    ),
    "matching_pursuit": (
        *("matching pursuit", "overcomplete"),
        "found `k` times from what is left of x': the row with the largest product takes it as its code, and that many "
        "times the row is subtracted",
    ),
    "orthogonal_matching_pursuit": (
        *("orthogonal matching pursuit", "overcomplete"),
        "those of `k` rows, each that with the largest product with what is left of x', fitted anew after each choice "
        "by ten steps of a projected gradient",
    ),
}
# Of each kind of normalization what is done, and x' in terms of x.
_NORMALIZATIONS = {
    "none": ("nothing is done to activations", "x' = x"),
    "scale": ("a mean vector is subtracted, one scale divides all dimensions", "x' = (x − mean) / scale"),
    "per_dimension": ("a mean vector is subtracted, a scale divides each dimension", "x' = (x − mean) / scale"),
    "per_token": (
        "each token less its own mean over its dimensions, over its own standard deviation",
        "x' = (x − m) / (s + eps), with m and s the token's own mean and standard deviation over its dimensions",
    ),
}
_TOKENS = {"patches": "patches", "class": "the class token", "all": "all: class token, registers and patches"}
_OF_PATCHES = (
    "Each row is a latent, with the pictures in which it is strongest, lit where it is active. The number below a "
    "picture is the largest code."
)
_CAPTIONS = {
    "patches": _OF_PATCHES,
    "class": "Each row is a latent, with the pictures on whose class token it is strongest, and its code there.",
    "all": _OF_PATCHES,
}
_CITATION = f"""```bibtex
@software{{visae,
  title = {{visae: what a vision transformer has learned, proven by experiment}},
  author = {{{{The visae authors}}}},
  version = {{{__version__}}},
  license = {{MIT}}
}}

@article{{stevens2025interpretable,
  title = {{Interpretable and Testable Vision Features via Sparse Autoencoders}},
  author = {{Stevens, Samuel and Chao, Wei-Lun and Berger-Wolf, Tanya and Su, Yu}},
  year = {{2025}},
  url = {{https://arxiv.org/abs/2502.06755}}
}}"""


def title(facts: Facts) -> str:
    """Name of an SAE: what it is, of which model and block."""
    what = "Transcoder" if facts.sae.is_transcoder else "Sparse autoencoder"
    place = facts.sae.place
    block = "" if place.layer is None else f", block {place.layer}"
    hook = "" if place.hook == "residual" else f" ({place.hook})"
    return f"{what} of {place.model or 'vision activations'}{block}{hook}"


def sections(facts: Facts, repository: str | None, license_text: str, has_picture: bool) -> Sequence[str]:
    """Return the parts of the text, in their order."""
    name = repository or "OWNER/NAME"
    found = [
        f"# {title(facts)}",
        _summary(facts),
        _loading(facts, name),
        "## Where it belongs\n\n" + _table(("what", "value"), _place(facts)) + _proof(facts),
        "## Data\n\n" + _data(facts),
        "## Measured\n\n" + _measured(facts),
    ]
    if has_picture:
        shown = f"![The strongest pictures of a few latents]({PICTURE})"
        found.append(f"## Exemplars\n\n{shown}\n\n{_CAPTIONS[facts.sae.place.tokens]}")
    found.append("## Without visae\n\n" + _formula(facts))
    if notices := [f"- {entry['text']}" for entry in facts.entries.get("notices") or ()]:
        found.append("## What to know\n\n" + "\n".join(notices))
    found.append(f"## Licence\n\n{license_text}")
    found.append("## Citation\n\n" + _citation(facts, repository))
    return found


def _summary(facts: Facts) -> str:
    sae = facts.sae
    rule, paper, _ = _RULES[sae.variant.name]
    options = sae.variant.options()
    k = f", {options['k']} codes a token" if "k" in options else ""
    source = f" ({paper})" if paper else ""
    return (
        f"{rule}{source} with {sae.width:,} latents over activations of {sae.d_model:,} numbers{k}. Written by "
        f"visae {__version__}."
    )


def _loading(facts: Facts, name: str) -> str:
    return (
        f"With visae installed:\n\n```python\nfrom visae.sae import load_sae\n\n"
        f'sae = load_sae("hub:{name}")\n'
        f"codes = sae.encode(activations)  # (…, {facts.sae.d_model}), raw, read where it belongs\n```\n\n"
        f"Into a folder of its own, for a study: `visae import-sae hub:{name} FOLDER`."
    )


def _place(facts: Facts) -> Iterable[tuple[str, str]]:
    sae, place = facts.sae, facts.sae.place
    yield "model", f"`{place.model}`" if place.model else "not known"
    if facts.card is not None:
        yield "its weights", facts.card.weights_origin
        height, width = facts.card.image_size
        yield "pictures", f"{height} x {width} pixels, {facts.card.fit}"
    if place.weights_sha256:
        yield "sha256 of its weights", f"`{place.weights_sha256}`"
    yield "block, from 0", "not known" if place.layer is None else str(place.layer)
    yield "hook point", place.hook
    yield "tokens", _TOKENS[place.tokens]
    itself = "" if sae.normalization == "none" else ", which it does itself: it takes raw ones"
    yield "normalization", _NORMALIZATIONS[sae.normalization][0] + itself
    if sae.clamp is not None:
        yield "clamp", f"each dimension to its mean plus or minus {sae.clamp:g} of its standard deviations"
    if sae.is_transcoder:
        target = facts.entries.get("target_layer")
        yield "gives", f"activations of {sae.d_target:,} numbers" + ("" if target is None else f" of block {target}")


def _proof(facts: Facts) -> str:
    """What `sae-place` has found, where it was run."""
    found = facts.entries.get("proof") or {}
    return f"\n\nMeasured by `visae sae-place`: {found['reason']}." if found.get("reason") else ""


def _data(facts: Facts) -> str:
    imported, trained = facts.entries.get("imported"), facts.summary.get("n_tokens_trained")
    parts = []
    if facts.trained_on:
        pictures = ", ".join(f"{n:,} {split}" for split, n in facts.pictures.items())
        parts.append(f"Trained on `{facts.trained_on}`" + (f" (pictures: {pictures})." if pictures else "."))
    if trained:
        parts.append(f"{trained:,} tokens were seen in training.")
    if imported:
        at = f", commit `{imported['revision']}`" if imported.get("revision") else ""
        whose = f", files of {imported['format']}" if imported.get("format") else ""
        parts.append(f"Taken in from `{imported['path']}`{at}{whose} (sha256 `{imported['sha256']}`).")
    return " ".join(parts) or "What it was trained on is not known."


def _measured(facts: Facts) -> str:
    found = facts.summary
    rows = [(label, f"{found[key]:.4g}", how) for key, (label, how) in METRICS.items() if found.get(key) is not None]
    if facts.severity is not None:
        how = (
            "norm of the activations' mean over that of their standard deviations; above 1 the mean outweighs the rest"
        )
        rows.append(("γ", f"{facts.severity:.3g}", how))
    if not rows:
        return "Nothing was measured."
    tokens = f"{found['n_tokens']:,} " if found.get("n_tokens") else ""
    where = f"On {tokens}held-out tokens of {found['measured_on']}.\n\n" if found.get("measured_on") else ""
    return where + _table(("", "value", "what it is"), rows)


def _formula(facts: Facts) -> str:
    sae = facts.sae
    _, normalized = _NORMALIZATIONS[sae.normalization]
    over = sae.variant.options().get("over")
    rule = _RULES[over or sae.variant.name][2]
    rule = rule.replace("`variant.", "`variant.rule.") if over else rule
    if sae.clamp is not None:
        normalized += ", clamped to ± `limit`" if sae.centres else ", clamped to `middle` ± `limit`"
    back = {"none": "", "per_token": ", times (s + eps), plus m"}.get(sae.normalization, ", times scale, plus mean")
    if sae.is_transcoder:
        back = ", times target_scale, plus target_mean"
    if sae.skip is not None:
        back += ", plus skip · x"
    return (
        f"`{WEIGHTS}` holds the tensors, `{CONFIG}` says what they are of. {normalized}. With z = encoder_weight x' + "
        f"encoder_bias, codes are {rule}. What they decode to is codes · decoder_weight + decoder_bias{back}."
    )


def _citation(facts: Facts, repository: str | None) -> str:
    if repository is None:
        return f"{_CITATION}\n```"
    key = repository.rpartition("/")[2].lower()
    own = f"@misc{{{key},\n  title = {{{title(facts)}}},\n  url = {{https://huggingface.co/{repository}}}\n}}"
    return f"{_CITATION}\n\n{own}\n```"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
