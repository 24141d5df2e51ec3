# A pruned model is trained on. What a killed job goes on from is no output, so it stays.
rule finetune_model:
    input:
        model=paths.MODEL.template,
        pruned=given.finetune_changes,
        datasets=given.finetune_reports,
        overlaps=given.finetune_overlaps,
    output:
        changes=paths.FINETUNED.template,
        layers=paths.FINETUNED_LAYERS.template,
        curve=paths.CURVE.template,
        cost=paths.FINETUNE_COST.template,
    log:
        paths.log("finetune_model", paths.POINT_JOB),
    benchmark:
        paths.benchmark("finetune_model", paths.POINT_JOB)
    wildcard_constraints:
        variant="|".join(given.tuned) or "none",
    conda:
        environment
    threads: 1
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(2880),
    params:
        config=given.read_by("finetune_model"),
        source=given.finetune_source,
        device=config["device"],
        python=interpreter,
        code=given.finetune_code,
    message:
        "Fine-tuning {wildcards.model} {wildcards.variant} {wildcards.sparsity}, seed {wildcards.seed}"
    script:
        "../scripts/finetune_model.py"
