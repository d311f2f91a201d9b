# The workflow: pictures -> activations -> sparse autoencoders -> features -> interventions -> figures.
# Rules only wire files together; the work is in src/visae. `snakemake -n` shows what would run.
import sys

sys.path.insert(0, f"{workflow.basedir}/src")


include: "rules/common.smk"
include: "rules/paths.smk"
include: "rules/training.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/activations.smk"
include: "rules/saes.smk"
include: "rules/features.smk"
include: "rules/attribution.smk"
include: "rules/benchmark.smk"
include: "rules/heads.smk"
include: "rules/interventions.smk"
include: "rules/discovery.smk"
include: "rules/counterfactuals.smk"
include: "rules/groups.smk"
include: "rules/audit.smk"
include: "rules/gain.smk"
include: "rules/data_figures.smk"
include: "rules/saes_figures.smk"
include: "rules/features_figures.smk"
include: "rules/heads_figures.smk"
include: "rules/interventions_figures.smk"
include: "rules/report.smk"
include: "rules/collect.smk"


# A named target for each stage: `snakemake saes` stops where you like.


localrules:
    all,
    datasets,
    models,
    activations,
    saes,
    features,
    heads,
    interventions,
    atlas,
    counterfactuals,
    attributions,
    groups,
    audit,
    gain,
    figures,


rule all:
    default_target: True
    input:
        expand(STUDY, study=STUDIES),
        SAES,
        FEATURE_TABLES,
        ATTRIBUTIONS,
        TASK_HEADS,
        EXPERIMENTS,
        ATLASES,
        OF_PAIRS,
        GROUPS,
        AUDITS,
        GAINS,
        FAITHFULNESS,
        PICTURES,
        REPORT,


rule datasets:
    input:
        DATASETS,


rule models:
    input:
        MODELS,


rule activations:
    input:
        STORES,


rule saes:
    input:
        SAES,


rule features:
    input:
        FEATURE_TABLES,


rule heads:
    input:
        TASK_HEADS,


rule interventions:
    input:
        EXPERIMENTS,
        FAITHFULNESS,


rule atlas:
    input:
        ATLASES,
        ATLAS_FIGURES,


rule counterfactuals:
    input:
        OF_PAIRS,
        FIGURES_OF_PAIRS,


rule attributions:
    input:
        ATTRIBUTIONS,
        ATTRIBUTION_FIGURES,


rule groups:
    input:
        GROUPS,
        of_experiments(f"{MEASURED}/{{task}}_groups.png", ON_PICTURES, WITH_GROUPS),


rule audit:
    input:
        AUDITS,
        AUDIT_FIGURES,


rule gain:
    input:
        GAINS,
        of_experiments(f"{MEASURED}/{{task}}_gain.png", studies=WITH_GAIN),


rule figures:
    input:
        PICTURES,
