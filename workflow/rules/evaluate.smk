rule evaluate_model:
    input:
        model=paths.MODEL.template,
        changes=given.evaluation_changes,
        donor=given.evaluation_donor,
        datasets=given.evaluation_reports,
    output:
        predictions=paths.PREDICTIONS.template,
        metrics=paths.METRICS.template,
        cost=paths.EVALUATION_COST.template,
    log:
        paths.log("evaluate_model", paths.SUITE_JOB),
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


rule loss_landscape:
    input:
        model=given.landscape_folder,
        samples=given.landscape_samples,
    output:
        landscape=paths.LANDSCAPE.template,
    log:
        paths.log("loss_landscape", "{landscape}"),
    benchmark:
        paths.benchmark("loss_landscape", "{landscape}")
    conda:
        environment
    threads: 1
    resources:
        gpu=given.gpus,
        mem_mb=growing(8000),
        runtime=growing(480),
    params:
        config=given.read_by("loss_landscape"),
        device=config["device"],
        python=interpreter,
        code=given.landscape_code,
    message:
        "Walking the loss landscape {wildcards.landscape}"
    script:
        "../scripts/loss_landscape.py"
