"""Removes weights, layer by layer or over the whole model, and keeps what changed."""
