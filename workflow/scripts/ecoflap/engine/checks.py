"""Checks that a model runs and sees its inputs: a blind one gives a wrong number, no crash."""

from collections.abc import Mapping, Sequence

import torch

from ecoflap.engine import replay
from ecoflap.errors import ModelError
from ecoflap.models.model import Model
from ecoflap.seeds import seed_from

NOISE = (1.0, 100.0)  # in units of the prepared pictures; untrained models feel the second alone
NO_PICTURES = ("mask", "labels")  # parts of the names of floating inputs that are no pictures


def check_batch(model: Model, batch: Mapping[str, torch.Tensor]) -> None:
    """Refuses what `check_forward` and `check_pictures` do."""
    check_pictures(model, batch, check_forward(model, batch))


@torch.no_grad()
def check_forward(model: Model, batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Refuses a model that cannot run on a batch, or whose loss is random.

    Args:
        model: The model.
        batch: A batch on its device.

    Returns:
        The logits of a batch with pictures; where the model returns none, what its last head
        returned. Of a batch of texts, whose logits are large, the loss alone.

    Raises:
        ModelError: if the forward fails, or if two forwards differ by chance.
    """
    before = _random_state(model.device)
    try:
        said = _said(model, batch)
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise ModelError(
            f"{type(model.module).__name__} cannot run on a batch of "
            f"{', '.join(f'{name} {list(tensor.shape)}' for name, tensor in batch.items())} "
            f"({type(e).__name__}: {next(iter(str(e).splitlines()), '')})",
            allowed="what the model's forward takes, from its own processor or tokenizer",
            fix="Check that processor and config agree (tokens of a picture, size of the "
            "vocabulary), and the batch's shapes.",
        ) from e
    drew = not torch.equal(before, _random_state(model.device))
    if drew and not all(map(torch.equal, said, _said(model, batch))):
        raise ModelError(
            f"two forwards of {type(model.module).__name__} on one batch differ by chance",
            allowed="models without randomness in eval mode (dropout, random masks)",
            fix="Switch it off in the config or in a subclass: scores of such a loss are noise.",
        )
    return said


def _random_state(device: torch.device) -> torch.Tensor:
    """Returns what changes when a random number is drawn on the host or a GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


@torch.no_grad()
def check_pictures(
    model: Model, batch: Mapping[str, torch.Tensor], said: Sequence[torch.Tensor]
) -> None:
    """Refuses a model whose output does not depend on its pictures.

    Args:
        model: The model; one without a vision tower is left alone, and one that is pruned already,
            which may be blind for that reason.
        batch: A batch on its device.
        said: What `check_forward` returned.

    Raises:
        ModelError: if noise added to the pictures changes no logit.
    """
    pictures = _pictures(model, batch)
    if not pictures or model.masks:
        return
    changed = (_said(model, _noisy(batch, pictures, scale)) for scale in NOISE)
    if all(all(map(torch.equal, said, other)) for other in changed):
        raise ModelError(
            f"the pictures ({', '.join(pictures)}) change nothing of what "
            f"{type(model.module).__name__} says",
            allowed="inputs whose image tokens the model looks at",
            fix="Check that processor and tokenizer belong to the model (number of image tokens, "
            "the token's number) and that batches were made with them.",
        )


def _pictures(model: Model, batch: Mapping[str, torch.Tensor]) -> list[str]:
    """Returns the names of a batch's pictures; none for a model without a vision tower."""
    if not any(matrix.tower == "vision" for matrix in model.matrices()):
        return []
    return [
        name
        for name, tensor in batch.items()
        if tensor.is_floating_point() and not any(part in name for part in NO_PICTURES)
    ]


def _noisy(
    batch: Mapping[str, torch.Tensor], pictures: Sequence[str], scale: float
) -> dict[str, torch.Tensor]:
    """Returns a batch with noise in its pictures."""
    generator = torch.Generator().manual_seed(seed_from("pictures"))
    noisy = dict(batch)
    for name in pictures:
        noise = scale * torch.randn(batch[name].shape, generator=generator)
        # Zeros stay: a model may take pictures of zeros alone for padding (Idefics 3).
        noisy[name] = batch[name] + noise.to(batch[name]) * (batch[name] != 0)
    return noisy


def _said(model: Model, batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Returns what `check_forward` does."""
    outputs: list = []
    heads: list = []
    watched = [(model.module, outputs), *((segment.module, heads) for segment in model.segments)]
    handles = [
        module.register_forward_hook(lambda *call, kept=kept: kept.append(call[-1]))
        for module, kept in (watched if _pictures(model, batch) else [])
    ]
    try:
        loss, _ = replay.run(
            model.block_modules(),
            lambda: model.loss(batch),
            keep=lambda block: False,
            around=model.resident,
            places=replay.Places(model.device),
        )
    finally:
        for handle in handles:
            handle.remove()
    logits = [
        value
        for output in outputs
        if isinstance(output, Mapping)
        for key, value in output.items()
        if "logits" in key and isinstance(value, torch.Tensor)
    ]
    return logits or [loss, *(head for head in heads[-1:] if isinstance(head, torch.Tensor))]
