"""Train one sparse autoencoder, and with it those that share its data; killed and started again it goes on."""

import json
from pathlib import Path

from visae.config.sections import from_plain, to_plain
from visae.config.settings import AnySae
from visae.files import text_sha256
from visae.launch.slurm import Request
from visae.launch.start import train_sae
from visae.launch.task import Task
from visae.running import running_job
from visae.work import Member

with running_job(globals()) as job:
    manifests = [Path(path) for path in job.input.manifests]
    targets = [Path(path) for path in job.input.targets]
    output = Path(job.output.summary).parent
    members = {}
    for name, plain in json.loads(job.resources.together).items():
        settings = from_plain(AnySae, plain)
        # Whatever decides a result names the folder of the work in progress, so nothing else is ever resumed.
        own = {"settings": to_plain(settings), "rates": settings.rates}
        text = json.dumps({**job.spec, **own}, sort_keys=True)
        # Where it is published belongs to that: two data sets may hold the same, and be asked for at the same time.
        made_from = [text, str(output.parent), *(path.read_text() for path in [*manifests, *targets])]
        work = Path(job.spec["runs"], text_sha256("\n".join(made_from))[:16])
        members[name] = Member(settings, output.with_name(name), work)
    loggers, scratch = json.loads(job.resources.loggers), str(job.resources.scratch) or None
    task = Task(list(members.values()), manifests, targets, job.device, job.seed, loggers, scratch)
    request, runs = Request.of(job.resources), Path(job.spec["runs"])
    train_sae(output.name, task, job.resources.where, request, runs, job.log, job.resources.snakemake)
