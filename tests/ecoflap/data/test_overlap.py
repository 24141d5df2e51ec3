"""Samples against what is evaluated, file by file, wherever a list names them."""

import csv
import json

import datasets
import pytest
from PIL import Image

from ecoflap.data import overlap
from ecoflap.errors import DataError
from ecoflap_pipeline import params, targets
from ecoflap_pipeline.config.leaks import asked
from helpers.configs import merged

NAMES = ("shared.png", "one.png", "other.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Pictures in two folders; the second has the shared one as a link."""
    folder = tmp_path_factory.mktemp("data")
    for place in ("a/x", "b/x"):
        (folder / place).mkdir(parents=True)
    for name in NAMES[:2]:
        Image.new("RGB", (2, 2)).save(folder / "a" / "x" / name)
    Image.new("RGB", (2, 2)).save(folder / "b" / "x" / NAMES[2])
    (folder / "b" / "x" / "linked.png").symlink_to(folder / "a" / "x" / "shared.png")
    for path in folder.rglob("*.png"):
        path.with_suffix(".txt").write_text("red", encoding="utf-8")
    return folder


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def made(layout, folder, *names, view="captions", **files):
    entry = {"name": layout, "split": "s", "view": view, "layout": layout, "folder": str(folder)}
    return {**entry, "files": {**files}}


def karpathy(folder, *names):
    rows = [{"filename": n, "split": "s", "sentences": [{"raw": "red"}]} for n in names]
    write(folder / "k.json", {"images": rows})
    return made("karpathy", folder, captions="k.json", split="s")


def coco(folder, *names):
    content = {"images": [{"id": i, "file_name": n} for i, n in enumerate(names)]}
    notes = [{"image_id": i, "caption": "red"} for i in range(len(names))]
    write(folder / "c.json", {**content, "annotations": notes})
    return made("coco-captions", folder, captions="c.json")


def image_text(suffix):
    def build(folder, *names):
        path = folder / f"i{suffix}"
        rows = [{"image": n, "caption": "red"} for n in names]
        if suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["image", "caption"])
                writer.writeheader()
                writer.writerows(rows)
        else:
            lines = "\n".join(map(json.dumps, rows))
            path.write_text(lines if suffix == ".jsonl" else json.dumps(rows), encoding="utf-8")
        return made("image-text", folder, captions=path.name)

    return build


def vqa(folder, *names):
    asked = [{"question_id": i, "image_id": n, "question": "q?"} for i, n in enumerate(names)]
    said = [{"question_id": i, "answers": [{"answer": "x"}]} for i in range(len(names))]
    write(folder / "q.json", {"questions": asked})
    write(folder / "n.json", {"annotations": said})
    files = {"questions": "q.json", "annotations": "n.json", "images": "{image_id}"}
    return made("vqa", folder, view="vqa", **files)


def gqa(folder, *names):
    rows = {
        str(i): {"imageId": n, "question": "q?", "answer": "x", "types": {}}
        for i, n in enumerate(names)
    }
    write(folder / "g.json", rows)
    return made("gqa", folder, view="vqa", questions="g.json", images="{image_id}")


def coop(folder, *names):
    write(folder / "z.json", {"test": [[n, 0, "red"] for n in names]})
    return made("coop", folder, view="classes", split_file="z.json", part="test")


def hub(folder, *names):
    place = folder / "hub"
    place.mkdir(exist_ok=True)
    paths = [str(folder / name) for name in names]
    rows = {"image": paths, "captions": ["red"] * len(names)}
    datasets.Dataset.from_dict(rows).to_parquet(place / "s.parquet")
    return made("hub", place, split="train")


