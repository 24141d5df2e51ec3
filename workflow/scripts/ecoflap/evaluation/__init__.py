"""Downstream evaluation: tasks make predictions, metrics make numbers from stored ones."""
