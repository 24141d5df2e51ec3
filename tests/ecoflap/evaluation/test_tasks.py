"""Kinds of tasks against brute force, plain transformers and likelihoods worked by hand."""

import json
import math

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from ecoflap import data, models
from ecoflap.data.picture import opened
from ecoflap.errors import DataError
from ecoflap.evaluation import metrics, tasks
from ecoflap.models.adapters.generic import Adapter as T5Adapter
from helpers import tiny
from helpers.configs import ROOT

DEMO = ROOT / "workflow" / "resources" / "demo"


def run(monkeypatch, model, examples, **task):
    monkeypatch.setattr(data, "load", lambda _: examples)
    frame = tasks.predict(model, {"dataset": {}, **task})
    return frame, {row["metric"]: row["value"] for row in metrics.compute(task, frame)}


class Matcher:
    """A retrieval model whose numbers are given; pictures are their indices."""

    def __init__(self, similarity, matching=None):
        self.table, self.matching, self.asked = similarity, matching, 0
        if matching is not None:
            self.match = self._match

    def similarity(self, images, texts):
        """Looks the numbers up."""
        return self.table

    def _match(self, images, texts):
        self.asked += len(images)
        pairs = zip(images, texts, strict=True)
        return [self.matching[i, int(t)].item() for i, t in pairs]


def corpus(n_images, n_captions):
    captions = [str(i) for i in range(n_images * n_captions)]
    return [
        {"id": str(i), "image": i, "captions": captions[i * n_captions : (i + 1) * n_captions]}
        for i in range(n_images)
    ]


