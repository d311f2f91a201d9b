# Snakemake's report. Its first page is written by the job itself, before Snakemake reads it.


report: FRONT_PAGE


localrules:
    report,


rule report:
    input:
        lambda wildcards: PICTURES + EXPERIMENTS,
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
            front_page=FRONT_PAGE,
        ),
    message:
        "Writing Snakemake's report"
    script:
        "../scripts/report.py"
