"""Whether and how SAEs are measured by the metrics of other packages."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """Metrics of visaebench and saev."""

    enabled: bool = setting("Whether every described SAE gets the table.", False)
    split: str = setting(
        "Split that is measured. visaebench's probes learn on four fifths of its pictures and are scored on the rest.",
        "val",
    )
    fit_split: str = setting("Split on which saev's metrics choose the latent of each class.", "train")
    others: list[str] = setting(
        "Data sets with labels on which latents are tried that were learned elsewhere (cross_domain); a described data "
        "set is left out of its own table. Without any, that metric has no value.",
        [],
    )
    groups: str | None = setting(
        "JSON file of classes that are alike, by group, for absorption_rate: lists of names or ids, or visaebench's "
        "own wordnet_pairs.json for ImageNet. Without it, that metric has no value.",
        None,
    )
    seed: int = setting("Seed of visaebench's splits, probes and draws of latents; 42 there.", 42, minimum=0)
