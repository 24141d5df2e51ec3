rule evaluate_model:
    input:
        model="results/models/{model}",
        changes=given.evaluation_changes,
        donor=given.evaluation_donor,
        datasets=given.evaluation_reports,
    output:
        predictions="results/evaluation/{model}/{variant}/seed{seed}/{sparsity}/{suite}/predictions.parquet",
        metrics="results/evaluation/{model}/{variant}/seed{seed}/{sparsity}/{suite}/metrics.json",
        cost="results/evaluation/{model}/{variant}/seed{seed}/{sparsity}/{suite}/cost.json",
    log:
        "results/logs/evaluate_model/{model}/{variant}/seed{seed}/{sparsity}/{suite}.log",
    conda:
        environment
    threads: 1
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(480),
    params:
        config=given.read_by("evaluate_model"),
        point=given.point,
        device=config["device"],
        python=interpreter,
        code=given.evaluation_code,
    message:
        "Evaluating {wildcards.model} {wildcards.variant} {wildcards.sparsity} on {wildcards.suite}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_model.py"
