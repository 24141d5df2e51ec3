"""Forms in which data sets of others come, one module each."""
