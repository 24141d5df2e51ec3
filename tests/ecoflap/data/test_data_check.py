"""Looking at a whole data set: what is wrong with it is told at once, by name."""

import json

import pytest
from PIL import Image

from ecoflap import data
from ecoflap.data import inspect
from ecoflap.errors import DataError

ENTRY = {"name": "mine", "layout": "image-text", "split": "train", "view": "captions"}


def write(folder, rows):
    for name, _ in rows:
        if not (folder / name).exists():
            Image.effect_noise((64, 64), 50).save(folder / name)
    (folder / "list.json").write_text(json.dumps([{"image": n, "caption": c} for n, c in rows]))
    return {**ENTRY, "folder": str(folder), "files": {"captions": "list.json"}}


def test_a_good_data_set_is_counted_and_hashed(tmp_path):
    found = inspect.check(write(tmp_path, [("a.png", "red"), ("b.png", "blue")]))
    again = inspect.check(write(tmp_path, [("a.png", "red"), ("b.png", "green")]))
    assert found["examples"] == again["examples"] == 2
    assert found["fingerprint"] != again["fingerprint"]


def test_all_problems_are_told_at_once(tmp_path):
    entry = write(tmp_path, [("a.png", "red"), ("b.png", " "), ("c.png", "green")])
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    (tmp_path / "c.png").unlink()
    with pytest.raises(DataError) as caught:
        inspect.check(entry)
    said = str(caught.value)
    assert "'mine' has 3 problem(s)" in said
    for part in ("picture a.png cannot be read", "train/b.png has no or empty", "picture c.png"):
        assert part in said


def test_of_many_problems_the_first_are_shown(tmp_path):
    with pytest.raises(DataError, match=r"(?s)has 30 problem\(s\).*20 more"):
        inspect.check(write(tmp_path, [(f"{i}.png", "") for i in range(30)]))


def test_an_id_that_occurs_twice_is_told(monkeypatch):
    monkeypatch.setattr(data, "load", lambda _: [{"id": "1", "text": "a"}] * 2)
    with pytest.raises(DataError, match="the id 1 occurs twice"):
        inspect.check({**ENTRY, "view": "text"})
