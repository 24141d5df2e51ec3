"""Annotation files with nulls, wrong kinds and hidden labels: each is told by file and value."""

import json

import datasets
import pytest
from PIL import Image

from ecoflap import data
from ecoflap.data import inspect
from ecoflap.errors import DataError

QUESTION = {"image_id": 1, "question": "q?", "question_id": 10}
ANSWERS = {"question_id": 10, "answer_type": "other", "answers": [{"answer": "x"}]}
VQA = {"questions": "q.json", "annotations": "a.json", "images": "{image_id}.png"}
GQA_FILE = {"1": {"question": "q?", "answer": "x", "imageId": "1", "types": {}}}
GQA = {"questions": "g.json", "images": "{image_id}.png"}
KARPATHY = {"images": [{"filename": "a.png", "split": "train", "sentences": [{"raw": "A"}]}]}
COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}
NLVR2 = {"identifier": "dev-1-0-1", "sentence": "s"}

# layout, view, files of the split, what to write beside a good data set, what is said
BROKEN = [
    ("vqa", "vqa", {**VQA, "images": "{imageid}.png"}, {}, "pattern '{imageid}.png'"),
    ("vqa", "vqa", {**VQA, "images": "{image_id:q}.png"}, {}, "does not fit 1"),
    ("vqa", "vqa", VQA, {"a.json": {"annotations": {"a": 1}}}, "'annotations' .* is dict"),
    (
        "vqa",
        "vqa",
        VQA,
        {"a.json": {"annotations": [{**ANSWERS, "answers": None}]}},
        "'answers' .* is None",
    ),
    (
        "vqa",
        "vqa",
        VQA,
        {"a.json": {"annotations": [{**ANSWERS, "answers": [{"answer": None}]}]}},
        "has no or empty",
    ),
    ("vqa", "vqa", VQA, {"q.json": [1, 2]}, "q.json is list"),
    ("vqa", "vqa", {**VQA, "questions": "."}, {}, "Is a directory"),
    ("gqa", "vqa", GQA, {"g.json": [1]}, "g.json is list"),
    ("gqa", "vqa", {"questions": "g.json"}, {"g.json": GQA_FILE}, "no 'images' among the files"),
    ("karpathy", "captions", {"captions": "k.json"}, {"k.json": KARPATHY}, "no 'split' among"),
    (
        "karpathy",
        "captions",
        {"captions": "k.json", "split": "tran"},
        {"k.json": KARPATHY},
        "no split 'tran' .*Did you mean 'train'",
    ),
    ("coco-captions", "captions", {"captions": "c.json"}, {"c.json": COCO}, "has no or empty"),
    (
        "nlvr2",
        "pairs",
        {"sentences": "n.jsonl"},
        {"n.jsonl": {**NLVR2, "label": "maybe"}},
        "dev-1-0-1 .* has the label 'maybe'",
    ),
    ("nlvr2", "pairs", {"sentences": "n.jsonl"}, {"n.jsonl": NLVR2}, "no key 'label'"),
    ("nlvr2", "pairs", {"sentences": "n.jsonl"}, {"n.jsonl": [1]}, "no key 'identifier'"),
    ("class-folders", "classes", {"images": "nowhere"}, {}, "nowhere is missing"),
    (
        "class-folders",
        "classes",
        {"images": ".", "classes": "c.json"},
        {"c.json": ["b"]},
        "c.json is list",
    ),
    (
        "coop",
        "classes",
        {"split_file": "s.json", "part": "test"},
        {"s.json": {"train": [], "test": [["a.png", 0]]}},
        "'test' of .* has the row",
    ),
    (
        "coop",
        "classes",
        {"split_file": "s.json", "part": "tran"},
        {"s.json": {"train": []}},
        "no part 'tran' .*Did you mean 'train'",
    ),
    (
        "fgvc-aircraft",
        "classes",
        {"list": "l.txt", "classes": "v.txt"},
        {"l.txt": "a 707-32", "v.txt": "707-320"},
        "no class '707-32' .*Did you mean '707-320'",
    ),
    ("image-text", "captions", {"captions": "m.json"}, {"m.json": {"a": "b"}}, "m.json is dict"),
    (
        "image-text",
        "captions",
        {"captions": "m.csv"},
        {"m.csv": "image,caption\na.png\n"},
        "has no or empty",
    ),
    ("image-text", "captions", {"images": "nope"}, {}, "nope is missing"),
    ("image-text", "captions", {}, {"a.txt": b"caf\xe9"}, "a.txt is no text in UTF-8"),
    ("image-text", "captions", {}, {}, "no examples of 'x'"),
    ("hub", "text", {"split": "tst"}, {}, "cannot read"),
]


@pytest.mark.parametrize(("layout", "view", "files", "content", "said"), BROKEN)
def test_what_is_wrong_is_told_by_name(tmp_path, layout, view, files, content, said):
    for name in ("a.png", "1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    good = {"q.json": {"questions": [QUESTION]}, "a.json": {"annotations": [ANSWERS]}}
    for name, value in (content if layout not in ("vqa", "gqa") else good | content).items():
        encoded = value if isinstance(value, bytes) else _text(value).encode()
        (tmp_path / name).write_bytes(encoded)
    entry = {"name": "x", "split": "s", "view": view, "layout": layout, "folder": str(tmp_path)}
    with pytest.raises(DataError, match=f"(?s){said}"):
        inspect.check({**entry, **({"files": files} if files else {})})


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


TEXT, PICTURE = datasets.Value("string"), datasets.Image()
CLASSES = datasets.ClassLabel(names=["cat", "dog"])
TABLES = [
    ("captions", {"image": (PICTURE, None), "captions": (TEXT, "a")}, "cannot be read"),
    ("captions", {"image": (PICTURE, "a.png"), "captions": (TEXT, None)}, "has no or empty"),
    (
        "captions",
        {"image": (PICTURE, "a.png"), "captions": (datasets.List(TEXT), ["a", None])},
        "has no or empty",
    ),
    ("captions", {"image": (datasets.Value("int64"), 1), "captions": (TEXT, "a")}, "not pictures"),
    ("classes", {"image": (PICTURE, "a.png"), "label": (CLASSES, -1)}, r"has no label \(-1\)"),
    ("classes", {"image": (PICTURE, "a.png"), "label": (TEXT, None)}, r"has no label \(None\)"),
    ("text", {"text": (TEXT, None)}, "no examples of 'x'"),
]


@pytest.mark.parametrize(("view", "columns", "said"), TABLES)
def test_what_is_wrong_with_a_table_of_the_hub_is_told(tmp_path, monkeypatch, view, columns, said):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a.png")
    kinds = datasets.Features({name: kind for name, (kind, _) in columns.items()})
    rows = {name: [value] for name, (_, value) in columns.items()}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet("hub/test.parquet")
    entry = {"name": "x", "split": "test", "view": view, "layout": "hub", "folder": "hub"}
    with pytest.raises(DataError, match=said):
        inspect.check(entry)


def test_answers_may_be_one_object_of_lists(tmp_path):
    answers = {"answer": datasets.List(TEXT), "confidence": datasets.List(TEXT)}
    kinds = datasets.Features({"image": PICTURE, "question": TEXT, "answers": answers})
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = {
        "image": [str(tmp_path / "a.png")],
        "question": ["q?"],
        "answers": [{"answer": ["x", "y"], "confidence": ["yes", "no"]}],
    }
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(tmp_path / "test.parquet")
    entry = {"name": "x", "split": "test", "view": "vqa", "layout": "hub", "folder": str(tmp_path)}
    assert data.load(entry)[0]["answers"] == ["x", "y"]
