"""What the rows and columns of a table are called. Needs neither torch nor pandas."""

from ecoflap.plugins import METRIC_LABELS

# Column of a cost -> its heading, and the factor of its unit.
COSTS = {
    "achieved_sparsity": ("Removed", 100),
    "whole_model_sparsity": ("of all", 100),
    "tokens_per_feature": ("Tokens per feature (least)", 1),
    "calibration_seconds": ("Calibration (s)", 1),
    "scoring_seconds": ("Scoring (s)", 1),
    "choosing_seconds": ("Choosing p_max (s)", 1),
    "allocation_seconds": ("Allocation (s)", 1),
    "pruning_seconds": ("Pruning (s)", 1),
    "finetuning_seconds": ("Fine-tuning (s)", 1),
    "evaluation_seconds": ("Evaluation (s)", 1),
    "seconds": ("Seconds", 1),
    "gpu_hours": ("GPU-hours", 1),
    "peak_memory_mb": ("Memory (MiB)", 1),
    "joules": ("Energy (kJ)", 1 / 1000),
}
AVERAGE = "Average"
ROW = ("Model", "Method", "Sparsity")
OWN = (*ROW, AVERAGE, *(heading for heading, _ in COSTS.values()))  # those of no task


def of_task(label: str, metric: str) -> str:
    """Returns the heading of what a task measures."""
    return label if metric == "accuracy" else f"{label} {METRIC_LABELS[metric]}"
