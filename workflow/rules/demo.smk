# How the checkpoints in workflow/resources/demo were made. No other rule needs these.


# One thread: the same seed gives the same model only with the same number of threads, and a
# second one gains little on models this small. The two models train side by side.
rule train_demo_model:
    output:
        weights="results/demo-training/{model}/model.safetensors",
        config="results/demo-training/{model}/config.json",
        tokenizer="results/demo-training/{model}/tokenizer.json",
        processor="results/demo-training/{model}/processor_config.json",
        training_log="results/demo-training/{model}/training_log.csv",
        metrics="results/demo-training/{model}/dense_metrics.json",
    log:
        paths.log("train_demo_model", paths.MODEL_JOB),
    benchmark:
        paths.benchmark("train_demo_model", paths.MODEL_JOB)
    wildcard_constraints:
        model="demo-blip2|demo-clip",
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        seed=0,
        tasks=given.demo_tasks,
        code=given.code("train_demo_model.py"),
    message:
        "Training {wildcards.model} from scratch"
    script:
        "../scripts/train_demo_model.py"


rule train_demo_models:
    input:
        expand(
            "results/demo-training/{model}/model.safetensors",
            model=["demo-blip2", "demo-clip"],
        ),
