"""Benchmarks: each figure sets the library beside something else measured in the same run.

``python -m bench NAME`` (``--help`` lists them) needs neither Snakemake nor a network.
"""
