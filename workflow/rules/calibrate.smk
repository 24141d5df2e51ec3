rule extract_calibration:
    input:
        model="results/models/{model}",
        datasets=given.calibration_reports,
        overlaps=given.calibration_overlaps,
    output:
        samples="results/calibration/{model}/{calibration}/seed{seed}/samples.safetensors",
        manifest="results/calibration/{model}/{calibration}/seed{seed}/manifest.json",
        cost="results/calibration/{model}/{calibration}/seed{seed}/cost.json",
    log:
        "results/logs/extract_calibration/{model}/{calibration}/seed{seed}.log",
    conda:
        environment
    threads: 1
    resources:
        gpu=given.calibration_gpus,
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        config=given.read_by("extract_calibration"),
        point=given.point,
        device=given.calibration_device,
        python=interpreter,
        code=given.calibration_code,
    message:
        "Drawing calibration samples {wildcards.calibration} for {wildcards.model}, seed {wildcards.seed}"
    script:
        "../scripts/extract_calibration.py"
