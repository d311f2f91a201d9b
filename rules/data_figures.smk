# What was read: of data sets, and by models.


localrules:
    what_was_read,
    reading_sheet,


rule what_was_read:
    input:
        summaries=[
            f"{RESULTS}/datasets/{dataset}/summary.json"
            for dataset in used_datasets(SETTINGS)
        ],
        cards=expand(CARD, model=[model for model in USED_MODELS if model != GIVEN]),
    output:
        html=report(
            WHAT_WAS_READ,
            caption="../report/what_was_read.rst",
            category="What was read",
            labels={"figure": "data sets and models"},
        ),
        csv=f"{RESULTS}/what_was_read.csv",
    log:
        f"logs/{WHAT_WAS_READ}.log",
    benchmark:
        f"benchmarks/{WHAT_WAS_READ}.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            None,
            "visae.figures.what_was_read",
            datasets=used_datasets(SETTINGS),
            models=[model for model in USED_MODELS if model != GIVEN],
        ),
    message:
        "Writing what was read of data sets and what models assume"
    script:
        "../scripts/figures/what_was_read.py"


rule reading_sheet:
    input:
        index=INDEX,
        # It says how masks are read, and the names of their classes.
        summary=f"{RESULTS}/datasets/{{dataset}}/summary.json",
        card=CARD,
    output:
        **drawn(
            SHEET,
            "reading_sheet",
            "What was read",
            "pictures under masks or labels",
        ),
    log:
        f"logs/{SHEET}.log",
    benchmark:
        f"benchmarks/{SHEET}.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.reading_sheet"),
    message:
        "Drawing pictures of {wildcards.dataset} as {wildcards.model} sees them, under their masks or labels"
    script:
        "../scripts/figures/reading_sheet.py"
