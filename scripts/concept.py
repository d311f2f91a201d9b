"""Probe an SAE for a concept of the user's own."""

from pathlib import Path

from visae.config.concepts import ConceptSettings
from visae.errors import DataError
from visae.features.semantic_probe import probe_concept
from visae.running import running_job

with running_job(globals()) as job:
    concept = job.settings(ConceptSettings)
    try:
        probe_concept(
            concept,
            Path(job.input.sae),
            Path(job.input.card),
            job.spec["layer"],
            Path(job.output.probe).parent,
            job.spec["permutations"],
            job.seed,
            job.device,
        )
    except DataError as error:
        place = f"studies: {job.wildcards.study}: concepts: {job.wildcards.concept}"
        raise DataError(f"{place}: {error}") from error
