"""Write what a study is, so that it can be opened by its name."""

from visae.files import write_json
from visae.running import running_job

with running_job(globals()) as job:
    write_json(job.output.study, {"settings": job.spec["settings"], "seed": job.seed})
