rule extract_calibration:
    input:
        model=paths.MODEL.template,
        datasets=given.calibration_reports,
        overlaps=given.calibration_overlaps,
    output:
        samples=paths.SAMPLES.template,
        manifest=paths.SAMPLES_MANIFEST.template,
        cost=paths.SAMPLES_COST.template,
    log:
        paths.log("extract_calibration", paths.SAMPLES_JOB),
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
