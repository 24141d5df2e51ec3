"""Checks that a model sees its inputs: one that it does not see makes a wrong number, no crash."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ecoflap import blocks
from ecoflap.errors import ModelError, message
from ecoflap.models.texts import positions
from ecoflap.runtime import seed_from

if TYPE_CHECKING:
    from ecoflap.models.base import Model

NOISE = (1.0, 100.0)  # in units of the prepared pictures; untrained models feel the second alone
NO_PICTURES = ("mask", "labels")  # parts of the names of floating inputs that are no pictures


def settle_queries(model: "Model") -> None:
    """Has the processor put as many image tokens into a text as the Q-Former has queries.

    Processors saved before transformers 4.45 do not say how many, and configs not which token it
    is: the model would run without its pictures. Both are taken from where they are known.

    Args:
        model: Any model; those without queries are left alone.

    Raises:
        ModelError: if processor and config contradict each other.
    """
    config, processor = getattr(model.module, "config", None), model.processor
    queries = getattr(config, "num_query_tokens", None)
    if queries is None or not hasattr(processor, "num_query_tokens"):
        return
    told = processor.num_query_tokens
    if told not in (None, queries):
        raise ModelError(
            message(
                f"num_query_tokens is {told} in the processor and {queries} in the model",
                "as many image tokens in a text as the model has queries",
                f"Write {queries} into processor_config.json, or save the right processor.",
            )
        )
    processor.num_query_tokens = queries
    _settle_image_token(model)


def _settle_image_token(model: "Model") -> None:
    config, processor = model.module.config, model.processor
    if not hasattr(config, "image_token_index"):
        return
    text = getattr(processor.image_token, "content", processor.image_token)
    token, known = processor.tokenizer.convert_tokens_to_ids(text), config.image_token_index
    rows = model.module.get_input_embeddings().num_embeddings
    if known not in (None, token) or token >= rows:
        seen = f"{known} in the model" if known is not None else f"there are {rows} embeddings"
        raise ModelError(
            message(
                f"the image token {text} is {token} in the tokenizer, {seen}",
                "one number for both, below the number of embeddings",
                "Write the tokenizer's number as image_token_index into config.json, or save the "
                "tokenizer that belongs to the model.",
            )
        )
    config.image_token_index = token


def n_samples(batch: Mapping[str, torch.Tensor]) -> int:
    """Returns the samples of a batch; a processor may join the patches of all its pictures."""
    texts = [tensor for name, tensor in batch.items() if name in ("input_ids", "labels")]
    return len((texts or list(batch.values()))[0])


def check_batch(model: "Model", batch: Mapping[str, torch.Tensor]) -> None:
    """Refuses what `check_forward` and `check_pictures` do."""
    check_pictures(model, batch, check_forward(model, batch))


@torch.no_grad()
def check_forward(model: "Model", batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
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
            message(
                f"{type(model.module).__name__} cannot run on a batch of "
                f"{', '.join(f'{name} {list(tensor.shape)}' for name, tensor in batch.items())} "
                f"({type(e).__name__}: {next(iter(str(e).splitlines()), '')})",
                "what the model's forward takes, from its own processor or tokenizer",
                "Check that processor and config agree (tokens of a picture, size of the "
                "vocabulary), and the batch's shapes.",
            )
        ) from e
    drew = not torch.equal(before, _random_state(model.device))
    if drew and not all(map(torch.equal, said, _said(model, batch))):
        raise ModelError(
            message(
                f"two forwards of {type(model.module).__name__} on one batch differ by chance",
                "models without randomness in eval mode (dropout, random masks)",
                "Switch it off in the config or in a subclass: scores of such a loss are noise.",
            )
        )
    return said


def check_rope(model: "Model", batches: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """Refuses texts for which a model's positions depend on the texts that it saw before.

    "Dynamic NTK" stretches the positions to the longest text so far.

    Args:
        model: The model.
        batches: Batches.

    Raises:
        ModelError: if batches of unlike length reach beyond the positions of such a model.
    """
    config = getattr(model.module, "config", None)
    if config is None or not _is_dynamic(config.to_dict()):
        return
    lengths = {batch["input_ids"].shape[1] for batch in batches if "input_ids" in batch}
    limit = positions(config)
    if len(lengths) > 1 and max(lengths) > limit:
        raise ModelError(
            message(
                f"texts of {min(lengths)} to {max(lengths)} tokens, of which the longest changes "
                "how the model sees the others (dynamic rope)",
                f"texts of at most {limit} tokens, or all of one length",
                "Cut the texts, or pad them to one length.",
            )
        )


def _is_dynamic(config: object) -> bool:
    """Tells whether a config, at any depth, stretches positions as texts come."""
    if not isinstance(config, Mapping):
        return False
    own = any(config.get(key) == "dynamic" for key in ("rope_type", "type"))
    return own or any(map(_is_dynamic, config.values()))


def _random_state(device: torch.device) -> torch.Tensor:
    """Returns what changes when a random number is drawn on the host or a GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


@torch.no_grad()
def check_pictures(
    model: "Model", batch: Mapping[str, torch.Tensor], said: Sequence[torch.Tensor]
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
            message(
                f"the pictures ({', '.join(pictures)}) change nothing of what "
                f"{type(model.module).__name__} says",
                "inputs whose image tokens the model looks at",
                "Check that processor and tokenizer belong to the model (number of image tokens, "
                "the token's number) and that batches were made with them.",
            )
        )


def _pictures(model: "Model", batch: Mapping[str, torch.Tensor]) -> list[str]:
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


def _said(model: "Model", batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Returns what `check_forward` does."""
    outputs: list = []
    heads: list = []
    watched = [(model.module, outputs), *((segment.module, heads) for segment in model.segments)]
    handles = [
        module.register_forward_hook(lambda *call, kept=kept: kept.append(call[-1]))
        for module, kept in (watched if _pictures(model, batch) else [])
    ]
    try:
        loss, _ = blocks.run(
            model.block_modules(),
            lambda: model.loss(batch),
            keep=lambda block: False,
            around=model.resident,
            places=blocks.Places(model.device),
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
