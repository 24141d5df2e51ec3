"""Checks every artifact in results: header, digest, sparsity, inputs, code and config.

Output: what is wrong, on the terminal; fails if an artifact is damaged or out of date.
"""

import sys
from pathlib import Path

from ecoflap_pipeline import job, verify

job.write_utf8()
found = list(verify.verify(snakemake.params.config, Path(snakemake.params.scripts)))
sys.stdout.write(verify.summary(found))
if not verify.trusted(found):
    sys.exit(
        "results hold what should not be trusted. Make each such file again by `snakemake --force "
        "FILE` (for a manifest.json its folder), then run what you ran."
    )
