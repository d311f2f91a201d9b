"""The model card of a published SAE: metadata that the hub reads, and text that people do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from visae.errors import ConfigError
from visae.publish.facts import Facts
from visae.publish.licenses import LICENSES
from visae.publish.sections import METRICS, sections, title

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Publication:
    """What only who publishes can say.

    Attributes
    ----------
    repository
        With --as hub: owner/name that the folder will have on the hub.
    license
        With --as hub: the weights' licence, by its identifier on the hub, such as mit or cc-by-4.0. What is trained on
        a model's activations may be bound by the model's licence.
    license_name, license_link
        With --license other: its name, and its address or the file's name in the repository.
    features
        With --as hub: folder results/features/TRAINED_ON/MODEL/layerN/SAE/DATASET whose exemplars are drawn; left out,
        that of the same results.
    without_picture
        With --as hub: draw no exemplars, where pictures must not be shown.
    """

    repository: str | None = None
    license: str = "unknown"
    license_name: str | None = None
    license_link: str | None = None
    features: Path | None = None
    without_picture: bool = False

    def check(self) -> None:
        """Refuse what the hub would.

        Raises
        ------
        ConfigError
            If the repository has no name that the hub allows, or the licence is not known there or not whole.
        """
        if self.repository is not None and not _REPOSITORY.fullmatch(self.repository):
            raise ConfigError(f"repository: {self.repository!r}; allowed: owner/name")
        if self.license not in LICENSES:
            close = sorted(known for known in LICENSES if known.split("-")[0] == self.license.lower().split("-")[0])
            hint = f"did you mean {', '.join(close)}? " if close else ""
            raise ConfigError(
                f"license: {self.license!r} is no identifier of the hub; {hint}For another one write --license other "
                "with --license-name and --license-link"
            )
        if (self.license == "other") != bool(self.license_name and self.license_link):
            raise ConfigError("license: other goes with license_name and license_link, and they with it")


def card_text(facts: Facts, said: Publication, has_picture: bool) -> str:
    """Text of README.md: metadata between lines of dashes, then Markdown."""
    from huggingface_hub import ModelCard

    parts = sections(facts, said.repository, _license(facts, said), has_picture)
    text = f"---\n{_metadata(facts, said)}\n---\n\n" + "\n\n".join(parts) + "\n"
    ModelCard(text)  # reads its own metadata again, or raises
    return text


def _metadata(facts: Facts, said: Publication) -> str:
    """YAML of the card, as the hub's own client writes it."""
    from huggingface_hub import EvalResult, ModelCardData

    data = facts.trained_on or "held-out activations"
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name="reconstruction of activations by sparse codes",
            dataset_type=data,
            dataset_name=data,
            dataset_split="val" if facts.summary.get("measured_on") == "val" else "train",
            metric_type=name,
            metric_name=METRICS[name][0],
            metric_value=facts.summary[name],
        )
        for name in METRICS
        if isinstance(facts.summary.get(name), int | float)
    ]
    rule = facts.sae.variant.name
    kind = "transcoder" if facts.sae.is_transcoder else "sparse-autoencoder"
    hub_id = None if facts.card is None else facts.card.hub_id
    return ModelCardData(
        license=said.license,
        license_name=said.license_name,
        license_link=said.license_link,
        library_name="visae",
        pipeline_tag="feature-extraction",
        tags=["visae", kind, rule, "interpretability", "vision"],
        base_model=hub_id if hub_id and _REPOSITORY.fullmatch(hub_id) else None,
        model_name=title(facts) if results else None,
        eval_results=results or None,
    ).to_yaml()


def _license(facts: Facts, said: Publication) -> str:
    """What is said of licences."""
    own = {
        "unknown": "No licence was chosen for these weights; ask who published them before you use them.",
        "other": f"These weights are under {said.license_name}: {said.license_link}",
    }.get(said.license, f"These weights are under `{said.license}`.")
    theirs = None if facts.card is None else facts.card.license
    return f"{own} Those of the model whose activations they were trained on are under `{theirs}`." if theirs else own
