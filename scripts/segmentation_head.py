"""Train a segmentation head."""

from pathlib import Path

from visae.config.settings import SegmentationHeadSettings
from visae.heads.files import SegmentationFiles
from visae.heads.segmentation import train_segmentation_head
from visae.running import running_job

with running_job(globals()) as job:
    files = SegmentationFiles(
        manifest=job.input.manifest,
        index_path=job.input.index,
        card_path=job.input.card,
        patch_labels=job.input.labels,
    )
    train_segmentation_head(
        job.settings(SegmentationHeadSettings),
        files,
        Path(job.output.metrics).parent,
        device=job.device,
        seed=job.seed,
    )
