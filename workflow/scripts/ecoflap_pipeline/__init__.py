"""What the Snakefile and the rules' scripts use: configuration, paths, parameters, report."""
