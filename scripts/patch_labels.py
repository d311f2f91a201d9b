"""Give each patch the class that most of its pixels carry."""

from pathlib import Path

from visae.data.patch_labels import write_patch_labels
from visae.running import running_job
from visae.vision.hook_points import HookPoint

with running_job(globals()) as job:
    layer = HookPoint.parse(job.wildcards.layer).layer
    write_patch_labels(Path(job.input.index), Path(job.input.card), layer, Path(job.output.labels))
