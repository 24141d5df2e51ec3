"""Train `demo-blip2`: vision first, then captions and questions together."""

import logging
import random
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerBase

from ecoflap.demo.batches import (
    EasyVqaPool,
    Text,
    caption_texts,
    draw_scenes,
    question_texts,
    to_pixels,
)
from ecoflap.demo.evaluate import evaluate_blip2
from ecoflap.demo.models import N_QUERIES, build_blip2
from ecoflap.demo.pretrain import N_CELLS, pretrain_vision
from ecoflap.demo.training import Optimizer, TrainingLog

logger = logging.getLogger(__name__)

VISION_STEPS = 1500
STEPS = 3600
N_SCENES = 24
N_EASY_VQA = 8
VISION_RATE = 2e-4
LANGUAGE_RATE = 5e-4  # with 1e-3 it takes longer, with 3e-3 it never learns to bind words
EVALUATIONS = 6
IGNORED = -100


def train_blip2(folder: Path, seed: int) -> None:
    """Train from scratch and save model, processor and log.

    Args:
        folder: Where to write.
        seed: Decides weights and batches; with the same number of threads the result is the same.
    """
    torch.manual_seed(seed)
    model, processor = build_blip2()
    model.set_attn_implementation("eager")  # three times as fast on a CPU at these sizes
    log = TrainingLog(folder)
    vision = [*model.vision_model.parameters(), *model.qformer.parameters(), model.query_tokens]
    pretrain_vision(lambda pixels: _see(model, pixels), vision, n_steps=VISION_STEPS, seed=seed)
    rng = random.Random(f"blip2 {seed}")
    easy_vqa = EasyVqaPool()
    rates = {
        VISION_RATE: vision,
        LANGUAGE_RATE: [
            *model.language_projection.parameters(),
            *model.language_model.parameters(),
        ],
    }
    optimizer = Optimizer(rates, STEPS)
    for step in tqdm(range(1, STEPS + 1), desc="stage 2", disable=None):
        model.train()
        loss = _batch_loss(model, processor.tokenizer, easy_vqa, rng)
        optimizer.step(loss)
        if step % 100 == 0:
            logger.info("step %d of %d: loss %.4f", step, STEPS, loss.item())
        if step % (STEPS // EVALUATIONS) == 0:
            metrics = evaluate_blip2(model, processor, split="validation", limit=200)
            log.add(step=step, loss=loss.item(), metrics=metrics)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    model.half().save_pretrained(folder)


def _see(
    model: Blip2ForConditionalGeneration, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch features [B, 64, D] and, one for each cell, those of the first queries [B, 9, D]."""
    seen = model.get_image_features(pixels)
    return seen.last_hidden_state[:, 1:], seen.qformer_outputs.last_hidden_state[:, :N_CELLS]


def _batch_loss(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    easy_vqa: EasyVqaPool,
    rng: random.Random,
) -> torch.Tensor:
    """The mean loss of one batch's words; each picture is seen once for all of its texts."""
    chosen, images = draw_scenes(rng, N_SCENES)
    captions, questions = caption_texts(chosen, rng), question_texts(chosen, rng)
    easy_images, easy_questions = easy_vqa.sample(rng, N_EASY_VQA)
    questions += [Text(t.prompt, t.target, t.picture + N_SCENES) for t in easy_questions]
    with torch.autocast("cpu", torch.bfloat16):
        features = model.get_image_features(to_pixels([*images, *easy_images])).pooler_output
        losses = [_word_losses(model, tokenizer, features, t) for t in (captions, questions)]
    return torch.cat(losses).mean()


def _word_losses(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    features: torch.Tensor,
    texts: list[Text],
) -> torch.Tensor:
    """The loss of each target word, [n_words].

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        features: What the language model sees of each picture, [n_pictures, Q, D].
        texts: Prompts and targets.
    """
    prompts = tokenizer([t.prompt for t in texts], padding=True, return_tensors="pt")
    targets = tokenizer([t.target for t in texts], padding=True, return_tensors="pt")
    labels = targets.input_ids.masked_fill(targets.attention_mask == 0, IGNORED)  # [T, L]
    seen = features[[t.picture for t in texts]]  # [T, Q, D]
    words = model.get_input_embeddings()(prompts.input_ids)  # [T, P, D]
    placeholders = torch.ones(len(texts), N_QUERIES, dtype=torch.long)
    logits = model.language_model(
        inputs_embeds=torch.cat([seen.to(words.dtype), words], dim=1),
        attention_mask=torch.cat([placeholders, prompts.attention_mask], dim=1),
        labels=labels,
    ).logits  # [T, L, V]
    counted = labels != IGNORED
    return functional.cross_entropy(logits[counted].float(), labels[counted], reduction="none")
