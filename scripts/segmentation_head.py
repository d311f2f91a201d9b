"""Train a segmentation head."""

from pathlib import Path

from visae.config.settings import SegmentationHeadSettings
from visae.heads.segmentation import train_segmentation_head
from visae.running import running_job

with running_job(globals()) as job:
    train_segmentation_head(
        job.settings(SegmentationHeadSettings),
        manifest=Path(job.input.manifest),
        index_path=Path(job.input.index),
        patch_labels=Path(job.input.labels),
        card_path=Path(job.input.card),
        output=Path(job.output.metrics).parent,
        device=job.device,
        seed=job.seed,
    )
