"""Chooses, prepares and describes the calibration samples of a model."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch

from ecoflap import data
from ecoflap.data import generated, mixes, settings
from ecoflap.data.encoding import naming
from ecoflap.data.formats import prepare
from ecoflap.errors import DataError
from ecoflap.seeds import seed_from

if TYPE_CHECKING:
    from ecoflap.models.abilities import Reading
    from ecoflap.models.model import Model

# Of a sample, for its manifest.
TEXTS = ("part", "prompt", "target", "reference", "caption", "text", "label")


def collect(model: "Model", calibration: Mapping, seed: int) -> tuple[dict, dict]:
    """Draws samples without replacement and encodes them for a model.

    Args:
        model: The model whose processor encodes, and which answers where targets are generated.
        calibration: ``dataset``, ``format``, ``samples``, and ``window`` (tokens) for text; or
            ``parts``, a list of such mappings, whose samples are interleaved. ``targets``: ``data``
            or ``generated``, with ``max_new_tokens``.
        seed: Chooses the samples, of a part together with its name, and, by sample, the split of
            a caption.

    Returns:
        Tensors by name, each [samples, ...], and the manifest: sample ids, texts, the part of each
        if there are parts, and the fingerprint of what was drawn.

    Raises:
        ConfigError: for settings that are wrong.
        DataError: if a data set has fewer samples than asked for, or parts give samples of
            different forms.
    """
    settings.check(calibration)
    chosen, _ = draw(model, {**calibration, "held_out": 0}, seed)
    return _encode(model, chosen)


def held_out(model: "Model", calibration: Mapping, seed: int) -> tuple[dict, dict]:
    """Draws further samples, none of which `collect` draws with the same seed.

    Args:
        model: The model whose processor encodes.
        calibration: As for `collect`, with ``held_out``, the number of samples, of which each part
            has its share.
        seed: As for `collect`.

    Returns:
        What `collect` returns.

    Raises:
        ConfigError: for settings that are wrong.
        DataError: if a data set has too few samples left.
    """
    settings.check(calibration)
    _, further = draw(model, calibration, seed)
    return _encode(model, further)


def draw(model: "Model", calibration: Mapping, seed: int) -> tuple[list[dict], list[dict]]:
    """Draws examples without replacement and makes samples of them.

    Args:
        model: The model whose tokenizer cuts texts into windows.
        calibration: As for `collect`; ``held_out``: further samples.
        seed: Chooses the examples.

    Returns:
        The samples, and the held-out ones, whose examples are not among those of the first.

    Raises:
        DataError: if a data set has fewer examples than asked for.
    """
    parts = mixes.parts_of(calibration)
    pools = [examples_of(model, part) for part in parts]
    taken: dict[tuple, set[str]] = defaultdict(set)
    chosen, further = [], []
    for part, pool in zip(parts, pools, strict=True):
        examples = choose(pool, part, seed, *_named(calibration, part))
        chosen.append(_samples(model, calibration, part, seed, (examples, pool)))
        taken[mixes.origin(part)] |= {sample["id"] for sample in chosen[-1]}
    counts = mixes.shares(calibration.get("held_out", 0), [len(samples) for samples in chosen])
    for part, pool, count in zip(parts, pools, counts, strict=True):
        ids = taken[mixes.origin(part)]
        examples = choose_held_out(pool, ids, count, seed, *_named(calibration, part))
        rest = [example for example in pool if example["id"] not in ids]
        further.append(_samples(model, calibration, part, seed, (examples, rest)))
    return mixes.interleaved(chosen), mixes.interleaved(further)


def _named(calibration: Mapping, part: Mapping) -> list[str]:
    """Returns what seeds the draw of a part beside the seed; nothing of a set without parts."""
    return [mixes.name(part)] if "parts" in calibration else []


def _samples(
    model: "Model",
    calibration: Mapping,
    part: Mapping,
    seed: int,
    drawn: tuple[list[dict], list[dict]],
) -> list[dict]:
    """Makes the samples of the examples drawn, with targets of the model's own if asked for.

    Args:
        model: The model.
        calibration: The set.
        part: Its part that the examples are of.
        seed: Of the draw.
        drawn: The examples, and all that may take the place of one without an answer.
    """
    examples, pool = drawn
    names = _named(calibration, part)
    told = {"part": names[0]} if names else {}
    if calibration.get("targets", "data") == "data":
        return [{**prepare(example, part, seed), **told} for example in examples]
    spare = _spare(examples, pool, seed, *names)
    ordered = ({**prepare(e, part, seed), **told} for e in (*examples, *spare))
    limit = calibration.get("max_new_tokens", generated.MAX_NEW_TOKENS)
    return generated.with_answers(model, ordered, len(examples), limit)


def _spare(examples: list[dict], pool: list[dict], seed: int, *names: str) -> list[dict]:
    """Returns the examples of a pool that were not drawn, in an order of the seed's."""
    taken = {example["id"] for example in examples}
    rest = [example for example in pool if example["id"] not in taken]
    return random.Random(seed_from("spare", seed, *names)).sample(rest, len(rest))


