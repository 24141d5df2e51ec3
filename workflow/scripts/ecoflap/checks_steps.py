"""Checks the steps of a fine-tuning run: before any job by its settings, in the job by its data.

Needs no torch, and nothing else of the configuration, whose changes would train every model again.
"""

from collections.abc import Iterator, Mapping

from ecoflap.errors import message


def step_problems(settings: Mapping, samples: int) -> Iterator[str]:
    """Yields what is wrong with the steps of a run.

    Args:
        settings: An entry of config/finetuning.yaml, defaults filled in.
        samples: How many there are to learn from.
    """
    size, warmup = settings["batch_size"], settings["warmup"]
    steps = settings["epochs"] * (samples // size)
    if samples < size:
        yield message(
            f"{samples} samples to fine-tune on, in batches of {size}",
            f"at least {size} samples",
            "Raise the samples of the data, or lower batch_size.",
        )
    elif warmup >= steps:
        yield message(
            f"a warmup of {warmup} steps in a run of {steps}",
            f"at most {steps - 1}",
            "Lower warmup, or raise samples or epochs.",
        )
