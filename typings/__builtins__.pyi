"""What Snakemake gives the scripts of rules, for type checkers."""

from snakemake.iocontainers import Snakemake

snakemake: Snakemake
