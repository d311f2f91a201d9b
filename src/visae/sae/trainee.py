"""One SAE in training: its run, its checkpoints, its log, and in the end its files."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visae.config.settings import AnySae
from visae.device import described
from visae.errors import TrainingError
from visae.files import atomic_path, file_sha256, write_json
from visae.provenance import Provenance, code_fingerprint
from visae.sae.autoencoder import save_sae
from visae.sae.checkpoints import Checkpoints
from visae.sae.data import Tokens, TrainingData
from visae.sae.initial import empty_sae, initial_sae
from visae.sae.loggers import opened
from visae.sae.metrics import Quality, quality
from visae.sae.parallel import Ranks
from visae.sae.published import METRICS, metrics_table, place_of, points
from visae.sae.run import NotFinite, TrainingRun
from visae.work import Member

logger = logging.getLogger(__name__)

# What may differ between the parts of a continued run.
_WITHOUT_EFFECT = ("log_every", "checkpoint_every")


class Trainee:
    """A member in training, continued from its newest checkpoint where there is one.

    Parameters
    ----------
    member
        What to train and where to.
    data
        What it learns from; shared by all members.
    manifests
        All stores: their hashes belong to what a checkpoint must share with the run.
    device, seed
        As used.
    ranks
        The processes that train it together; the first of them alone writes.
    loggers
        Where else to send the rows of metrics.parquet: `tensorboard`, `wandb`.
    """

    def __init__(
        self,
        member: Member,
        data: TrainingData,
        manifests: list[Path],
        device: torch.device,
        seed: int,
        ranks: Ranks,
        loggers: list[str],
    ) -> None:
        self.ranks = ranks
        self.member, self.settings, self.data = member, member.settings, data
        self.provenance = Provenance(self.settings, manifests, seed, described(device))
        identity = _identity(self.settings, manifests, seed, device)
        self.checkpoints = Checkpoints(Path(member.work) / "checkpoints", identity)
        if ranks.number == 0:
            self.checkpoints.take_over()
        self.run = self._started(device, seed)
        self._seconds, self._waited, self._counted = 0.0, 0.0, self.run.step
        output, work = Path(member.output), Path(member.work)
        # Beside the work folder, which is deleted at the end.
        events = work.parent / "events" / f"{output.name}-{work.name}"
        self._loggers = opened(loggers if ranks.number == 0 else [], events, output.name, asdict(self.settings))

    def _started(self, device: torch.device, seed: int) -> TrainingRun:
        kept = self.checkpoints.newest()
        if kept is not None:
            sae = empty_sae(self.settings, self.data.d_model, self.data.d_target)
        else:
            sae = initial_sae(self.settings, self.data.sample.inputs, seed, self.data.sample.target)
        sae.place = place_of(self.data)
        run = TrainingRun(self.settings, sae.to(device), self.ranks)
        if kept is not None:
            run.restore(kept)
            logger.info("%s goes on from step %d", Path(self.member.output).name, run.step)
        steps = self.ranks.gathered(torch.tensor([run.step], device=device)).tolist()
        if len(set(steps)) > 1:
            raise TrainingError(f"{self.member.work}: processes found checkpoints of steps {steps}; they must share it")
        for tensor in run.sae.state_dict().values():
            self.ranks.first(tensor)
        return run

    @property
    def is_done(self) -> bool:
        """Whether all steps are made."""
        return self.run.step >= self.settings.steps

    def learn(self, batch: Tokens, waited: float) -> dict[str, Any]:
        """Make one step; log and keep a checkpoint where they are due; returns what there is to log.

        Raises
        ------
        TrainingError
            If the loss is not a number: names the step and the pictures, and what to try.
        """
        began = time.monotonic()
        try:
            row = self.run.advance(batch.inputs, batch.target)
        except NotFinite as error:
            raise TrainingError(f"{error}; {self._culprits(batch)}") from error
        self._seconds += time.monotonic() - began + waited
        self._waited += waited
        run, settings = self.run, self.settings
        if run.step % settings.log_every == 0 or self.is_done:
            seconds = max(self._seconds, 1e-9)
            rate = (run.step - self._counted) * settings.batch_size / seconds
            row |= {"tokens_per_second": rate, "data_wait_share": self._waited / seconds}
            self._note("train", row)
            self._seconds, self._waited, self._counted = 0.0, 0.0, run.step
        if run.step % settings.checkpoint_every == 0 or self.is_done:
            self._note("val", self._val_row())
            self.keep()
        return row

    def _note(self, split: str, row: dict[str, Any]) -> None:
        self.run.rows.append({"step": self.run.step, "split": split, **row})
        for sink in self._loggers:
            sink.log(self.run.step, {f"{split}/{name}": value for name, value in row.items()})

    def keep(self) -> None:
        """Write a checkpoint of the step it is at."""
        if self.ranks.number == 0:
            self.checkpoints.stop_if_taken_over()
            self.checkpoints.save(self.run.checkpoint())

    def finish(self) -> dict[str, Any]:
        """Write the results, each whole, summary.json last, and delete the checkpoints; returns the summary.

        What was not trained, as a baseline, has one row of metrics, on held-out tokens, and nothing on speed.
        """
        run, output = self.run, Path(self.member.output)
        if not run.step:
            self._note("val", self._val_row())
        for sink in self._loggers:
            sink.close()
        metrics = metrics_table(run.rows)
        summary = {
            **asdict(found := quality(run.sae, *self.data.held_out)),
            "dead_share": self._dead_share(found),
            "tokens_per_second": metrics["tokens_per_second"].median(),
            "data_wait_share": metrics["data_wait_share"].median(),
            "measured_on": self.data.measured_on,
            "tokens": self.data.kinds,
            "n_tokens_trained": run.step * self.settings.batch_size,
            "variant": self.settings.variant,
            "width": run.sae.width,
            "d_model": run.sae.d_model,
            **points(self.data),
            "processes": self.ranks.count,
            "provenance": self.provenance.record(),
        }
        if self.ranks.number > 0:
            return summary
        self.checkpoints.stop_if_taken_over()
        with atomic_path(output / "metrics.parquet") as temporary:
            metrics.write_parquet(temporary)
        more = {
            "settings": asdict(self.settings),
            "rates": self.settings.rates,
            "provenance": summary["provenance"],
            **points(self.data),
        }
        save_sae(run.sae, output, **more)
        write_json(output / "summary.json", summary)
        self.checkpoints.clear()
        return summary

    def _val_row(self) -> dict[str, Any]:
        found = quality(self.run.sae, *self.data.held_out)
        measured = {name: value for name, value in asdict(found).items() if name in METRICS}
        return {"dead_share": self._dead_share(found)} | measured

    def _dead_share(self, found: Quality) -> float:
        """Share of latents that were silent of late in training or, where there was none, on the held-out tokens."""
        return self.run.dead_share() if self.run.step else found.silent_share

    def _culprits(self, batch: Tokens) -> str:
        """Say which pictures the failing batch is of; where its activations are at fault, only those pictures."""
        both = [part for part in batch if part is not None]
        bad = torch.stack([_not_finite(part) for part in both]).any(0)
        if bad.any():
            found = self.data.pictures(self.run.step, bad.nonzero()[:, 0])
            return f"the stored activations of these pictures are not finite: {found}; extract them again"
        return f"its batch is of the pictures {self.data.pictures(self.run.step)}"


def _not_finite(rows: Tensor) -> Tensor:
    return ~rows.isfinite().all(1)


def _identity(settings: AnySae, manifests: list[Path], seed: int, device: torch.device) -> dict[str, Any]:
    """What a checkpoint must share with the run that continues from it."""
    return {
        "settings": {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_EFFECT},
        "rates": settings.rates,
        "seed": seed,
        "data": [file_sha256(path) for path in manifests],
        "device": device.type,
        "code": code_fingerprint("visae.sae.trainer"),
    }
