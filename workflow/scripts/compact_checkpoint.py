"""Packs an exported model.

Output: the export with a bit per weight and the values that are there instead of dense weights,
unpack.py, which makes them dense again, and manifest.json (hash of every file).
"""

from ecoflap import artifacts, compact, runtime

log = runtime.start_job(snakemake.log[0], snakemake.threads)
source, folder = snakemake.input.folder, snakemake.output.folder

head = artifacts.header(
    compact.KIND,
    rule=snakemake.rule,
    code=snakemake.params.code,
    config=snakemake.params.config,
    inputs=artifacts.input_hashes([source]),
)
for file in compact.write(artifacts.checked(source, "export"), folder, head):
    log.info("%s: %.1f MiB", file, file.stat().st_size / 2**20)
artifacts.write_manifest(folder, head, [])