def examples_of(model: "Model", calibration: Mapping) -> list[dict]:
    """Returns all that samples are drawn from, texts cut into windows."""
    examples = data.load(calibration["dataset"])
    if calibration["format"] == "text-windows":
        examples = _windows(cast("Reading", model), examples, calibration["window"])
    return examples


def choose(examples: Sequence[dict], calibration: Mapping, seed: int, *names: str) -> list[dict]:
    """Draws the examples that are calibrated with, or learned from, by seed and names.

    Without ``samples`` all that ``held_out`` leaves; see `draw`.
    """
    count = calibration.get("samples", max(1, len(examples) - calibration.get("held_out", 0)))
    if count > len(examples):
        raise DataError(
            f"{count} samples asked for, {len(examples)} found",
            allowed=f"at most {len(examples)}",
            fix="Lower samples or use a larger split.",
        )
    return random.Random(seed_from("calibration", seed, *names)).sample(examples, count)


def choose_held_out(
    examples: Sequence[dict], taken: Collection[str], count: int, seed: int, *names: str
) -> list[dict]:
    """Draws examples whose ids are not among those taken; see `draw`."""
    rest = [example for example in examples if example["id"] not in taken]
    if count > len(rest):
        raise DataError(
            f"{count} held-out samples asked for, {len(rest)} left that are not learned from",
            allowed=f"at most {len(rest)}",
            fix="Lower held_out or samples, or use a larger split.",
        )
    return random.Random(seed_from("held-out", seed, *names)).sample(rest, count)


def _encode(model: "Model", prepared: list[dict]) -> tuple[dict, dict]:
    _check_alike(prepared)
    samples = [{"id": e["id"], **{k: e[k] for k in TEXTS if k in e}} for e in prepared]
    manifest = {"samples": samples, "fingerprint": _fingerprint(prepared)}
    return naming(prepared, model.encode), manifest


def _check_alike(samples: Sequence[Mapping]) -> None:
    """Refuses a mix whose parts are not encoded into the same tensors."""
    other = next((s for s in samples if set(s) != set(samples[0])), None)
    if other is not None:
        one, two = (", ".join(sorted(set(s) - {"id", "part"})) for s in (samples[0], other))
        raise DataError(
            f"the part {samples[0]['part']} gives {one}, the part {other['part']} {two}",
            allowed="parts whose formats give samples of one form",
            fix="Choose formats that one model takes together, or sets of their own.",
        )


def batches(
    samples: Mapping[str, torch.Tensor], batch_size: int, limit: int | None = None
) -> list[dict[str, torch.Tensor]]:
    """Cuts stored samples into batches.

    Args:
        samples: Tensors [n, ...].
        batch_size: Samples per batch; the last may be smaller.
        limit: Use only the first samples (they are in random order already).

    Raises:
        DataError: if fewer than ``limit`` samples are stored, or a number is below 1.
    """
    stored = len(next(iter(samples.values())))
    count = stored if limit is None else limit
    for what, number in (("batch size", batch_size), ("limit", count)):
        if number < 1:
            raise DataError(f"{what} {number}", allowed="at least 1", fix="Correct it.")
    if count > stored:
        raise DataError(
            f"{count} samples asked for, {stored} stored",
            allowed=f"at most {stored}",
            fix="Raise samples of the calibration set.",
        )
    return [
        {name: tensor[start : min(start + batch_size, count)] for name, tensor in samples.items()}
        for start in range(0, count, batch_size)
    ]


def _windows(model: "Reading", texts: list[dict], length: int) -> list[dict]:
    return [
        {"id": f"{text['id']}/window-{length}-{index}", "tokens": tokens}
        for text in texts
        for index, tokens in enumerate(model.windows(text["text"], length))
    ]


def _fingerprint(examples: list[dict]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        for key in sorted(example):
            value = example[key]
            content = value if isinstance(value, str) else _bytes(value)
            digest.update(key.encode() + b"\0")
            digest.update(content.encode() if isinstance(content, str) else content)
    return digest.hexdigest()


def _bytes(value) -> bytes:
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value.tobytes()
