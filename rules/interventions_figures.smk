# Figures of interventions.


localrules:
    segmentation_arms_figure,
    dose_response_figure,
    segmentation_maps_figure,
    classification_edits_figure,
    strips_figure,


rule segmentation_arms_figure:
    input:
        arms=f"{INTERVENTIONS}/segmentation/arms.parquet",
    output:
        **drawn(
            f"{MEASURED}/segmentation_arms",
            "segmentation_arms",
            "Interventions",
            "segmentation arms",
        ),
    log:
        f"logs/{MEASURED}/segmentation_arms.log",
    benchmark:
        f"benchmarks/{MEASURED}/segmentation_arms.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.segmentation_arms"),
    message:
        "Drawing what edits of {wildcards.sae} do to segmentation"
    script:
        "../scripts/figures/segmentation_arms.py"


rule dose_response_figure:
    input:
        doses=f"{INTERVENTIONS}/segmentation/doses.parquet",
    output:
        **drawn(
            f"{MEASURED}/dose_response",
            "dose_response",
            "Interventions",
            "dose and response",
        ),
    log:
        f"logs/{MEASURED}/dose_response.log",
    benchmark:
        f"benchmarks/{MEASURED}/dose_response.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.dose_response"),
    message:
        "Drawing dose and response of edits of {wildcards.sae}"
    script:
        "../scripts/figures/dose_response.py"


rule segmentation_maps_figure:
    input:
        maps=f"{INTERVENTIONS}/segmentation/maps.parquet",
        index=of_study(INDEX, dataset="segmentation"),
        card=of_study(CARD),
    output:
        **drawn(
            f"{MEASURED}/segmentation_maps",
            "segmentation_maps",
            "Interventions",
            "segmentation maps",
        ),
    log:
        f"logs/{MEASURED}/segmentation_maps.log",
    benchmark:
        f"benchmarks/{MEASURED}/segmentation_maps.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.segmentation_maps"),
    message:
        "Drawing predictions before and after edits of {wildcards.sae}"
    script:
        "../scripts/figures/segmentation_maps.py"


rule classification_edits_figure:
    input:
        edits=f"{INTERVENTIONS}/classification/edits.parquet",
    output:
        **drawn(
            f"{MEASURED}/classification_edits",
            "classification_edits",
            "Interventions",
            "classification edits",
        ),
    log:
        f"logs/{MEASURED}/classification_edits.log",
    benchmark:
        f"benchmarks/{MEASURED}/classification_edits.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.classification_edits"),
    message:
        "Drawing what edits of {wildcards.sae} do to classification"
    script:
        "../scripts/figures/classification_edits.py"


rule strips_figure:
    input:
        unpack(outcomes_of_task),
        names=names_if_any,
        card=of_study(CARD),
    output:
        **drawn(
            f"{MEASURED}/{{task}}_strips", "strips", "Interventions", "{task} strips"
        ),
    log:
        f"logs/{MEASURED}/{{task}}_strips.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_strips.tsv"
    wildcard_constraints:
        task="classification|segmentation",
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(), "visae.figures.class_strips", task=wildcards.task
        ),
    message:
        "Drawing strips of edits of {wildcards.sae}, {wildcards.task}"
    script:
        "../scripts/figures/strips.py"
