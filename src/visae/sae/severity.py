"""What a store's outlier severity means for an SAE that is trained on it."""

from __future__ import annotations

from visae.activations.severity import HIGH_SEVERITY
from visae.config.settings import AnySae
from visae.notices import Notice
from visae.sae.data import TrainingData

_CENTRING = ("scale", "per_dimension")


def severity_notices(data: TrainingData, settings: AnySae) -> list[Notice]:
    """Warn of stores whose mean outweighs their spread where normalization leaves the mean in.

    Stores of before their manifests had a severity say nothing.
    """
    if settings.normalization in _CENTRING:
        return []
    notices = []
    for store in data.stores:
        severity = store.manifest.get("outlier_severity", {}).get(data.kinds)
        if severity is not None and severity > HIGH_SEVERITY:
            text = (
                f"{store.folder}: the mean of its activations is {severity:.3g} times as long as their standard "
                f"deviation (tokens {data.kinds}), and normalization: {settings.normalization} leaves it in: latents "
                "that point away from it may never be active (arXiv 2605.31518); set normalization: scale or "
                "per_dimension, or look at dead_share"
            )
            notices.append(Notice("warning", text))
    return notices
