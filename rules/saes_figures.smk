# Figures of SAEs. Like all figures they read small tables only; their looks are parameters of these rules alone.


localrules:
    training_figure,
    pareto_figure,


rule training_figure:
    input:
        tables=training_metrics,
    output:
        **drawn(f"{FIGURES}/training", "training", "Training", "training curves"),
    log:
        f"logs/{FIGURES}/training.log",
    benchmark:
        f"benchmarks/{FIGURES}/training.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.training",
            figure="training",
            saes=STUDIES[wildcards.study].saes,
        ),
    message:
        "Drawing how the SAEs of study {wildcards.study} learned"
    script:
        "../scripts/figures/of_tables.py"


rule pareto_figure:
    input:
        selection=of_study(f"{SAE}/selection.json"),
        scores=scores_of_members,
    output:
        **drawn(f"{MEASURED}/pareto", "pareto", "Training", "sweep"),
    log:
        f"logs/{MEASURED}/pareto.log",
    benchmark:
        f"benchmarks/{MEASURED}/pareto.tsv"
    wildcard_constraints:
        sae=names(SWEEPS),
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.pareto"),
    message:
        "Drawing what the members of sweep {wildcards.sae} reach"
    script:
        "../scripts/figures/pareto.py"
