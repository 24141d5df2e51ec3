"""Annotation files in which one value after another is of another type: an error, or a right text.

A right text is one that stands in the file: the words of a text or the digits of a number.
"""

import copy
import json

import datasets
import pytest
from PIL import Image

from ecoflap import data
from ecoflap.data import inspect
from ecoflap.errors import DataError

ANSWERS = [{"answer": "red", "answer_id": 1}, {"answer": "blue", "answer_id": 2}]
NAME = {"name": "x", "split": "s"}
# layout: view, files of the split, what each file holds
GOOD = {
    "vqa": (
        "vqa",
        {"questions": "q.json", "annotations": "a.json", "images": "{image_id}.png"},
        {
            "q.json": {"questions": [{"question_id": 1, "image_id": 5, "question": "what ?"}]},
            "a.json": {
                "annotations": [{"question_id": 1, "answer_type": "other", "answers": ANSWERS}]
            },
        },
    ),
    "gqa": (
        "vqa",
        {"questions": "g.json", "images": "{image_id}.png"},
        {
            "g.json": {
                "1": {
                    "question": "q ?",
                    "answer": "red",
                    "imageId": "5",
                    "types": {"structural": "verify"},
                }
            }
        },
    ),
    "karpathy": (
        "captions",
        {"captions": "k.json", "split": "train"},
        {
            "k.json": {
                "images": [
                    {
                        "filename": "5.png",
                        "filepath": ".",
                        "split": "train",
                        "sentences": [{"raw": "one"}, {"raw": "two"}],
                    }
                ]
            }
        },
    ),
    "coco-captions": (
        "captions",
        {"captions": "c.json"},
        {
            "c.json": {
                "images": [{"id": 1, "file_name": "5.png", "domain": "in-domain"}],
                "annotations": [{"image_id": 1, "caption": "one"}],
            }
        },
    ),
    "nlvr2": (
        "pairs",
        {"sentences": "n.jsonl"},
        {"n.jsonl": {"identifier": "d-1", "sentence": "s", "label": "True", "directory": 1}},
    ),
    "class-folders": (
        "classes",
        {"images": "classes", "classes": "f.json"},
        {"f.json": {"a": "red", "b": "blue"}},
    ),
    "coop": (
        "classes",
        {"split_file": "s.json", "part": "test"},
        {"s.json": {"train": [["5.png", 1, "blue"]], "test": [["5.png", 0, "red"]]}},
    ),
    "image-text": (
        "captions",
        {"captions": "l.json"},
        {"l.json": [{"image": "5.png", "caption": "one"}, {"image": "5.png", "caption": "two"}]},
    ),
}
WRONG = [None, True, 7, 7.5, float("nan"), float("inf"), "", [], ["a"], [[]], {}, {"a": 1}]