@pytest.mark.parametrize("shortlist", [0, 4, 100])
def test_retrieval_among_all_candidates_by_sorting(monkeypatch, shortlist):
    generator = torch.Generator().manual_seed(shortlist)
    similarity, matching = (torch.randn(6, 18, generator=generator) for _ in range(2))
    model = Matcher(similarity, matching if shortlist else None)
    task = {"kind": "corpus-retrieval", **({"shortlist": shortlist} if shortlist else {})}
    frame, found = run(monkeypatch, model, corpus(6, 3), **task)

    def ranks(scores, extra, true):
        near = sorted(range(len(scores)), key=lambda i: -scores[i])
        near = near[: shortlist or None]
        if shortlist:
            near = sorted(near, key=lambda i: -(scores[i] + extra[i]))
        hits = [place for place, index in enumerate(near, 1) if index in true]
        return hits[0] if hits else float("inf")

    to_text = [
        ranks(similarity[i].tolist(), matching[i].tolist(), {3 * i, 3 * i + 1, 3 * i + 2})
        for i in range(6)
    ]
    to_image = [
        ranks(similarity[:, t].tolist(), matching[:, t].tolist(), {t // 3}) for t in range(18)
    ]
    for at in (1, 5):
        assert found[f"tr{at}"] == pytest.approx(sum(r <= at for r in to_text) / 6)
        assert found[f"ir{at}"] == pytest.approx(sum(r <= at for r in to_image) / 18)
    assert frame["id"].is_unique
    if shortlist:
        assert model.asked == 6 * min(shortlist, 18) + 18 * min(shortlist, 6)


def test_a_tie_counts_against_the_model(monkeypatch):
    _, found = run(monkeypatch, Matcher(torch.zeros(2, 2)), corpus(2, 1), kind="corpus-retrieval")
    assert found["tr1"] == found["ir1"] == 0
    assert found["tr5"] is None  # of two candidates


@pytest.mark.parametrize("shortlist", [0, 4])
def test_scores_that_are_no_numbers_rank_last(monkeypatch, shortlist, caplog):
    """All but one: its row is of numbers, so its caption is first but for the columns' nan."""
    broken = torch.full((6, 6), math.nan)
    task = {"kind": "corpus-retrieval", **({"shortlist": shortlist} if shortlist else {})}
    frame, found = run(monkeypatch, Matcher(broken, broken), corpus(6, 1), **task)
    assert found["tr1"] == found["tr5"] == found["ir1"] == found["ir5"] == 0
    assert [values[0] for values in frame["values"]] == [6.0] * 12
    assert "12 of 12 queries have scores that are no numbers" in caplog.text


def test_a_candidate_whose_score_is_no_number_counts_as_better(monkeypatch):
    similarity = torch.eye(3)
    similarity[0, 1] = math.nan
    frame, _ = run(monkeypatch, Matcher(similarity), corpus(3, 1), kind="corpus-retrieval")
    # Of picture 0 the second caption is better, of caption 1 the first picture.
    assert [values[0] for values in frame["values"]] == [2, 1, 1, 1, 2, 1]


class Classifier:
    """Gives the same logits to every picture."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits)

    def text_features(self, texts):
        """One row a text."""
        return torch.zeros(len(texts), 1)

    def image_features(self, images):
        """One row a picture."""
        return torch.zeros(len(images), 1)

    def compare(self, images, texts):
        """Looks the logits up."""
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        ([math.nan] * 2, ""),
        ([math.nan, 1.0], ""),
        ([1.0, math.nan], ""),
        ([math.inf] * 2, ""),
        ([-math.inf] * 2, ""),
        ([-math.inf, 1.0], "b"),
        ([2.0, 1.0], "a"),
    ],
)
def test_logits_that_are_no_numbers_choose_no_class(monkeypatch, logits, said):
    examples = [{"id": "1", "image": None, "classes": ["a", "b"], "label": "a"}]
    task = {"kind": "classification", "prompt": "{label}"}
    frame, found = run(monkeypatch, Classifier(logits), examples, **task)
    assert frame["text"].tolist() == [said]
    assert found["accuracy"] == (said == "a")


def test_a_caption_without_words_is_refused_before_anything_is_generated(monkeypatch):
    examples = [{"id": "1", "image": None, "captions": ["..."]}]
    with pytest.raises(DataError, match="the picture 1 has the caption"):
        run(monkeypatch, None, examples, kind="captioning", prompt="")


@pytest.fixture(scope="module")
def clip():
    return models.load(DEMO / "demo-clip", device="cpu")


def shapes():
    found = data.load({"name": "scenes", "split": "validation", "view": "shape", "limit": 70})
    return [{**example, "image": opened(example["image"])} for example in found]


def test_similarity_in_chunks_is_that_of_one_plain_forward(clip):
    images = [example["image"] for example in shapes()]
    texts = ["a red circle", "a picture of a triangle"]
    inputs = clip.processor(images=images, text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = clip.module(**inputs).logits_per_image
    assert torch.allclose(clip.similarity(images, texts), expected, rtol=1e-4, atol=1e-4)


def test_several_templates_of_a_class_are_averaged(clip, monkeypatch):
    templates = ["a picture of a {label}", "a {label} shape", "{label}"]
    task = {"kind": "classification", "prompts": templates}
    frame, _ = run(monkeypatch, clip, shapes(), **task)
    classes = shapes()[0]["classes"]
    embeddings = []
    for name in classes:
        texts = [template.format(label=name) for template in templates]
        inputs = clip.processor(text=texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            found = clip.module.get_text_features(**inputs).pooler_output
        found = torch.nn.functional.normalize(found, dim=-1).mean(0)
        embeddings.append(torch.nn.functional.normalize(found, dim=-1))
    for example, said in zip(shapes(), frame["text"], strict=True):
        inputs = clip.processor(images=[example["image"]], return_tensors="pt")
        with torch.no_grad():
            (image,) = clip.module.get_image_features(**inputs).pooler_output
        assert said == classes[int((torch.stack(embeddings) @ image).argmax())]


def test_pairs_of_pictures_are_judged(monkeypatch):
    class Judge:
        def judge(self, left, right, texts):
            pairs = zip(left, right, strict=True)
            found = [a.getpixel((0, 0)) == b.getpixel((0, 0)) for a, b in pairs]
            return [None if text == "?" else true for text, true in zip(texts, found, strict=True)]

    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    rows = [((red, red), "True"), ((red, blue), "True"), ((blue, red), "False")]
    examples = [
        {"id": str(i), "images": list(pair), "text": "the same", "label": label}
        for i, (pair, label) in enumerate(rows)
    ]
    frame, found = run(monkeypatch, Judge(), examples, kind="image-pair")
    assert frame["text"].tolist() == ["True", "False", "False"]
    assert found["accuracy"] == pytest.approx(2 / 3)
    for example in examples:
        example["text"] = "?"  # without an answer, as of logits that are no numbers
    frame, found = run(monkeypatch, Judge(), examples, kind="image-pair")
    assert frame["text"].tolist() == ["", "", ""]
    assert found["accuracy"] == 0


TEXT = "what is one two three yes no red blue A B : ? answer <s> </s> <pad> <unk>"
WORDS = TEXT.split()


def tokenizer():
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    inner = Tokenizer(tokenizer_models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


@pytest.fixture
def harness_task(tmp_path):
    rows = [
        {"question": "what is one ?", "choices": ["red", "blue", "yes"], "answer": 2},
        {"question": "what is two ?", "choices": ["no", "yes", "three"], "answer": 0},
    ]
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "small.yaml").write_text(
        f"""
task: small_choices
dataset_path: json
dataset_kwargs:
  data_files: {{test: {tmp_path / "rows.json"}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} answer :"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""
    )
    return rows, {
        "kind": "multiple-choice",
        "task": "small_choices",
        "shots": 0,
        "include_path": str(tmp_path),
    }


def t5_model():
    config = T5Config(
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        vocab_size=tiny.VOCABULARY,
        decoder_start_token_id=0,
        pad_token_id=WORDS.index("<pad>"),
        eos_token_id=WORDS.index("</s>"),
    )
    return T5Adapter(tiny.randomize(T5ForConditionalGeneration(config)), None)


def by_hand(model, words, row):
    """Log-likelihood of each choice after the question, a token at a time."""
    prompt = words(f"{row['question']} answer :")["input_ids"]
    found = []
    for choice in row["choices"]:
        target = words(choice)["input_ids"]
        with torch.no_grad():
            if model.module.config.is_encoder_decoder:
                ids, labels = torch.tensor([prompt]), torch.tensor([target])
                logits = model.module(input_ids=ids, labels=labels).logits[0]
            else:
                ids = torch.tensor([prompt + target])
                logits = model.module(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        chosen = logits.log_softmax(-1)[torch.arange(len(target)), target]
        found.append(chosen.sum().item())
    return found


@pytest.mark.parametrize("build", [tiny.llama_model, t5_model])
def test_multiple_choice_by_likelihoods_worked_by_hand(build, harness_task):
    rows, task = harness_task
    model = build()
    model.processor = tokenizer()
    frame = tasks.predict(model, task)
    for row, values, said in zip(rows, frame["values"], frame["text"], strict=True):
        expected = by_hand(model, model.processor, row)
        assert values == pytest.approx(expected, rel=1e-4)
        assert int(said) == expected.index(max(expected))
    right = [int(said) == row["answer"] for row, said in zip(rows, frame["text"], strict=True)]
    whole, subject = metrics.compute(task, frame)
    assert whole["value"] == sum(right) / 2
    assert subject["subset"] == "small_choices"


class Spelling:
    """A tokenizer for which each word is its number."""

    def __call__(self, text, **_):
        """Reads the numbers."""
        return {"input_ids": [int(word) for word in text.split()]}


def test_perplexity_is_a_plain_sum_over_tokens(monkeypatch):
    model = tiny.llama_model()
    model.processor = Spelling()
    words = torch.randint(0, 40, (29,), generator=torch.Generator().manual_seed(3)).tolist()
    text = {"id": "text", "text": " ".join(map(str, words))}
    _, found = run(monkeypatch, model, [text], kind="perplexity", window=7)
    total = count = 0
    for start in range(0, 28, 7):  # the last word fills no window
        for length in range(1, 7):
            ids = torch.tensor([words[start : start + length]])
            with torch.no_grad():
                logits = model.module(input_ids=ids).logits[0, -1]
            total -= logits.double().log_softmax(-1)[words[start + length]].item()
            count += 1
    assert count == 24
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"window": 1}, "windows of 1 token"),
        ({"window": 30}, r"1 windows of 1 text.s. asked for, 0"),
    ],
)
def test_windows_in_which_nothing_is_predicted_are_refused(monkeypatch, settings, problem):
    model = tiny.llama_model()
    model.processor = Spelling()
    text = {"id": "text", "text": "1 2 3"}
    with pytest.raises(DataError, match=problem):
        run(monkeypatch, model, [text], kind="perplexity", **settings)


