# Figures read small tables only. Their looks are parameters of these rules alone.


localrules:
    training_figure,
    pareto_figure,
    ground_truth_figure,
    feature_map_figure,
    exemplar_figure,
    exemplar_range_figure,
    class_latents_figure,
    score_nulls_figure,
    segmentation_arms_figure,
    dose_response_figure,
    segmentation_maps_figure,
    classification_edits_figure,
    confusion_figure,
    calibration_figure,
    faithfulness_figure,
    strips_figure,
    report,


rule training_figure:
    input:
        metrics=training_metrics,
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
            saes=STUDIES[wildcards.study].saes,
        ),
    message:
        "Drawing how the SAEs of study {wildcards.study} learned"
    script:
        "../scripts/figures/training.py"


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


rule ground_truth_figure:
    input:
        tables=every_sae_described("causes"),
    output:
        **drawn(
            f"{FIGURES}/{{dataset}}/ground_truth",
            "ground_truth",
            "Features",
            "known causes",
        ),
    log:
        f"logs/{FIGURES}/{{dataset}}/ground_truth.log",
    benchmark:
        f"benchmarks/{FIGURES}/{{dataset}}/ground_truth.tsv"
    wildcard_constraints:
        dataset=names(SCENES),
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.ground_truth",
            saes=STUDIES[wildcards.study].saes,
        ),
    message:
        "Drawing how well study {wildcards.study} tells the known causes of {wildcards.dataset}"
    script:
        "../scripts/figures/ground_truth.py"


rule feature_map_figure:
    input:
        statistics=described_table("stats"),
        scores=scores_if_any,
        names=names_if_any,
    output:
        **drawn(f"{DESCRIBED}/feature_map", "feature_map", "Features", "feature map"),
    log:
        f"logs/{DESCRIBED}/feature_map.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/feature_map.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.feature_map"),
    message:
        "Drawing the map of the latents of {wildcards.sae} on {wildcards.dataset}"
    script:
        "../scripts/figures/feature_map.py"


rule exemplar_figure:
    input:
        exemplars=described_table("exemplars"),
        statistics=described_table("stats"),
        scores=scores_if_any,
        names=names_if_any,
        index=INDEX,
        card=of_study(CARD),
    output:
        **drawn(f"{DESCRIBED}/exemplars", "exemplars", "Features", "exemplars"),
    log:
        f"logs/{DESCRIBED}/exemplars.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/exemplars.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures,
            "visae.figures.exemplars",
            layer=STUDIES[wildcards.study].layer,
            whole_range=False,
        ),
    message:
        "Drawing exemplars of {wildcards.sae} on {wildcards.dataset}"
    script:
        "../scripts/figures/exemplars.py"


rule exemplar_range_figure:
    input:
        exemplars=described_table("exemplars"),
        statistics=described_table("stats"),
        scores=scores_if_any,
        names=names_if_any,
        index=INDEX,
        card=of_study(CARD),
    output:
        **drawn(
            f"{DESCRIBED}/exemplar_range", "exemplar_range", "Features", "whole range"
        ),
    log:
        f"logs/{DESCRIBED}/exemplar_range.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/exemplar_range.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures,
            "visae.figures.exemplars",
            layer=STUDIES[wildcards.study].layer,
            whole_range=True,
        ),
    message:
        "Drawing the whole range of {wildcards.sae} on {wildcards.dataset}"
    script:
        "../scripts/figures/exemplars.py"


rule class_latents_figure:
    input:
        scores=described_table("scores"),
        names=names_if_any,
    output:
        **drawn(f"{DESCRIBED}/class_latents", "class_latents", "Features", "classes"),
    log:
        f"logs/{DESCRIBED}/class_latents.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/class_latents.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.class_latents"),
    message:
        "Drawing the best latents of each class of {wildcards.dataset} in {wildcards.sae}"
    script:
        "../scripts/figures/class_latents.py"


rule score_nulls_figure:
    input:
        scores=described_table("scores"),
    output:
        **drawn(
            f"{DESCRIBED}/score_nulls", "score_nulls", "Features", "scores and nulls"
        ),
    log:
        f"logs/{DESCRIBED}/score_nulls.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/score_nulls.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.score_nulls"),
    message:
        "Drawing scores of {wildcards.sae} on {wildcards.dataset} against their nulls"
    script:
        "../scripts/figures/score_nulls.py"


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


rule confusion_figure:
    input:
        confusion=confusion_of_head,
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
        spec=spec(SETTINGS.figures.style(), "visae.figures.confusion"),
    message:
        "Drawing what the {wildcards.head} head of study {wildcards.study} takes each class for"
    script:
        "../scripts/figures/confusion.py"


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
        spec=spec(SETTINGS.figures.style(), "visae.figures.faithfulness"),
    message:
        "Drawing what the reconstruction of {wildcards.sae} keeps"
    script:
        "../scripts/figures/faithfulness.py"


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


rule report:
    input:
        lambda wildcards: PICTURES,
    output:
        html=f"{RESULTS}/report.html",
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    conda:
        ENVIRONMENT
    params:
        # The report shows rules, settings and figures: it is made again with any of them, but for where jobs run. A
        # function, because paths in settings may hold braces.
        spec=lambda wildcards: spec(
            replace(SETTINGS, scratch=None, cluster="auto", slurm=SlurmSettings()),
            snakefile=workflow.main_snakefile,
        ),
    message:
        "Writing Snakemake's report"
    script:
        "../scripts/report.py"
