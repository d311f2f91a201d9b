"""A study's section of a published SAE, taken in for the stores that the study reads."""

from __future__ import annotations

from pathlib import Path

from visae.config.published import PublishedSettings
from visae.errors import ModelError
from visae.sae.foreign.transfer import import_sae


def import_published(settings: PublishedSettings, output: Path, manifests: list[Path], seed: int = 0) -> None:
    """Write what training an SAE there would have written.

    Parameters
    ----------
    settings
        The SAE's section.
    output
        Folder of the results.
    manifests, seed
        As for `import_sae`.

    Raises
    ------
    ModelError
        If it cannot be had or read, is not what the section says, or belongs to other activations.
    """
    try:
        import_sae(settings.whole_source, output, settings.by_hand, manifests, seed, settings.wanted)
    except ModelError as error:
        raise ModelError(f"saes: {output.name}: {error}") from error
