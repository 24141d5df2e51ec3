"""Benchmarks: each figure sets the library beside something else measured in the same run.

``python -m ecoflap.bench cpu | memory | gpu | deploy`` needs neither Snakemake nor a network.
"""
