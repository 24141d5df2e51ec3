"""Train `demo-clip`: vision first, then contrastively against every true and false pair."""

import logging
import random
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import CLIPModel, PreTrainedTokenizerBase

from demo.batches import caption_of, draw_scenes, to_pixels
from demo.evaluate import evaluate_clip
from demo.models import WIDTH, build_clip
from demo.pretrain import N_CELLS, pretrain_vision
from demo.training import Optimizer, TrainingLog
from ecoflap.data.builtin._scene_language import (
    RELATIONS,
    facts,
    meaning,
    names_in,
    one_word_changes,
    short_captions,
)
from ecoflap.data.builtin._scene_pictures import SEEN, Scene, draw
from ecoflap.data.builtin.scenes import changed_scenes

logger = logging.getLogger(__name__)

VISION_STEPS = 900
STEPS = 2000
N_PAIRS = 24
PEAK_RATE = 1e-3
EVALUATIONS = 5


def train_clip(folder: Path, seed: int) -> None:
    """Train from scratch and save model, processor and log.

    Args:
        folder: Where to write.
        seed: Decides weights and batches; with the same number of threads the result is the same.
    """
    torch.manual_seed(seed)
    model, processor = build_clip()
    model.set_attn_implementation("eager")  # three times as fast on a CPU at these sizes
    log = TrainingLog(folder)
    _pretrain(model, seed)
    rng = random.Random(f"clip {seed}")
    optimizer = Optimizer({PEAK_RATE: model.parameters()}, STEPS)
    for step in tqdm(range(1, STEPS + 1), desc="stage 2", disable=None):
        model.train()
        loss = _batch_loss(model, processor.tokenizer, rng)
        optimizer.step(loss)
        if step % 100 == 0:
            logger.info("step %d of %d: loss %.4f", step, STEPS, loss.item())
        if step % (STEPS // EVALUATIONS) == 0:
            metrics = evaluate_clip(model, processor, split="validation", limit=200)
            log.add(step=step, loss=loss.item(), metrics=metrics)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    model.half().save_pretrained(folder)


def _pretrain(model: CLIPModel, seed: int) -> None:
    """Stage 1; what the one vector of a picture tells must include what is where."""
    tower = model.vision_model
    places = nn.Linear(WIDTH, N_CELLS * WIDTH)

    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = tower(pixels)
        cells = places(seen.pooler_output).unflatten(1, (N_CELLS, WIDTH))  # [B, 9, D]
        return seen.last_hidden_state[:, 1:], cells

    parameters = [*tower.parameters(), *places.parameters()]
    pretrain_vision(encode, parameters, n_steps=VISION_STEPS, seed=seed)


def contrastive_loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Contrast each true pair with all false pairs of its row.

    Other true pairs of the row are no rivals, so texts that fit several pictures do no harm.

    Args:
        logits: Similarities, [n, m].
        true: Which pairs are true, [n, m]; rows without any are left out.

    Returns:
        The mean over rows of the mean over their true pairs.
    """
    rivals = logits.masked_fill(true, float("-inf")).logsumexp(dim=1, keepdim=True)  # [n, 1]
    losses = functional.softplus(rivals - logits) * true
    n_true = true.sum(dim=1)
    return (losses.sum(dim=1) / n_true.clamp(min=1)).sum() / (n_true > 0).sum()


def _batch_loss(
    model: CLIPModel, tokenizer: PreTrainedTokenizerBase, rng: random.Random
) -> torch.Tensor:
    scenes, pixels = _pairs_of_scenes(rng)
    texts = [text for scene in scenes for text in _texts_of(scene, rng)]
    known = [facts(scene) for scene in scenes]
    meanings = [meaning(text) for text in texts]
    true = torch.tensor([[atoms <= fact for atoms in meanings] for fact in known])
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.autocast("cpu", torch.bfloat16):
        features: tuple[Any, Any] = (
            model.get_image_features(pixels),
            model.get_text_features(**inputs),
        )
    seen, read = (functional.normalize(x.pooler_output.float(), dim=-1) for x in features)
    # The ceiling is CLIP's own: beyond it the softmax is as good as hard.
    logits = seen @ read.T * model.logit_scale.exp().clamp(max=100)  # [n_scenes, n_texts]
    return (contrastive_loss(logits, true) + contrastive_loss(logits.T, true.T)) / 2


def _pairs_of_scenes(rng: random.Random) -> tuple[list[Scene], torch.Tensor]:
    """Scenes, each with one that differs in one colour, shape or placement, and their pixels."""
    chosen, images = draw_scenes(rng, N_PAIRS)
    changed = []
    for scene in chosen:
        *single, swaps = changed_scenes(scene, SEEN)
        groups = [swaps] if swaps and rng.random() < 0.5 else [group for group in single if group]
        changed.append(rng.choice(rng.choice(groups)))
    images += [draw(scene, f"changed {rng.random()}") for scene in changed]
    return [*chosen, *changed], to_pixels(images)


def _texts_of(scene: Scene, rng: random.Random) -> list[str]:
    """Five texts or three: true ones of each length, and false ones that are close to true."""
    caption = caption_of(scene, rng)
    groups = [
        [text for text in group if set(names_in(text)) <= set(SEEN)]
        for group in one_word_changes(caption)
    ]
    changed = rng.choice(rng.choice([group for group in groups if group]))
    texts = [caption, changed, rng.choice(short_captions(scene))]
    if len(scene) > 1:
        # Most captions can be told apart by their things alone; these cannot.
        first, second = rng.sample(scene, 2)
        pair = rng.choice((RELATIONS[:2], RELATIONS[2:]))
        texts += [f"a {first.name} {relation} a {second.name}" for relation in pair]
    return [
        f"a picture of {text}" if not text.startswith("there") and rng.random() < 0.5 else text
        for text in texts
    ]
