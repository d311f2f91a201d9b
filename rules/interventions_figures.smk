# Figures of interventions.


localrules:
    arms_figure,
    doses_figure,
    segmentation_maps_figure,
    probabilities_figure,
    strips_figure,


rule arms_figure:
    input:
        table=f"{INTERVENTIONS}/{{task}}/arms.parquet",
    output:
        **drawn(f"{MEASURED}/{{task}}_arms", "arms", "Interventions", "arms"),
    log:
        f"logs/{MEASURED}/{{task}}_arms.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_arms.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.arms",
            figure="arms",
            task=wildcards.task,
        ),
    message:
        "Drawing what edits of {wildcards.sae} do to {wildcards.task}"
    script:
        "../scripts/figures/of_tables.py"


rule doses_figure:
    input:
        table=f"{INTERVENTIONS}/{{task}}/doses.parquet",
    output:
        **drawn(
            f"{MEASURED}/{{task}}_doses", "doses", "Interventions", "dose and response"
        ),
    log:
        f"logs/{MEASURED}/{{task}}_doses.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_doses.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.doses",
            figure="doses",
            task=wildcards.task,
        ),
    message:
        "Drawing dose and response of edits of {wildcards.sae}, {wildcards.task}"
    script:
        "../scripts/figures/of_tables.py"


rule segmentation_maps_figure:
    input:
        examples=f"{INTERVENTIONS}/segmentation/examples.parquet",
        index=of_study(INDEX, dataset="segmentation"),
        # It names the classes.
        summary=of_study(
            f"{RESULTS}/datasets/{{dataset}}/summary.json", dataset="segmentation"
        ),
        card=of_study(CARD),
    output:
        **drawn(f"{MEASURED}/segmentation_maps", "maps", "Interventions", "maps"),
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


rule probabilities_figure:
    input:
        table=f"{INTERVENTIONS}/{{task}}/arms.parquet",
    output:
        **drawn(
            f"{MEASURED}/{{task}}_probabilities",
            "probabilities",
            "Interventions",
            "probabilities",
        ),
    log:
        f"logs/{MEASURED}/{{task}}_probabilities.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_probabilities.tsv"
    wildcard_constraints:
        task=names(ON_PICTURES),
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            SETTINGS.figures.style(),
            "visae.figures.probabilities",
            figure="probabilities",
        ),
    message:
        "Drawing probabilities before and after edits of {wildcards.sae}, {wildcards.task}"
    script:
        "../scripts/figures/of_tables.py"


rule strips_figure:
    input:
        unpack(outcomes_of_task),
        names=names_if_any,
        card=of_study(CARD),
    output:
        **drawn(f"{MEASURED}/{{task}}_strips", "strips", "Interventions", "strips"),
    log:
        f"logs/{MEASURED}/{{task}}_strips.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_strips.tsv"
    wildcard_constraints:
        task=names(["segmentation", *ON_PICTURES]),
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
