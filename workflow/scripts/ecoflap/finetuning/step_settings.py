"""Checks the steps of a fine-tuning run: before any job by its settings, in the job by its data.

Needs no torch, and nothing else of the configuration, whose changes would train every model again.
"""

from collections.abc import Iterator, Mapping

from ecoflap.errors import message


def lone_problems(settings: Mapping, at_once: int) -> Iterator[str]:
    """Yields what leaves a forward of one sample, where samples are compared with each other.

    Args:
        settings: An entry of config/finetuning.yaml.
        at_once: Samples per forward.
    """
    held_out = sum(part.get("held_out", 0) for part in settings["data"])
    for key, count in (("batch_size", settings["batch_size"]), ("held_out", held_out)):
        forwards = -(-count // at_once)
        if count and count // forwards < 2:
            yield message(
                f"{key} {count} in forwards of {at_once} has one of a single sample",
                "at least two in each: the loss compares samples with each other",
                f"Choose another {key} of the fine-tuning, or batch_size of the model.",
            )


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
            f"samples to fine-tune on: {samples}, in batches of {size}",
            f"at least {size}",
            "Raise the samples of the data, or lower batch_size.",
        )
    elif warmup >= steps:
        yield message(
            f"a warmup of {warmup} steps in a run of {steps}",
            f"at most {steps - 1}",
            "Lower warmup, or raise samples or epochs.",
        )
