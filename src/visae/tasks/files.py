"""The files that a task is opened from."""

from __future__ import annotations

from dataclasses import dataclass

from visae.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TaskFiles:
    """What a readout reads, and what is known of its pictures.

    Attributes
    ----------
    manifest
        manifest.json of the store of the edited layer, on the task's data set.
    readout
        metrics.json of a head, or the safetensors file of class vectors or of outputs.
    index
        index.parquet of the data set.
    card
        model.json of the model; empty for given activations.
    labels
        Patch labels on the grid of the last layer; segmentation has them.
    first
        Length of the lists that outputs of a plain readout are judged by.
    """

    manifest: str
    readout: str
    index: str
    card: str = ""
    labels: str = ""
    first: int = 10

    def needed(self, name: str) -> str:
        """Path of a file that a task cannot do without; raises DataError where it is not named."""
        path = getattr(self, name)
        if not path:
            raise DataError(f"{name}: this task needs the file; name it")
        return path

    def named(self) -> list[str]:
        """Paths of the files that there are and that summaries keep the hash of: patch labels come of these."""
        return [path for path in (self.manifest, self.card, self.readout, self.index) if path]