LISTS = {
    "karpathy": karpathy,
    "coco-captions": coco,
    "json": image_text(".json"),
    "jsonl": image_text(".jsonl"),
    "csv": image_text(".csv"),
    "vqa": vqa,
    "gqa": gqa,
    "coop": coop,
    "hub": hub,
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_that_name_one_picture_are_refused_and_others_are_not(root, kind):
    drawn = karpathy(root / "a", "x/shared.png")
    for name in ("../a/x/shared.png", str(root / "a/x/shared.png"), "x/linked.png"):
        shared = LISTS[kind](root / "b", "x/other.png", name)
        for first, second in ((drawn, shared), (shared, drawn)):
            with pytest.raises(DataError, match=r"1 of task 't', such as .*a/x/shared\.png"):
                overlap.compare(first, {"t": second})
    apart = LISTS[kind](root / "b", "x/other.png")
    assert overlap.compare(drawn, {"t": apart}) == {
        "files": 1,
        "compared": ["t"],
        "not_compared": {},
    }


def test_lists_over_one_folder_may_name_different_pictures(root):
    drawn = karpathy(root / "a", "x/one.png")
    overlap.compare(drawn, {"t": coop(root / "a", "x/shared.png")})


def test_whole_folders_are_read_through_their_links(root):
    drawn = karpathy(root / "a", "x/shared.png")
    for layout, view in (("image-text", "captions"), ("class-folders", "classes")):
        evaluated = made(layout, root / "b", view=view, images=".")
        with pytest.raises(DataError, match="1 of task 't'"):
            overlap.compare(drawn, {"t": evaluated})


def test_pictures_of_nlvr2_and_of_fgvc_aircraft_count_too(root, tmp_path):
    for name in ("n-0-img0.png", "n-0-img1.png", "7.jpg"):
        (tmp_path / name).symlink_to(root / "a/x/one.png")
    row = {"identifier": "n-0-0", "sentence": "s", "label": "True"}
    (tmp_path / "n.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (tmp_path / "list.txt").write_text("7 a\n", encoding="utf-8")
    (tmp_path / "names.txt").write_text("a\n", encoding="utf-8")
    for evaluated in (
        made("nlvr2", tmp_path, view="pairs", sentences="n.jsonl"),
        made("fgvc-aircraft", tmp_path, view="classes", list="list.txt", classes="names.txt"),
    ):
        with pytest.raises(DataError, match="1 of task 't'"):
            overlap.compare(karpathy(root / "a", "x/one.png"), {"t": evaluated})


def test_tables_with_pictures_inside_are_known_by_their_files(root, tmp_path):
    table = datasets.Dataset.from_dict({"text": ["a", "b"]})
    for name in ("train", "test"):
        table.to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "copy").symlink_to(tmp_path)

    def entry(split, **further):
        made = {"name": "h", "split": split, "view": "text", "layout": "hub", "files": {}}
        return {**made, "folder": str(tmp_path), **further}

    overlap.compare(entry("train"), {"t": entry("test")})
    for same in (
        entry("test[:50%]", files={"split": "test[:50%]"}),
        entry("train", files={"data_files": "te*.parquet"}),
        entry("x", files={"split": "train+test"}),
    ):
        with pytest.raises(DataError, match=r"task 't', such as .*test\.parquet"):
            overlap.compare(same, {"t": entry("test")})


def test_data_that_are_not_here_are_named_and_not_compared(root, tmp_path):
    gone = made("karpathy", tmp_path / "gone", captions="k.json", split="s")
    found = overlap.compare(karpathy(root / "a", "x/one.png"), {"t": gone})
    assert found["compared"] == []
    assert "no folder" in found["not_compared"]["t"]


def test_a_model_is_asked_about_what_its_own_experiments_evaluate():
    config = merged({})
    drawn = {"split": "train"}
    captions = {**drawn, "name": "coco-karpathy", "view": "captions"}
    # BLIP for captions learns from COCO's restval, of whose pictures VQAv2's validation split asks
    # another model.
    assert "vqav2-blip" not in asked(paper(config), captions)
    assert asked(paper(config), captions) == ["coco-captions"]
    assert asked(paper(config), {**drawn, "name": "vqav2", "view": "vqa"}) == ["vqav2-blip"]
    assert asked(paper(config), {**drawn, "name": "dtd", "view": "classes"}) == ["dtd"]


def test_data_that_arrive_later_change_the_settings_so_that_they_are_compared(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = paper(merged({}))
    wildcards = {"dataset": "vqav2", "split": "train", "view": "vqa"}
    gone = params.check_overlap(config, **wildcards)["absent"]["vqav2-blip"]
    assert [path.partition("/")[2] for path in gone] == [
        "vqav2",
        "vqav2/v2_OpenEnded_mscoco_val2014_questions.json",
        "vqav2/v2_mscoco_val2014_annotations.json",
    ]
    for path in gone[1:]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert params.check_overlap(config, **wildcards)["absent"] == {}


def paper(config):
    import yaml

    from helpers.configs import ROOT

    further = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text(encoding="utf-8"))
    config = merged(further)
    models = config["models"]
    for name, entry in models.items():
        models[name] = {**models.get(entry.get("like"), {}), **entry}
    return config


def test_what_the_papers_models_are_asked_is_what_their_reports_compare():
    config = paper(merged({}))
    wanted = set(targets.collect(config, targets.overlaps))
    assert "results/overlaps/cc3m/train/captions.json" in wanted
    for path in wanted:
        _, _, dataset, split, view = path.removesuffix(".json").split("/")
        read = params.check_overlap(config, dataset=dataset, split=split, view=view)
        assert read["drawn"]["name"] == dataset
        texts = dataset == "c4"  # whose models are asked what lm-eval holds
        assert texts or read["evaluated"]


def test_the_files_of_a_built_in_data_set_are_compared(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    task = {"name": "wikitext-2", "split": "test", "view": "text", "folder": str(tmp_path)}
    for pattern, shared in (("t*.txt", True), ("tr*.txt", False)):
        drawn = made("hub", tmp_path, view="text", data_files=pattern, split="train")
        if shared:
            with pytest.raises(DataError, match=r"1 of task 't', such as .*test\.txt"):
                overlap.compare(drawn, {"t": task})
        else:
            assert overlap.compare(drawn, {"t": task})["compared"] == ["t"]


def test_all_splits_of_a_folder_count(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    everything = made("hub", tmp_path, view="text", split="all")
    assert len(overlap.files_of(everything)) == 2
