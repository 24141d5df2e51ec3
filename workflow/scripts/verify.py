"""Checks every artifact in results: header, digest, sparsity, inputs, code and config.

Output: what is wrong, on the terminal; fails if an artifact is damaged or out of date.
"""

import sys
from pathlib import Path

from ecoflap import verification

found = list(verification.verify(snakemake.params.config, Path(snakemake.params.scripts)))
sys.stdout.write(verification.summary(found))
sys.exit(0 if verification.trusted(found) else "results hold what should not be trusted")