@pytest.mark.parametrize("build", [tiny.llama_model, t5_model])
def test_a_destroyed_model_is_right_nowhere(build, harness_task, monkeypatch):
    _, task = harness_task
    model = build()
    model.processor = tokenizer()
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.fill_(math.nan)
    whole, _ = metrics.compute(task, tasks.predict(model, task))
    assert whole["value"] == 0
    assert "2 of 2 have values that are no numbers" in whole["note"]


def test_a_task_that_lm_eval_does_not_know_is_told():
    model = tiny.llama_model()
    model.processor = tokenizer()
    task = {"kind": "multiple-choice", "task": "no_such_task", "shots": 0}
    with pytest.raises(DataError, match="lm-eval cannot run the task 'no_such_task'"):
        tasks.predict(model, task)


def test_windows_are_counted_over_all_texts(monkeypatch, caplog):
    """Texts of 5, 1 and 4 tokens in windows of 2: two, none and two."""

    class Model:
        def windows(self, text, length, special_tokens):
            tokens = torch.tensor([int(word) for word in text.split()])
            count = len(tokens) // length
            return tokens[: count * length].reshape(count, length)

        def negative_log_likelihood(self, tokens):
            return tokens[:, 1].double()

    texts = ["1 2 3 4 5", "6", "7 8 9 10"]
    examples = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    task = {"kind": "perplexity", "window": 2}
    everything, _ = run(monkeypatch, Model(), examples, **task)
    assert everything["id"].tolist() == ["0/window-0", "0/window-1", "2/window-0", "2/window-1"]
    assert [values[0] for values in everything["values"]] == [2, 4, 8, 10]
    assert "1 of 3 texts are shorter than a window" in caplog.text
    three, _ = run(monkeypatch, Model(), examples, **task, windows=3)
    assert three["id"].tolist() == ["0/window-0", "0/window-1", "2/window-0"]
    with pytest.raises(DataError, match=r"5 windows of 3 text.s. asked for, 4 found"):
        run(monkeypatch, Model(), examples, **task, windows=5)
