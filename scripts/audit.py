"""Test what is said of latents on other pictures."""

from pathlib import Path

from visae.audit.audit import AuditFiles, run_audit
from visae.config.audit import AuditSettings
from visae.running import running_job

with running_job(globals()) as job:
    found = dict(job.input.items())
    effects = found.pop("effects", [])
    run_audit(
        AuditFiles(
            **found,
            effects=[effects] if isinstance(effects, str) else list(effects),
            min_purity=job.spec["min_purity"],
        ),
        job.settings(AuditSettings),
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
