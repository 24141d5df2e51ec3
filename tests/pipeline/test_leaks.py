"""The leak rule against the data: refused are the splits that share an example, read from files."""

import json

import datasets
import pytest
from PIL import Image

from ecoflap import data
from ecoflap_pipeline.config.leaks import leaks
from ecoflap_pipeline.points import located


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A caption file with two parts, a split file of classes, class folders and a hub data set."""
    root = tmp_path_factory.mktemp("data")
    names = [f"{i}.png" for i in range(6)]
    (root / "coco" / "red").mkdir(parents=True)
    (root / "coco" / "blue").mkdir()
    for number, name in enumerate(names):
        for folder in ("", "red", "blue"):
            Image.new("RGB", (2, 2), (number, 0, 0)).save(root / "coco" / folder / name)
    parts = ("train", "test", "val")
    entries = [
        {"filename": name, "split": parts[i % 3], "sentences": [{"raw": name}]}
        for i, name in enumerate(names)
    ]
    (root / "coco" / "a.json").write_text(json.dumps({"images": entries}))
    rows = {part: [[name, 0, "red"] for name in names[i::3]] for i, part in enumerate(parts)}
    (root / "coco" / "split.json").write_text(json.dumps(rows))
    (root / "link").symlink_to(root / "coco")
    for part in ("train", "test"):
        texts = [f"{part} {i}" for i in range(4)]
        datasets.Dataset.from_dict({"text": texts}).to_parquet(root / "hub" / f"{part}.parquet")
    return root


def karpathy(folder, **files):
    return {"layout": "karpathy", "folder": folder, "splits": {"s": files}}


def coop(part):
    files = {"split_file": "split.json", "part": part}
    return {"layout": "coop", "folder": "coco", "splits": {"s": files}}


def folders(images):
    return {"layout": "class-folders", "folder": "coco", "splits": {"s": {"images": images}}}


def hub(**files):
    return {"layout": "hub", "folder": "hub", "splits": {"s": files}}


VIEWS = {"karpathy": "captions", "coop": "classes", "class-folders": "classes", "hub": "text"}
TEST = karpathy("coco", captions="a.json", split="test")
CASES = [
    (TEST, TEST),
    (TEST, karpathy("coco", captions="a.json", split="train")),
    (TEST, karpathy("coco", captions="a.json", split="train, test")),
    (TEST, karpathy("coco", captions="a.json", split="train,val")),
    (TEST, karpathy("./coco/", captions="a.json", split="test")),
    (TEST, karpathy("coco/../coco", captions="../coco/a.json", split="test")),
    (TEST, karpathy(".", captions="coco/a.json", split="test", images="coco")),
    (TEST, karpathy("link", captions="a.json", split="test")),
    (TEST, karpathy("coco", captions="a.json", split="test", images="red")),
    (coop("test"), coop("test")),
    (coop("test"), coop("val")),
    (folders("."), folders("../coco")),
    (hub(split="test"), hub(split="test[:50%]")),
    (hub(split="test"), hub(split="train+test")),
    (hub(split="test"), hub(split="train[2:]")),
]


@pytest.mark.parametrize(("task", "calibration"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_refused_are_splits_that_share_an_example(place, monkeypatch, task, calibration):
    monkeypatch.chdir(place)
    entries = {"first": task, "second": calibration}
    config = {"datasets": entries, "data_folders": {}}
    described = {
        name: {"name": name, "split": "s", "view": VIEWS[entry["layout"]]}
        for name, entry in entries.items()
    }
    config["tasks"] = {"t": {"dataset": described["first"]}}
    shown = [_contents(data.load(located(config, dataset))) for dataset in described.values()]
    refused = list(leaks("c", described["second"], config))
    assert bool(refused) == bool(shown[0] & shown[1])
    assert all("task 't' evaluates" in problem for problem in refused)


def _contents(examples):
    return {str(e.get("captions") or e.get("text") or e["image"].name) for e in examples}


def _problems(datasets, drawn, evaluated, folders=()):
    config = {"datasets": datasets, "data_folders": dict(folders)}
    return list(leaks("c", drawn, {**config, "tasks": {"t": {"dataset": evaluated}}}))


def test_all_tasks_that_evaluate_it_are_told_in_one_line():
    sample = {"name": "scenes", "split": "test"}
    tasks = {name: {"dataset": sample} for name in ("a", "b")}
    config = {"datasets": {}, "data_folders": {}, "tasks": {**tasks, "c": {}}}
    (problem,) = leaks("x", sample, config)
    assert problem.startswith("x draws from scenes/test, which tasks 'a', 'b' evaluate.")


def on_hub(name="o/n", **files):
    return {
        "layout": "hub",
        "hub": name,
        "revision": "0" * 40,
        "splits": {"s": files, "test": {}},
    }


def test_a_data_set_of_the_hub_is_known_by_its_id_and_split():
    drawn, evaluated = {"name": "a", "split": "s"}, {"name": "b", "split": "test"}
    for same in (on_hub(split="test"), on_hub("O/N", split="test"), on_hub(split="train+test")):
        assert _problems({"a": same, "b": on_hub()}, drawn, evaluated)
    for other in (on_hub(split="train"), on_hub("o/m", split="test")):
        assert not _problems({"a": other, "b": on_hub()}, drawn, evaluated)
    one, two = on_hub(split="test", config="en"), on_hub(split="test", config="de")
    assert not _problems({"a": one, "b": two}, drawn, {"name": "b", "split": "s"})
    assert _problems({"a": one, "b": on_hub()}, drawn, evaluated)


def test_a_built_in_data_set_of_the_hub_is_known_under_another_name():
    wikitext = on_hub("Salesforce/wikitext", split="test", config="wikitext-2-raw-v1")
    builtin = {"name": "wikitext-2", "split": "test"}
    assert _problems({"w": wikitext}, {"name": "w", "split": "s"}, builtin)
    assert not _problems({"w": wikitext}, {"name": "w", "split": "s"}, {**builtin, "split": "x"})
    other = on_hub("Salesforce/wikitext", split="test", config="wikitext-103-raw-v1")
    assert _problems({"w": other}, {"name": "w", "split": "s"}, builtin)  # it has the same texts
    files = on_hub("Salesforce/wikitext", data_files="wikitext-2-raw-v1/test-*.parquet")
    assert _problems({"w": files}, {"name": "w", "split": "s"}, builtin)
    files = on_hub("Salesforce/wikitext", data_files="wikitext-2-raw-v1/train-*.parquet")
    assert not _problems({"w": files}, {"name": "w", "split": "s"}, builtin)
    # A folder that stands for it has no id; what is read from it is known by where it lies.
    assert not _problems({"w": wikitext}, {"name": "w", "split": "s"}, builtin, {"wikitext-2": "x"})


def whole(layout, images, folder="pics"):
    return {"layout": layout, "folder": folder, "splits": {"s": {"images": images}}}


def listed(images, folder="pics"):
    files = {"captions": "list.json", "images": images}
    return {"layout": "image-text", "folder": folder, "splits": {"s": files}}


def asked_of(images):
    files = {"questions": "q.json", "annotations": "a.json", "images": images}
    return {"layout": "vqa", "folder": "pics", "splits": {"s": files}}


HOLDING = [  # two data sets of which one is read with all that lies in a folder
    (whole("image-text", "."), whole("image-text", "test"), True),
    (whole("image-text", "."), whole("class-folders", "test"), True),
    (whole("class-folders", "."), whole("image-text", "test"), True),
    (whole("image-text", "train"), whole("image-text", "test"), False),
    (whole("image-text", "test"), whole("image-text", "tests"), False),
    (whole("image-text", "train"), whole("image-text", "link"), False),
    (whole("image-text", "test"), whole("image-text", "inner", folder="pics/link"), True),
    ({"layout": "image-text", "folder": "pics", "splits": {"s": {}}}, listed("test"), True),
    (whole("image-text", "test"), listed("test"), True),
    (whole("image-text", "train"), listed("test"), False),
    (whole("image-text", "test"), listed("."), False),  # the list may name pictures of train alone
    (listed("."), asked_of("test/COCO_{image_id:012d}.jpg"), False),
    (whole("image-text", "."), asked_of("test/COCO_{image_id:012d}.jpg"), True),
    (whole("image-text", "train"), asked_of("test/COCO_{image_id:012d}.jpg"), False),
    (whole("image-text", "."), {"layout": "hub", "folder": "pics/hub", "splits": {"s": {}}}, True),
]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("first", "second", "refused"), HOLDING)
def test_of_two_folders_none_may_hold_the_other(
    tmp_path, monkeypatch, first, second, refused, swapped
):
    (tmp_path / "pics" / "test").mkdir(parents=True)
    (tmp_path / "pics" / "link").symlink_to(tmp_path / "pics" / "test")
    monkeypatch.chdir(tmp_path)
    entries = {"a": first, "b": second}
    drawn, evaluated = ("b", "a") if swapped else ("a", "b")
    found = _problems(entries, {"name": drawn, "split": "s"}, {"name": evaluated, "split": "s"})
    assert bool(found) == refused
    assert all(f"draws from {drawn}/s in {tmp_path}" in problem for problem in found)
    assert all("task 't'" in problem and "holds the other" in problem for problem in found)


def test_all_splits_of_a_data_set_hold_each_of_them():
    drawn, evaluated = {"name": "a", "split": "s"}, {"name": "b", "split": "test"}
    assert _problems({"a": on_hub(split="all"), "b": on_hub()}, drawn, evaluated)


def test_the_files_of_a_built_in_data_set_are_known_under_another_name(tmp_path):
    (tmp_path / "test.txt").write_text("a b", encoding="utf-8")
    (tmp_path / "valid.txt").symlink_to(tmp_path / "test.txt")
    (tmp_path / "train.txt").write_text("c d", encoding="utf-8")
    builtin = {"name": "wikitext-2", "split": "test"}
    places = {"wikitext-2": str(tmp_path)}
    for name, shared in (("test.txt", True), ("valid.txt", True), ("train.txt", False)):
        files = {"s": {"data_files": name, "split": "train"}}
        own = {"own": {"layout": "hub", "folder": str(tmp_path), "splits": files}}
        found = _problems(own, {"name": "own", "split": "s"}, builtin, places)
        assert bool(found) == shared, name
    assert _problems({}, {"name": "wikitext-2", "split": "validation"}, builtin, places)
    assert not _problems({}, {"name": "wikitext-2", "split": "train"}, builtin, places)
