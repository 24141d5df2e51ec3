"""Calibration targets that the dense model writes itself."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, cast

from ecoflap.data.encoding import naming
from ecoflap.errors import DataError

if TYPE_CHECKING:
    from ecoflap.models.abilities import Writing
    from ecoflap.models.model import Model

log = logging.getLogger(__name__)
MAX_NEW_TOKENS = 40  # of an answer; as long as the captions of the demo and of COCO
AT_ONCE = 16  # prompts


def check(model: "Model") -> None:
    """Refuses models that answer nothing.

    Raises:
        DataError: if the model is such a one.
    """
    if not hasattr(model, "generate"):
        seen = f"the family {model.family}"
    elif model.offload != "none":  # its blocks are on the device while they are pruned alone
        seen = f"offload='{model.offload}'"
    else:
        return
    raise DataError(
        f"targets: generated with {seen}",
        allowed="models on one device that generate",
        fix="Take the targets of the data.",
    )


def with_answers(
    model: "Model", samples: Iterable[dict], count: int, max_new_tokens: int
) -> list[dict]:
    """Replaces the targets of samples by the model's own answers, decoded greedily.

    A prompt to which the model says nothing has nothing to learn from: it is left out, and the
    next sample takes its place.

    Args:
        model: The dense model.
        samples: Samples with ``image``, ``prompt`` and ``target``, in order of preference.
        count: How many are wanted.
        max_new_tokens: Length limit of an answer.

    Returns:
        The first samples with an answer, whose ``reference`` is the target of the data.

    Raises:
        DataError: if the samples end before so many have an answer.
    """
    found: list[dict] = []
    silent: list[str] = []
    remaining = iter(samples)
    while len(found) < count:
        asked = list(islice(remaining, min(AT_ONCE, count - len(found))))
        if not asked:
            raise DataError(
                f"{count} samples with an answer of the model asked for, {len(found)} found",
                allowed=f"at most {len(found)}",
                fix="Lower samples or held_out, use a larger split, or the targets of the data.",
            )
        check(model)
        answers = _answers(cast("Writing", model), asked, max_new_tokens)
        for sample, answer in zip(asked, answers, strict=True):
            if answer.strip():
                found.append({**sample, "target": answer, "reference": sample["target"]})
            else:
                silent.append(sample["id"])
    if silent:
        log.info("left out, since the model says nothing: %s", ", ".join(silent))
    return found


def _answers(model: "Writing", samples: Sequence[Mapping], max_new_tokens: int) -> list[str]:
    def generate(samples: Sequence[Mapping]) -> list[str]:
        images, prompts = ([sample[key] for sample in samples] for key in ("image", "prompt"))
        return model.generate(images, prompts, max_new_tokens=max_new_tokens)

    return naming(samples, generate)
