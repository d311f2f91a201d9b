# The workflow: pictures -> activations -> sparse autoencoders -> features -> interventions -> figures.
# Rules only wire files together; the work is in src/visae. `snakemake -n` shows what would run.
import sys

sys.path.insert(0, f"{workflow.basedir}/src")


include: "rules/common.smk"
include: "rules/paths.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/activations.smk"
include: "rules/saes.smk"
include: "rules/features.smk"
include: "rules/heads.smk"
include: "rules/interventions.smk"
include: "rules/data_figures.smk"
include: "rules/saes_figures.smk"
include: "rules/features_figures.smk"
include: "rules/heads_figures.smk"
include: "rules/interventions_figures.smk"
include: "rules/report.smk"


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
    figures,


DATASETS = expand(INDEX, dataset=used_datasets(SETTINGS))
MODELS = expand(CARD, model=[model for model in USED_MODELS if model != GIVEN])
STORES = [
    STORE.format(dataset=dataset, model=model, layer=layer)
    for dataset in used_datasets(SETTINGS)
    for model in USED_MODELS
    for layer in layers_of(SETTINGS, dataset, model)
]
SAES = over_studies(f"{SAE}/summary.json") + [
    path
    for path in over_studies(f"{SAE}/stability.parquet")
    if path.split("/")[-2] in SEED_SWEEPS
]
SCORED = [
    path
    for path in over_studies(f"{FEATURES}/scores.parquet")
    if has_masks(path.split("/")[-2])
]
KNOWN_CAUSES = [
    path
    for path in over_studies(f"{FEATURES}/causes.parquet")
    if path.split("/")[-2] in SCENES
]
SCORED_BY_IMAGE = over_studies(
    f"{FEATURES}/image_scores.parquet", dataset="classification"
)
PROBED = [
    f"{CONCEPT}/probe.parquet".format(study=name, sae=sae, concept=concept)
    for name, study in STUDIES.items()
    for sae in study.saes
    for concept in study.concepts
]
LABELLED = sorted({path.rsplit("/", 1)[0] for path in SCORED + SCORED_BY_IMAGE})
FEATURE_TABLES = (
    over_studies(f"{FEATURES}/stats.parquet")
    + over_studies(f"{FEATURES}/exemplars.parquet")
    + SCORED
    + KNOWN_CAUSES
    + SCORED_BY_IMAGE
    + PROBED
    + [f"{folder}/purity.parquet" for folder in LABELLED]
    + (
        over_studies(f"{FEATURES}/monosemanticity.parquet")
        if SETTINGS.features.similarity
        else []
    )
)
TASK_HEADS = over_studies(
    f"{HEADS}/probe/metrics.json", dataset="classification"
) + over_studies(f"{HEADS}/segmentation/metrics.json", dataset="segmentation")
EXPERIMENTS = of_experiments(f"{INTERVENTIONS}/{{task}}/summary.json")
FAITHFULNESS = sorted(
    f"{INTERVENTIONS}/faithfulness.json".format(study=name, sae=sae)
    for name, study in STUDIES.items()
    for sae in study.saes
    if study.tasks
)
SHEETS = [
    f"{SHEET}.png".format(dataset=dataset, model=model)
    for dataset in used_datasets(SETTINGS)
    for model in USED_MODELS
    if dataset not in GIVEN_SETS and layers_of(SETTINGS, dataset, model)
]
PICTURES = (
    [WHAT_WAS_READ]
    + SHEETS
    + over_studies(f"{FIGURES}/training.png")
    + [
        path
        for path in over_studies(f"{MEASURED}/pareto.png")
        if path.split("/")[-2] in SWEEPS
    ]
    + [
        path
        for path in over_studies(f"{FIGURES}/{{dataset}}/ground_truth.png")
        if path.split("/")[-2] in SCENES
    ]
    + over_studies(f"{DESCRIBED}/feature_map.png")
    + [
        path
        for figure in ("exemplars", "exemplar_range")
        for path in over_studies(f"{DESCRIBED}/{figure}.png")
        if path.split("/")[-2] not in GIVEN_SETS
    ]
    + [
        path
        for figure in ("class_latents", "score_nulls")
        for path in over_studies(f"{DESCRIBED}/{figure}.png")
        if has_masks(path.split("/")[-2])
    ]
    + of_experiments(f"{MEASURED}/{{task}}_arms.png")
    + (
        of_experiments(f"{MEASURED}/{{task}}_doses.png")
        if SETTINGS.interventions.doses
        else []
    )
    + over_studies(f"{MEASURED}/segmentation_maps.png", dataset="segmentation")
    + of_experiments(f"{MEASURED}/{{task}}_probabilities.png", ON_PICTURES)
    + [
        path
        for head, task in TASK_OF_HEAD.items()
        for path in over_studies(f"{FIGURES}/{head}_confusion.png", dataset=task)
    ]
    + over_studies(f"{FIGURES}/probe_calibration.png", dataset="classification")
    + sorted(
        f"{MEASURED}/faithfulness.png".format(study=name, sae=sae)
        for name, study in STUDIES.items()
        for sae in study.saes
        if study.tasks
    )
    + of_experiments(f"{MEASURED}/{{task}}_strips.png", ("segmentation", *ON_PICTURES))
)
REPORT = f"{RESULTS}/report.html"


rule all:
    default_target: True
    input:
        expand(STUDY, study=STUDIES),
        SAES,
        FEATURE_TABLES,
        TASK_HEADS,
        EXPERIMENTS,
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


rule figures:
    input:
        PICTURES,
