"""Train `demo-blip2`: vision first, then captions and questions together."""

import logging
import random
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerBase

from demo.batches import (
    EasyVqaPool,
    Text,
    caption_texts,
    draw_scenes,
    question_texts,
    to_pixels,
)
from demo.evaluate import evaluate_blip2
from demo.models import N_QUERIES, build_blip2
from demo.pretrain import N_CELLS, pretrain_vision
from demo.reading import ReadingHeads
from demo.training import Optimizer, TrainingLog

logger = logging.getLogger(__name__)

VISION_STEPS = 1500
STEPS = 3000
N_SCENES = 24
N_EASY_VQA = 8
VISION_RATE = 2e-4
LANGUAGE_RATE = 1e-3
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
    heads = ReadingHeads()
    language = [model.language_projection, model.language_model, heads]
    rates = {VISION_RATE: vision, LANGUAGE_RATE: [p for m in language for p in m.parameters()]}
    optimizer = Optimizer(rates, STEPS)
    for step in tqdm(range(1, STEPS + 1), desc="stage 2", disable=None):
        model.train()
        loss = _batch_loss(model, heads, processor.tokenizer, easy_vqa, rng)
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
    seen: Any = model.get_image_features(pixels)
    return seen.last_hidden_state[:, 1:], seen.qformer_outputs.last_hidden_state[:, :N_CELLS]


def _batch_loss(
    model: Blip2ForConditionalGeneration,
    heads: ReadingHeads,
    tokenizer: PreTrainedTokenizerBase,
    easy_vqa: EasyVqaPool,
    rng: random.Random,
) -> torch.Tensor:
    """The loss of one batch: the mean over its words, and what the reading heads add.

    Each picture is seen once for all of its texts.
    """
    chosen, images = draw_scenes(rng, N_SCENES)
    captions, questions = caption_texts(chosen, rng), question_texts(chosen, rng)
    easy_images, easy_questions = easy_vqa.sample(rng, N_EASY_VQA)
    easy_questions = [Text(t.prompt, t.target, t.picture + N_SCENES) for t in easy_questions]
    with torch.autocast("cpu", torch.bfloat16):
        seen: Any = model.get_image_features(to_pixels([*images, *easy_images]))
        features = seen.pooler_output
        of_captions, _, _ = _read(model, tokenizer, features, captions)
        of_questions, tokens, encoded = _read(
            model, tokenizer, features, [*questions, *easy_questions]
        )
        reading = heads.loss(
            words=encoded[: len(questions), N_QUERIES:],
            cells=encoded[: len(questions), :N_CELLS],
            tokens=tokens[: len(questions)],
            answers=[text.target for text in questions],
            scenes=[chosen[text.picture] for text in questions],
        )
    return torch.cat([of_captions, of_questions]).mean() + reading


def _read(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    features: torch.Tensor,
    texts: list[Text],
) -> tuple[torch.Tensor, list[list[str]], torch.Tensor]:
    """Run the language model on texts.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        features: What the language model sees of each picture, [n_pictures, Q, D].
        texts: Prompts and targets.

    Returns:
        The loss of each target word [n_words], the tokens of each prompt (P each), and the
        encoder's output [T, Q + P, D].
    """
    prompts = tokenizer([t.prompt for t in texts], padding=True, return_tensors="pt")
    targets = tokenizer([t.target for t in texts], padding=True, return_tensors="pt")
    labels = targets.input_ids.masked_fill(targets.attention_mask == 0, IGNORED)  # [T, L]
    seen = features[[t.picture for t in texts]]  # [T, Q, D]
    words = model.get_input_embeddings()(prompts.input_ids)  # [T, P, D]
    placeholders = torch.ones(len(texts), N_QUERIES, dtype=torch.long)
    output = model.language_model(
        inputs_embeds=torch.cat([seen.to(words.dtype), words], dim=1),
        attention_mask=torch.cat([placeholders, prompts.attention_mask], dim=1),
        labels=labels,
    )
    counted = labels != IGNORED
    losses = functional.cross_entropy(
        output.logits[counted].float(), labels[counted], reduction="none"
    )
    tokens: list[Any] = [tokenizer.convert_ids_to_tokens(ids) for ids in prompts.input_ids.tolist()]
    return losses, tokens, output.encoder_last_hidden_state
