"""Says what the selected experiments need and what is missing; fails if anything is.

Output: a table on the terminal.
"""

import sys

from ecoflap_pipeline import job, preflight

job.write_utf8()
found = preflight.needs(snakemake.params.config)
sys.stdout.write(preflight.table(found))
missing = sum(need.state == "missing" for need in found)
sys.exit(f"{missing} thing(s) missing" if missing else 0)
