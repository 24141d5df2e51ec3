"""What both trainings share: optimiser, schedule, log."""

import csv
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 50
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0


class Optimizer:
    """AdamW with warm-up, a cosine to zero counted in steps, and clipped gradients."""

    def __init__(self, rates: dict[float, Iterable[nn.Parameter]], n_steps: int):
        """Args: what to train at which peak learning rate, and the number of steps planned."""
        groups = [{"params": list(parameters), "lr": rate} for rate, parameters in rates.items()]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.adam = torch.optim.AdamW(
            groups, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.adam, lambda step: rate_share(step, n_steps)
        )

    def step(self, loss: torch.Tensor) -> None:
        """Backpropagate a loss and change the parameters."""
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.adam.step()
        self.schedule.step()


def rate_share(step: int, n_steps: int) -> float:
    """The share of the peak learning rate at a step, from 0 to 1."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / n_steps))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * cosine


class TrainingLog:
    """Writes one row of numbers at a time to `training_log.csv`."""

    def __init__(self, folder: Path):
        """Start the log in a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "training_log.csv"
        self.start = time.monotonic()
        self.rows: list[dict[str, float]] = []

    def add(self, *, step: int, loss: float, metrics: dict[str, float]) -> None:
        """Add a row and write the file anew."""
        seconds = round(time.monotonic() - self.start)
        row = {"step": step, "seconds": seconds, "loss": round(loss, 4)}
        self.rows.append(row | {name: round(value, 4) for name, value in metrics.items()})
        logger.info("%s", "  ".join(f"{name} {value}" for name, value in self.rows[-1].items()))
        with self.file.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.rows[-1].keys())
            writer.writeheader()
            writer.writerows(self.rows)
