# Parses the configuration once and offers what the rules share: names, paths, canonical job specs.
import json
import os
import re
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, update_config

from visae.config.parse import parse_config, to_plain
from visae.errors import ConfigError
from visae.provenance import code_fingerprint

min_version("9.19")

# Not `configfile:`, which would merge the demo's data sets and studies into every other configuration.
if "studies" not in config:
    demo = yaml.safe_load(Path(workflow.basedir, "config/config.yaml").read_text())
    update_config(demo, config)
    config.update(demo)

try:
    SETTINGS = parse_config(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# Jobs import visae from this checkout, in whatever environment they run.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [f"{workflow.basedir}/src", os.environ.get("PYTHONPATH")])
)

RESULTS = SETTINGS.results
ENVIRONMENT = f"{workflow.basedir}/envs/{SETTINGS.environment}.yaml"
STUDIES = SETTINGS.studies
UNIONS = [
    name for name, dataset in SETTINGS.datasets.items() if dataset.kind == "union"
]
LAYERS = sorted(
    {layer for study in STUDIES.values() for layer in (study.layer, study.head_layer)}
)
GPUS = 0 if SETTINGS.device == "cpu" else 1
try:
    # Two jobs side by side with half of the cores each end earlier than one after the other with all of them.
    SHARED_CORES = max(1, workflow.cores // 2)
except WorkflowError:
    SHARED_CORES = 4  # on a cluster there is no number of cores to share

INDEX = f"{RESULTS}/datasets/{{dataset}}/index.parquet"
PATCH_LABELS = f"{RESULTS}/datasets/{{dataset}}/patch-labels-{{model}}.parquet"
CARD = f"{RESULTS}/models/{{model}}/model.json"
STORE = f"{RESULTS}/activations/{{dataset}}/{{model}}/layer{{layer}}/manifest.json"
SAE = f"{RESULTS}/saes/{{trained_on}}/{{model}}/layer{{layer}}/{{sae}}"
FEATURES = (
    f"{RESULTS}/features/{{trained_on}}/{{model}}/layer{{layer}}/{{sae}}/{{dataset}}"
)
HEADS = f"{RESULTS}/heads/{{dataset}}/{{model}}"
INTERVENTIONS = f"{RESULTS}/interventions/{{study}}/{{sae}}"
FIGURES = f"{RESULTS}/figures/{{study}}"


def names(options):
    """Regular expression that matches exactly these names."""
    return "|".join(map(re.escape, sorted(options, key=len, reverse=True)))


wildcard_constraints:
    dataset=names(set(SETTINGS.datasets) - set(UNIONS)),
    trained_on=names(SETTINGS.datasets),
    model=names(SETTINGS.models),
    sae=names(SETTINGS.saes),
    study=names(STUDIES),
    layer=names(map(str, LAYERS)),
    shard=r"\d+",


def spec(settings, *code, **more):
    """Everything that decides a job's result, as one canonical text.

    Snakemake compares params as a set of values without names, so several params could swap values
    unnoticed; one text cannot. `code` names the library modules whose change reruns the job.
    """
    return json.dumps(
        {
            "settings": to_plain(settings),
            "code": [code_fingerprint(module) for module in code],
            "seed": SETTINGS.seed,
            "device": SETTINGS.device,
            **more,
        },
        sort_keys=True,
    )


def members(dataset):
    """The data sets that a name stands for: a union's members, else itself."""
    return SETTINGS.datasets[dataset].members if dataset in UNIONS else [dataset]


def layers_of(dataset, model):
    """Layers that some study reads of a data set and model, in order."""
    wanted = set()
    for study in STUDIES.values():
        if study.model == model:
            heads = {study.classification, study.segmentation} - {None}
            if dataset in {*members(study.train_on), *study.describe, *heads}:
                wanted.add(study.layer)
            if dataset in heads:
                wanted.add(study.head_layer)
    return sorted(wanted)


def of_study(pattern, **fixed):
    """Input function that fills a pattern from the study that the wildcards name."""

    def filled(wildcards):
        study = STUDIES[wildcards.study]
        known = dict(trained_on=study.train_on, model=study.model, layer=study.layer)
        known.update(wildcards.items())
        known.update({key: getattr(study, value) for key, value in fixed.items()})
        return pattern.format(**known)

    return filled


def grown(first):
    """Resource that doubles on each retry."""
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)
