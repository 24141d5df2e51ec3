"""Data sets that are made, installed or fetched without a folder, one module each."""
