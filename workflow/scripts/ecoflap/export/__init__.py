"""Pruned models as others load them: checkpoints, model cards, semi-structured sparsity."""
