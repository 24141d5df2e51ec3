"""Numbers for the demo models, measured through the shipped processors and `generate`."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn import functional
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2Processor,
    CLIPModel,
    CLIPProcessor,
)

from demo.batches import PROMPT
from ecoflap.data.builtin import easy_vqa, scenes
from ecoflap.data.builtin._scene_language import caption_forms
from ecoflap.data.picture import opened

BATCH_SIZE = 100
MAX_NEW_TOKENS = 24
_TENSORS: dict[str, Any] = {"padding": True, "return_tensors": "pt"}


@torch.no_grad()
def evaluate_blip2(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor, *, split: str, limit: int
) -> dict[str, float]:
    """Questions by kind, captions, and retrieval among hard distractors.

    Args:
        model: The model.
        processor: Its processor.
        split: "validation" or "test".
        limit: How many examples of each view (three times as many questions about scenes).
    """
    model.eval()
    easy = easy_vqa.load(split=split, view="vqa", limit=limit)
    metrics = {"easy_vqa": _mean(_vqa_hits(model, processor, easy))}
    examples = scenes.load(split=split, view="vqa", limit=3 * limit)
    hits = _vqa_hits(model, processor, examples)
    metrics["scenes_vqa"] = _mean(hits)
    groups = defaultdict(list)
    for example, hit in zip(examples, hits, strict=True):
        _, _, index, topic = example["id"].split("/")
        if topic in ("which-left", "which-right", "relation-left", "relation-right"):
            groups[f"left_right_{1 + int(index) % 3}"].append(hit)
        groups[f"{example['kind']}_{1 + int(index) % 3}"].append(hit)
    metrics |= {name: _mean(hits) for name, hits in sorted(groups.items())}
    for name in (split, "ood"):
        examples = scenes.load(split=name, view="captions", limit=limit)
        metrics[f"captions_true_{name}"] = _mean(_caption_hits(model, processor, examples))
    examples = scenes.load(split=split, view="retrieval", limit=limit)
    metrics["image_to_text"] = _mean(
        _best(_caption_scores(model, processor, [opened(e["image"])] * 8, _captions(e)))
        for e in examples
    )
    metrics["text_to_image"] = _mean(
        _best(_caption_scores(model, processor, _images(e), [e["caption"]] * 8)) for e in examples
    )
    return metrics


@torch.no_grad()
def evaluate_clip(
    model: CLIPModel, processor: CLIPProcessor, *, split: str, limit: int
) -> dict[str, float]:
    """Zero-shot classification by view, and retrieval among hard distractors."""
    model.eval()
    metrics = {}
    for view, prompt in scenes.PROMPTS.items():
        hits = []
        for e in scenes.load(split=split, view=view, limit=limit):
            texts = [prompt.format(label=label) for label in e["classes"]]
            logits = _clip_logits(model, processor, [opened(e["image"])], texts)[0]
            hits.append(e["classes"][int(logits.argmax())] == e["label"])
        metrics[view] = _mean(hits)
    examples = scenes.load(split=split, view="retrieval", limit=limit)
    metrics["image_to_text"] = _mean(
        _best(_clip_logits(model, processor, [opened(e["image"])], _captions(e))[0])
        for e in examples
    )
    metrics["text_to_image"] = _mean(
        _best(_clip_logits(model, processor, _images(e), [e["caption"]])[:, 0]) for e in examples
    )
    return metrics


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def _best(scores: torch.Tensor) -> bool:
    """Whether the first score, that of the true one, is the only highest."""
    return bool((scores[0] > scores[1:]).all())


def _captions(example: scenes.Example) -> list[str]:
    return [example["caption"], *example["other_captions"]]


def _images(example: scenes.Example) -> list[Image.Image]:
    return [opened(example["image"]), *example["other_images"]]


def _generate(
    model: Blip2ForConditionalGeneration,
    processor: Blip2Processor,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
) -> list[str]:
    texts = []
    for i in range(0, len(images), BATCH_SIZE):
        part = slice(i, i + BATCH_SIZE)
        inputs = processor(images=list(images[part]), text=list(prompts[part]), **_TENSORS)
        ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        texts += processor.batch_decode(ids, skip_special_tokens=True)
    return texts


def _vqa_hits(
    model: Blip2ForConditionalGeneration,
    processor: Blip2Processor,
    examples: Sequence[scenes.Example],
) -> list[bool]:
    prompts = [PROMPT.format(question=e["question"]) for e in examples]
    answers = _generate(model, processor, [opened(e["image"]) for e in examples], prompts)
    return [text in e["answers"] for text, e in zip(answers, examples, strict=True)]


def _caption_hits(
    model: Blip2ForConditionalGeneration,
    processor: Blip2Processor,
    examples: Sequence[scenes.Example],
) -> list[bool]:
    """Whether each caption is one of all complete and true ones, not only of the references."""
    hits = []
    texts = _generate(
        model, processor, [opened(e["image"]) for e in examples], [""] * len(examples)
    )
    for text, e in zip(texts, examples, strict=True):
        _, split, index, _ = e["id"].split("/")
        forms = caption_forms(scenes.scene_of(split, int(index)))
        hits.append(any(text in captions for captions in forms.values()))
    return hits


def _caption_scores(
    model: Blip2ForConditionalGeneration,
    processor: Blip2Processor,
    images: Sequence[Image.Image],
    captions: Sequence[str],
) -> torch.Tensor:
    """The log-likelihood of each caption given its picture and an empty prompt, [n]."""
    inputs = processor(images=list(images), text=[""] * len(images), **_TENSORS)
    targets = processor.tokenizer(list(captions), padding=True, return_tensors="pt")
    labels = targets.input_ids.masked_fill(targets.attention_mask == 0, -100)
    logits = model(**inputs, labels=labels).logits
    return -functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(-1)


def _clip_logits(
    model: CLIPModel,
    processor: CLIPProcessor,
    images: Sequence[Image.Image],
    texts: Sequence[str],
) -> torch.Tensor:
    """Similarities, [n_images, n_texts]."""
    inputs = processor(images=list(images), text=list(texts), **_TENSORS)
    return model(**inputs).logits_per_image
