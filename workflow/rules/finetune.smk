# A pruned model is trained on. What a killed job goes on from is no output, so it stays.
rule finetune_model:
    input:
        model="results/models/{model}",
        pruned=given.finetune_changes,
        datasets=given.finetune_reports,
        overlaps=given.finetune_overlaps,
    output:
        changes="results/finetuned/{model}/{variant}/seed{seed}/{sparsity}/changes.safetensors",
        layers="results/finetuned/{model}/{variant}/seed{seed}/{sparsity}/layers.parquet",
        curve="results/finetuned/{model}/{variant}/seed{seed}/{sparsity}/curve.parquet",
        cost="results/finetuned/{model}/{variant}/seed{seed}/{sparsity}/cost.json",
    log:
        "results/logs/finetune_model/{model}/{variant}/seed{seed}/{sparsity}.log",
    benchmark:
        "results/benchmarks/finetune_model/{model}/{variant}/seed{seed}/{sparsity}.tsv"
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
