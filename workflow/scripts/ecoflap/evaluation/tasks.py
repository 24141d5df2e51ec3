"""Runs a model on a task; every kind of task returns predictions of one shape.

Columns: ``id``, ``subset`` (kind of question, direction of retrieval, or empty), ``text`` (what
the model said), ``references`` (what would be right), ``values`` (numbers it gave).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from tqdm import tqdm

from ecoflap import data
from ecoflap.data.encoding import naming
from ecoflap.data.picture import opened
from ecoflap.data.wording import worded
from ecoflap.errors import DataError
from ecoflap.evaluation import multiple_choice
from ecoflap.evaluation.answers import highest
from ecoflap.evaluation.captions import need_words
from ecoflap.models.adapters._contrastive import unit

if TYPE_CHECKING:
    from ecoflap.models.abilities import Judging, Matching, Reading, Writing
    from ecoflap.models.adapters._contrastive import Contrastive
    from ecoflap.models.model import Model

log = logging.getLogger(__name__)
COLUMNS = ["id", "subset", "text", "references", "values"]
BATCH_SIZE = 64
MOST_VALUES = 100  # numbers kept per prediction; ImageNet's thousand would fill the disk


def predict(model: "Model", task: Mapping) -> pd.DataFrame:
    """Runs a task.

    Args:
        model: A model with the methods that the kind of task needs.
        task: A config entry: ``kind``, ``dataset``, and the settings of its kind.

    Returns:
        One row per prediction.
    """
    if "dataset" not in task:
        rows = multiple_choice.answers(model, task)
    else:
        rows = KINDS[task["kind"]](model, data.load(task["dataset"]), task)
    return pd.DataFrame(rows, columns=COLUMNS)


def _chunks(items: Sequence | torch.Tensor, label: str, size: int = BATCH_SIZE) -> Iterator[Any]:
    starts = range(0, len(items), size)
    for start in tqdm(starts, desc=label, unit="batch", disable=None):
        yield items[start : start + size]


def search(task: Mapping) -> dict:
    """Returns how text is generated."""
    keys = ("max_new_tokens", "min_new_tokens", "beams", "length_penalty")
    return {key: task[key] for key in keys if key in task}


def _vqa(model: "Writing", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    for chunk in _chunks(examples, "vqa"):
        answers = naming(chunk, partial(_answers, model, task))
        for example, answer in zip(chunk, answers, strict=True):
            yield example["id"], example["kind"], answer, example["answers"], []


def _answers(model: "Writing", task: Mapping, examples: Sequence[Mapping]) -> list[str]:
    """Answers the questions of examples, or describes their pictures."""
    prompts = [task["prompt"]] * len(examples)
    if task["kind"] == "vqa":
        questions = [worded(e["question"], task) for e in examples]
        prompts = [task["prompt"].format(question=question) for question in questions]
    return model.generate([opened(e["image"]) for e in examples], prompts, **search(task))


def _captioning(model: "Writing", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    need_words((example["id"], example["captions"]) for example in examples)
    for chunk in _chunks(examples, "captioning"):
        captions = naming(chunk, partial(_answers, model, task))
        for example, caption in zip(chunk, captions, strict=True):
            yield example["id"], example.get("kind", ""), caption, example["captions"], []


def _retrieval(model: "Writing", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    """Ranks by the likelihood of the caption; the true candidate always comes first."""
    for chunk in _chunks(examples, "retrieval", 8):
        queries = []
        for example in chunk:
            image, caption = opened(example["image"]), example["caption"]
            captions = [(image, other) for other in [caption, *example["other_captions"]]]
            images = [(other, caption) for other in [image, *example["other_images"]]]
            queries += [(example, "image-to-text", captions), (example, "text-to-image", images)]
        pairs = [
            {"id": example["id"], "image": image, "caption": caption}
            for example, _, candidates in queries
            for image, caption in candidates
        ]
        values = naming(pairs, partial(_likelihoods, model, task))
        for example, subset, candidates in queries:
            own, values = values[: len(candidates)], values[len(candidates) :]
            yield example["id"], subset, "", [example["caption"]], own


def _likelihoods(model: "Writing", task: Mapping, pairs: Sequence[Mapping]) -> list[float]:
    images, captions = ([pair[key] for pair in pairs] for key in ("image", "caption"))
    return model.log_likelihood(images, [task["prompt"]] * len(pairs), captions)


def _image_features(model: "Contrastive", examples: Sequence[Mapping]) -> torch.Tensor:
    return naming(examples, lambda part: model.image_features([e["image"] for e in part]))


def _text_features(model: "Contrastive", texts: Sequence[Mapping]) -> torch.Tensor:
    return naming(texts, lambda part: model.text_features([e["text"] for e in part]))


def _similarity(model: "Matching", examples: Sequence[Mapping]) -> torch.Tensor:
    captions = [text for e in examples for text in e["captions"]]
    return model.similarity([e["image"] for e in examples], captions)


def _classification(model: "Contrastive", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    """Compares each picture with its classes; several templates of one class are averaged.

    A model that gives numbers to no class, or infinite ones, names none.
    """
    templates = task.get("prompts") or [task["prompt"]]
    names = list(dict.fromkeys(name for example in examples for name in example["classes"]))
    features = [
        _text_features(model, [{"id": n, "text": template.format(label=n)} for n in names])
        for template in templates
    ]
    mean = unit(torch.stack(features).mean(0)) if len(templates) > 1 else features[0]
    place = {name: index for index, name in enumerate(names)}
    for chunk in _chunks(examples, "classification"):
        logits = model.compare(_image_features(model, chunk), mean)
        for example, row in zip(chunk, logits.tolist(), strict=True):
            values = [row[place[name]] for name in example["classes"]]
            best = highest(values)
            text = "" if best is None else example["classes"][best]
            kept = values if len(values) <= MOST_VALUES else []
            yield example["id"], "", text, [example["label"]], kept


def _corpus_retrieval(model: "Matching", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    """Ranks all captions for each picture and all pictures for each caption.

    What a matching model is shown (Li et al. 2021, 2023): the ``shortlist`` nearest candidates by
    similarity, ranked anew by similarity plus matching logit, before all others. A candidate that
    ties with the true one counts as better, and so does one whose score is no number. Values are
    the rank and the last one that could be.
    """
    examples = [{**e, "captions": [worded(c, task) for c in e["captions"]]} for e in examples]
    captions = [(owner, text) for owner, e in enumerate(examples) for text in e["captions"]]
    images, texts = [e["image"] for e in examples], [text for _, text in captions]
    owners = torch.tensor([owner for owner, _ in captions])
    shared = len({text for _, text in captions}) - len(set(captions))
    if shared:
        log.warning("%d captions are those of several pictures: each such tie is a miss", -shared)
    similarity = naming(examples, partial(_similarity, model))  # [images, texts]
    shortlist = task.get("shortlist", 0) if hasattr(model, "match") else 0
    broken = 0
    for index in tqdm(range(len(images)), desc="image to text", disable=None):
        row = _reranked(
            similarity[index],
            shortlist,
            lambda near, index=index: model.match(
                [images[index]] * len(near), [texts[i] for i in near]
            ),
        )
        broken += bool(row.isnan().any())
        yield examples[index]["id"], "image-to-text", "", [], _rank(row, owners == index)
    for index in tqdm(range(len(texts)), desc="text to image", disable=None):
        column = _reranked(
            similarity[:, index],
            shortlist,
            lambda near, index=index: model.match(
                [images[i] for i in near], [texts[index]] * len(near)
            ),
        )
        broken += bool(column.isnan().any())
        true = torch.arange(len(images)) == owners[index]
        name = f"{examples[owners[index]]['id']}/caption-{index}"
        yield name, "text-to-image", texts[index], [], _rank(column, true)
    if broken:
        count = len(images) + len(texts)
        log.warning("%d of %d queries have scores that are no numbers", broken, count)


def _reranked(
    similarity: torch.Tensor, shortlist: int, match: Callable[[list[int]], list[float]]
) -> torch.Tensor:
    """Returns scores [candidates] in which the shortlist comes first."""
    if not shortlist:
        return similarity
    near = similarity.topk(min(shortlist, len(similarity))).indices
    scores = torch.full_like(similarity, float("-inf"))
    scores[near] = similarity[near] + torch.tensor(match(near.tolist()))
    return scores


def _rank(scores: torch.Tensor, true: torch.Tensor) -> list[float]:
    """Returns the rank of the best true candidate, from 1, and the last one that it could have.

    Ties and scores that are no numbers count against it.
    """
    last = 1.0 + (~true).sum().item()
    best = scores[true].nan_to_num(float("-inf"), float("inf"), float("-inf")).max()
    if best == float("-inf"):
        return [last, last]  # it is not on the shortlist
    others = scores[~true]
    return [1.0 + ((others >= best) | others.isnan()).sum().item(), last]


def _image_pair(model: "Judging", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    """Asks whether a sentence is true of two pictures; a model may have no answer."""
    for chunk in _chunks(examples, "pairs"):
        found = naming(chunk, partial(_judgements, model))
        for example, true in zip(chunk, found, strict=True):
            yield example["id"], "", "" if true is None else str(true), [example["label"]], []


def _judgements(model: "Judging", examples: Sequence[Mapping]) -> list[bool | None]:
    left, right = ([opened(e["images"][side]) for e in examples] for side in (0, 1))
    return model.judge(left, right, [e["text"] for e in examples])


def _perplexity(model: "Reading", examples: list[dict], task: Mapping) -> Iterator[tuple]:
    if task["window"] < 2:
        raise DataError(
            f"windows of {task['window']} token(s)",
            allowed="at least 2: the first token of a window is predicted from nothing",
            fix="Raise window.",
        )
    special = task.get("special_tokens", False)
    found = [(e["id"], model.windows(e["text"], task["window"], special)) for e in examples]
    named = [(f"{name}/window-{i}", one) for name, cut in found for i, one in enumerate(cut)]
    wanted = task.get("windows", max(1, len(named)))
    if len(named) < wanted:
        raise DataError(
            f"{wanted} windows of {len(found)} text(s) asked for, {len(named)} found",
            allowed=f"at most {len(named)}",
            fix="Lower windows or window, or use longer texts.",
        )
    short = sum(not len(cut) for _, cut in found)
    if short:
        log.warning("%d of %d texts are shorter than a window, and left out", short, len(found))
    names, windows = zip(*named[:wanted], strict=True)
    chunks = _chunks(torch.stack(windows), "windows", 4)
    losses = torch.cat([model.negative_log_likelihood(chunk) for chunk in chunks]).tolist()
    for name, loss in zip(names, losses, strict=True):
        yield name, "", "", [], [loss, float(task["window"] - 1)]


KINDS: dict[str, Callable] = {
    "vqa": _vqa,
    "captioning": _captioning,
    "retrieval": _retrieval,
    "corpus-retrieval": _corpus_retrieval,
    "classification": _classification,
    "image-pair": _image_pair,
    "perplexity": _perplexity,
}
