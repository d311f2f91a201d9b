# Parses the configuration once, and makes the canonical specs that jobs run with.
import json
import os
import re
from dataclasses import replace
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, update_config

from visae import layout
from visae.config.members import (
    every_sae,
    further_megabytes,
    own_settings,
    scored_on,
    sweep_members,
)
from visae.config.parse import parse_config
from visae.config.published import local_files, published
from visae.config.sections import to_plain
from visae.config.settings import GIVEN, SlurmSettings
from visae.config.snakemake import as_written
from visae.config.stored import (
    edited_layers,
    layers_of,
    members_of,
    points_of,
    used_datasets,
)
from visae.config.strict_yaml import read_strictly
from visae.config.tasks import TASKS
from visae.errors import ConfigError, DataError
from visae.features.concept_files import concept_files
from visae.launch.where import chosen_cluster
from visae.provenance import code_fingerprint
from visae.running import prepare_environment

min_version("9.19")
prepare_environment()

try:
    # Snakemake has read it already, but takes the last of two equal keys and 12:00 for 720.
    written = as_written(config, workflow, load_configfile, update_config)
    # Not `configfile:`, which would merge the demo's data sets and studies into every other configuration.
    if "studies" not in written:
        demo = read_strictly(Path(workflow.basedir, "config/config.yaml"))
        update_config(demo, written)
        written = demo
    config.update(written)
    SETTINGS = parse_config(written)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

RESULTS = SETTINGS.results
ENVIRONMENT = f"{workflow.basedir}/envs/{SETTINGS.environment}.yaml"
STUDIES = SETTINGS.studies
EVERY_SAE = every_sae(SETTINGS)
PUBLISHED = published(SETTINGS)
SWEEPS = {
    name: sweep_members(name, sweep, EVERY_SAE[sweep.base])
    for name, sweep in SETTINGS.sweeps.items()
}
# SAEs of class tokens, of which nothing is asked about patches.
PATCHLESS = [
    name for name, sae in {**EVERY_SAE, **PUBLISHED}.items() if sae.tokens == "class"
]
PATCHLESS += [
    name for name, sweep in SETTINGS.sweeps.items() if sweep.base in PATCHLESS
]
# Those with members that differ in their seed alone.
SEED_SWEEPS = [
    name
    for name, members in SWEEPS.items()
    if len(
        {
            json.dumps({**own_settings(sae), "seed": 0}, sort_keys=True)
            for sae in members.values()
        }
    )
    < len(members)
]
UNIONS = [
    name for name, dataset in SETTINGS.datasets.items() if dataset.kind == "union"
]
GIVEN_SETS = [name for name, dataset in SETTINGS.datasets.items() if dataset.is_given]
USERS = [name for name, dataset in SETTINGS.datasets.items() if dataset.kind == "users"]
SCENES = [
    name for name, dataset in SETTINGS.datasets.items() if dataset.kind == "scenes"
]
USED_MODELS = sorted({study.stored_model for study in STUDIES.values()})
POINTS = sorted(
    {study.point for study in STUDIES.values()}
    | {
        str(study.head_layer)
        for study in STUDIES.values()
        if study.head_layer is not None
    }
    | {sae.target_point for sae in EVERY_SAE.values() if sae.target_point is not None}
)
GPUS = 0 if SETTINGS.device == "cpu" else 1
WHERE = chosen_cluster(SETTINGS.cluster)
try:
    # Two jobs side by side with half of the cores each end earlier than one after the other with all of them.
    SHARED_CORES = max(1, workflow.cores // 2)
except WorkflowError:
    SHARED_CORES = 4  # on a cluster there is no number of cores to share
# Priority of what long jobs wait for; figures, pages and tables that nobody reads fill the cores that it leaves free.
LEADS = 1


def names(options):
    """Regular expression that matches exactly these names."""
    # Without any, one that matches nothing.
    return "|".join(map(re.escape, sorted(options, key=len, reverse=True))) or "(?!)"


wildcard_constraints:
    dataset=names(set(SETTINGS.datasets) - set(UNIONS)),
    trained_on=names(SETTINGS.datasets),
    model=names([*SETTINGS.models, GIVEN]),
    sae=names([*EVERY_SAE, *SWEEPS, *PUBLISHED]),
    study=names(STUDIES),
    layer=names(POINTS),
    concept=names({name for study in STUDIES.values() for name in study.concepts}),
    shard=r"\d+",


def spec(settings, *code, **more):
    """Everything that decides a job's result, as one canonical text.

    Snakemake compares params as a set of values without names, so several params could swap values
    unnoticed; one text cannot. `code` names the library modules whose change reruns the job.
    """
    return json.dumps(
        {
            "settings": None if settings is None else to_plain(settings),
            "code": [code_fingerprint(module) for module in code],
            "seed": SETTINGS.seed,
            "device": SETTINGS.device,
            **more,
        },
        sort_keys=True,
    )


def grown(first):
    """Resource that doubles on each retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)
