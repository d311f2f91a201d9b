# Figures of heads, and of what SAEs leave of their answers.


localrules:
    confusion_figure,
    calibration_figure,
    faithfulness_figure,


rule confusion_figure:
    input:
        table=confusion_of_head,
    output:
        **drawn(
            f"{FIGURES}/{{head}}_confusion", "confusion", "Heads", "confusion matrix"
        ),
    log:
        f"logs/{FIGURES}/{{head}}_confusion.log",
    benchmark:
        f"benchmarks/{FIGURES}/{{head}}_confusion.tsv"
    wildcard_constraints:
        head=names(TASK_OF_HEAD),
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            SETTINGS.figures.style(), "visae.figures.confusion", figure="confusion"
        ),
    message:
        "Drawing what the {wildcards.head} head of study {wildcards.study} takes each class for"
    script:
        "../scripts/figures/of_tables.py"


rule calibration_figure:
    input:
        reliability=of_study(
            f"{HEADS}/probe/reliability.parquet", dataset="classification"
        ),
        metrics=of_study(f"{HEADS}/probe/metrics.json", dataset="classification"),
    output:
        **drawn(f"{FIGURES}/probe_calibration", "calibration", "Heads", "calibration"),
    log:
        f"logs/{FIGURES}/probe_calibration.log",
    benchmark:
        f"benchmarks/{FIGURES}/probe_calibration.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.calibration"),
    message:
        "Drawing whether the probe of study {wildcards.study} is right as often as it says"
    script:
        "../scripts/figures/calibration.py"


rule faithfulness_figure:
    input:
        table=f"{INTERVENTIONS}/faithfulness.parquet",
    output:
        **drawn(
            f"{MEASURED}/faithfulness", "faithfulness", "Interventions", "faithfulness"
        ),
    log:
        f"logs/{MEASURED}/faithfulness.log",
    benchmark:
        f"benchmarks/{MEASURED}/faithfulness.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            SETTINGS.figures.style(),
            "visae.figures.faithfulness",
            figure="faithfulness",
        ),
    message:
        "Drawing what the reconstruction of {wildcards.sae} keeps"
    script:
        "../scripts/figures/of_tables.py"
