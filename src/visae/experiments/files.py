"""The files that an experiment is run from."""

from __future__ import annotations

from dataclasses import dataclass

from visae.tasks.files import TaskFiles


@dataclass(frozen=True, kw_only=True)
class ExperimentFiles(TaskFiles):
    """Those of a task, and of the SAE whose latents are edited.

    Attributes
    ----------
    sae
        config.json of the SAE.
    codes
        manifest.json of its codes of the task's data set.
    scores
        scores.parquet of the same codes, from which segmentation takes a class's latents; empty for other tasks.
    min_purity
        How much of a patch its class has to fill where latents and directions are chosen on patches.
    """

    sae: str
    codes: str
    scores: str = ""
    min_purity: float = 0.9

    def named(self) -> list[str]:
        """Paths of the files that there are and that summaries keep the hash of."""
        return [*super().named(), *(path for path in (self.sae, self.codes, self.scores) if path)]