@pytest.fixture
def folder(tmp_path):
    for name in ("5.png", "classes/a/5.png", "classes/b/5.png", "1/d-img0.png", "1/d-img1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    return tmp_path


def places(content, path=()):
    """Yields the way to each value of nested lists and objects."""
    yield path
    if isinstance(content, list):
        content = dict(enumerate(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        yield from places(value, (*path, key))


def changed(content, path, value):
    if not path:
        return value
    new = copy.deepcopy(content)
    inner = new
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return new


def texts(value):
    """Returns all texts of examples."""
    if isinstance(value, dict):
        return [t for key, inner in value.items() if "image" not in key for t in texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in texts(inner)]
    assert isinstance(value, str), value
    return [value]


def entry(layout, folder):
    view, files, _ = GOOD[layout]
    return {**NAME, "view": view, "layout": layout, "folder": str(folder), "files": files}


@pytest.mark.parametrize("layout", GOOD)
def test_a_value_of_another_type_is_an_error_or_a_text(folder, layout):
    contents = GOOD[layout][2]
    told = []
    for name, content in contents.items():
        for path in places(content):
            for value in WRONG:
                for file, other in contents.items():
                    new = changed(content, path, value) if file == name else other
                    (folder / file).write_text(json.dumps(new), encoding="utf-8")
                try:
                    examples = data.load(entry(layout, folder))
                    inspect.check(entry(layout, folder))
                except DataError as error:
                    told.append((path, value, name in str(error) or "'x'" in str(error)))
                    continue
                found = " ".join(texts(examples)).lower()
                assert not {"nan", "inf", "none", "[]", "{}"} & set(found.split()), (path, value)
    assert len(told) > 10
    assert all(named for *_, named in told), told


@pytest.mark.parametrize("layout", GOOD)
def test_the_files_are_right_before_they_are_changed(folder, layout):
    for name, content in GOOD[layout][2].items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    assert inspect.check(entry(layout, folder))["examples"] > 0


@pytest.mark.parametrize("layout", [name for name in GOOD if name != "nlvr2"])
def test_a_file_that_is_nested_too_deep_is_told(folder, layout):
    for name in GOOD[layout][2]:
        (folder / name).write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(DataError, match="is no JSON"):
        data.load(entry(layout, folder))


PICTURE, TEXT, NUMBER = datasets.Image(), datasets.Value("string"), datasets.Value("float64")
CELLS = [  # view, column, its kind, its value, what is said
    ("captions", "captions", NUMBER, float("nan"), "no or empty captions"),
    ("captions", "captions", datasets.List(NUMBER), [float("nan")], "no or empty captions"),
    ("captions", "captions", datasets.Value("bool"), True, "'captions' of row 0 .* is bool"),
    ("captions", "captions", datasets.List(datasets.List(TEXT)), [["a"]], "is list"),
    ("captions", "captions", {"raw": TEXT}, {"raw": "a"}, "no key 'answer'"),
    ("captions", "id", NUMBER, float("nan"), "'id' of row 0 .* is empty"),
    ("captions", "id", TEXT, None, "'id' of row 0 .* is empty"),
    ("classes", "label", NUMBER, float("nan"), "without the names of their classes"),
    ("classes", "label", datasets.List(TEXT), ["a", "b"], "not labels"),
    ("classes", "label", {"name": TEXT}, {"name": "a"}, "not labels"),
    (
        "vqa",
        "answers",
        {"answer": datasets.List(NUMBER)},
        {"answer": [float("nan")]},
        "no or empty",
    ),
    ("vqa", "question", NUMBER, float("nan"), "empty question"),
    ("vqa", "kind", datasets.List(TEXT), ["a"], "'kind' of row 0 .* is list"),
    ("text", "text", NUMBER, float("nan"), "no examples of 'x'.*1 rows without words"),
]


@pytest.mark.parametrize(("view", "column", "kind", "value", "said"), CELLS)
def test_a_cell_of_a_table_of_another_type_is_told(folder, view, column, kind, value, said):
    good = {
        "captions": ((PICTURE, str(folder / "5.png")), (TEXT, "a")),
        "classes": ((PICTURE, str(folder / "5.png")), (TEXT, "a")),
        "vqa": ((PICTURE, str(folder / "5.png")), (TEXT, "a"), (TEXT, "a")),
        "text": ((TEXT, "a"),),
    }
    names = {
        "captions": ("image", "captions"),
        "classes": ("image", "label"),
        "vqa": ("image", "question", "answers"),
        "text": ("text",),
    }
    columns = {**dict(zip(names[view], good[view], strict=True)), column: (kind, value)}
    kinds = datasets.Features({name: kind for name, (kind, _) in columns.items()})
    rows = {name: [value] for name, (_, value) in columns.items()}
    table = datasets.Dataset.from_dict(rows, features=kinds)
    (folder / "hub").mkdir()
    table.to_parquet(folder / "hub" / "s.parquet")
    made = {**NAME, "view": view, "layout": "hub", "folder": str(folder / "hub")}
    further = {"columns": {column: column}, "files": {"split": "train"}}
    with pytest.raises(DataError, match=f"(?s){said}"):
        inspect.check({**made, **further})
