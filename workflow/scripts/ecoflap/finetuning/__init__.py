"""Trains a pruned model on, with every removed weight at zero."""
