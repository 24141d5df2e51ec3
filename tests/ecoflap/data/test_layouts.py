"""Data sets in their real layouts, written by the tests, against what was written."""

import csv
import json

import datasets
import pytest
from PIL import Image

from ecoflap import data
from ecoflap.data.picture import Picture, opened
from ecoflap.errors import DataError


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def load(layout, folder, view, files=None, **further):
    entry = {"name": "x", "split": "s", "view": view, "layout": layout, "folder": str(folder)}
    return data.load({**entry, **({"files": files} if files else {}), **further})


def colour(example, key="image"):
    return opened(example[key]).getpixel((0, 0))


def vqa_files(folder):
    question = {"image_id": 42, "question": "How many?", "question_id": 420}
    write(folder / "questions.json", {"questions": [question], "data_type": "mscoco"})
    answers = [{"answer": "2", "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)]
    annotation = {
        "question_id": 420,
        "image_id": 42,
        "answers": answers,
        "answer_type": "number",
        "question_type": "how many",
        "multiple_choice_answer": "2",
    }
    write(folder / "annotations.json", {"annotations": [annotation]})
    picture(folder / "val2014" / "COCO_val2014_000000000042.png", "red")
    return {
        "questions": "questions.json",
        "annotations": "annotations.json",
        "images": "val2014/COCO_val2014_{image_id:012d}.png",
    }


def test_vqa(tmp_path):
    (example,) = load("vqa", tmp_path, "vqa", vqa_files(tmp_path))
    assert colour(example) == (255, 0, 0)
    del example["image"]
    assert example == {
        "id": "s/420",
        "question": "How many?",
        "answers": ["2"] * 10,
        "kind": "number",
    }


def test_gqa(tmp_path):
    entry = {
        "question": "Is it red?",
        "answer": "yes",
        "imageId": "n1",
        "isBalanced": True,
        "types": {"structural": "verify", "semantic": "attr"},
    }
    write(tmp_path / "testdev_balanced_questions.json", {"201": entry})
    picture(tmp_path / "images" / "n1.png", "red")
    files = {"questions": "testdev_balanced_questions.json", "images": "images/{image_id}.png"}
    (example,) = load("gqa", tmp_path, "vqa", files)
    assert colour(example) == (255, 0, 0)
    assert (example["id"], example["answers"], example["kind"]) == ("s/201", ["yes"], "verify")


def test_karpathy(tmp_path):
    def entry(name, split):
        sentences = [{"raw": f"A {name}. ", "tokens": ["a"], "sentid": 1}, {"raw": "B"}]
        return {"filepath": "val2014", "filename": name, "split": split, "sentences": sentences}

    images = [entry("a.png", "train"), entry("b.png", "restval"), entry("c.png", "test")]
    write(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    for name, shade in (("a", "red"), ("b", "blue"), ("c", "black")):
        picture(tmp_path / "val2014" / f"{name}.png", shade)
    files = {"captions": "dataset_coco.json", "split": "train, restval"}
    first, second = load("karpathy", tmp_path, "captions", files)
    assert (first["id"], first["captions"]) == ("s/a.png", ["A a.png.", "B"])
    assert colour(second) == (0, 0, 255)


def test_coco_captions_and_nocaps(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "a.png", "domain": "near-domain", "open_images_id": "a"}],
        "annotations": [
            {"image_id": 7, "caption": "One.", "id": 0},
            {"image_id": 7, "caption": "Two.", "id": 1},
        ],
    }
    write(tmp_path / "nocaps_val_4500_captions.json", content)
    picture(tmp_path / "val" / "a.png", "lime")
    files = {"captions": "nocaps_val_4500_captions.json", "images": "val"}
    (example,) = load("coco-captions", tmp_path, "captions", files)
    assert colour(example) == (0, 255, 0)
    assert example["captions"] == ["One.", "Two."]
    assert example["kind"] == "near-domain"


def test_nlvr2(tmp_path):
    lines = [
        {"identifier": "dev-850-0-1", "sentence": "Both are red.", "label": "False", "synset": "a"},
        {"identifier": "train-1-2-0", "sentence": "x", "label": "True", "directory": 3},
    ]
    write(tmp_path / "dev.json", "\n".join(json.dumps(line) for line in lines) + "\n")
    picture(tmp_path / "dev" / "dev-850-0-img0.png", "red")
    picture(tmp_path / "dev" / "dev-850-0-img1.png", "blue")
    first, second = load("nlvr2", tmp_path, "pairs", {"sentences": "dev.json", "images": "dev"})
    assert [opened(image).getpixel((0, 0)) for image in first["images"]] == [
        (255, 0, 0),
        (0, 0, 255),
    ]
    assert (first["id"], first["text"], first["label"]) == (
        "s/dev-850-0-1",
        "Both are red.",
        "False",
    )
    assert second["images"][1].source == tmp_path / "dev" / "3" / "train-1-2-img1.png"


def test_class_folders(tmp_path):
    picture(tmp_path / "train" / "n02" / "b.png", "blue")
    picture(tmp_path / "train" / "n01" / "a.png", "red")
    write(tmp_path / "classes.json", {"n01": "tench", "n02": "great white shark"})
    files = {"images": "train", "classes": "classes.json"}
    first, second = load("class-folders", tmp_path, "classes", files)
    assert (first["id"], first["label"], colour(first)) == ("s/n01/a.png", "tench", (255, 0, 0))
    assert second["classes"] == ["tench", "great white shark"]
    (tmp_path / "train" / "n02").rename(tmp_path / "train" / "a_fish")
    labels = [e["label"] for e in load("class-folders", tmp_path, "classes", {"images": "train"})]
    assert labels == ["a fish", "n01"]
    with pytest.raises(DataError, match="a_fish has no class"):
        load("class-folders", tmp_path, "classes", files)


def test_class_folders_with_names_in_lines(tmp_path):
    for folder in ("n01", "n02", "n03"):
        picture(tmp_path / "val" / folder / "a.png", "red")
    write(tmp_path / "classnames.txt", "n01 sunglasses\nn02 sunglasses\nn03 great grey owl\n")
    files = {"images": "val", "classes": "classnames.txt"}
    labels = [e["label"] for e in load("class-folders", tmp_path, "classes", files)]
    assert labels == ["sunglasses", "sunglasses", "great grey owl"]  # CLIP's ImageNet has such two


def test_coop(tmp_path):
    rows = {"train": [["b/1.png", 1, "swiss_roll"]], "val": [], "test": [["a/1.png", 0, "pug"]]}
    write(tmp_path / "split_zhou_Food101.json", rows)
    picture(tmp_path / "images" / "a" / "1.png", "red")
    files = {"split_file": "split_zhou_Food101.json", "part": "test", "images": "images"}
    (example,) = load("coop", tmp_path, "classes", files)
    assert (example["label"], example["classes"]) == ("pug", ["pug", "swiss roll"])
    assert colour(example) == (255, 0, 0)


def test_fgvc_aircraft(tmp_path):
    write(tmp_path / "images_variant_test.txt", "1514522 707-320\n0747566 A340-300 \n")
    write(tmp_path / "variants.txt", "707-320\nA340-300\n")
    picture(tmp_path / "images" / "0747566.jpg", "white")
    files = {"list": "images_variant_test.txt", "classes": "variants.txt", "images": "images"}
    _, second = load("fgvc-aircraft", tmp_path, "classes", files)
    assert (second["id"], second["label"], colour(second)) == (
        "s/0747566",
        "A340-300",
        (255, 255, 255),
    )
    assert second["classes"] == ["707-320", "A340-300"]


def test_pictures_with_texts_beside_them(tmp_path):
    picture(tmp_path / "00000" / "000000001.jpg", "white")
    write(tmp_path / "00000" / "000000001.txt", "a white square\n")
    picture(tmp_path / "00000" / "000000002.jpg", "white")  # its download failed: no text
    (example,) = load("image-text", tmp_path, "captions")
    assert (example["id"], example["captions"]) == ("s/00000/000000001.jpg", ["a white square"])


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_lists_of_pictures_and_captions(tmp_path, suffix):
    picture(tmp_path / "images" / "a.png", "red")
    rows = [{"file_name": "a.png", "text": "red"}, {"file_name": "a.png", "text": "a red square"}]
    path = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        write(path, rows if suffix == "json" else "\n".join(map(json.dumps, rows)))
    files = {"captions": path.name, "images": "images"}
    columns = {"image": "file_name", "caption": "text"}
    (example,) = load("image-text", tmp_path, "captions", files, columns=columns)
    assert example["captions"] == ["red", "a red square"]
    assert colour(example) == (255, 0, 0)
    with pytest.raises(DataError, match=r"no key 'caption' in .*file_name, text"):
        load("image-text", tmp_path, "captions", files, columns={"image": "file_name"})


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A data set as the hub stores it: parquet files with pictures inside, split by name."""
    folder = tmp_path_factory.mktemp("hub")
    for shade in ("red", "blue"):
        picture(folder / f"{shade}.png", shade)
    features = datasets.Features(
        {
            "question_id": datasets.Value("int64"),
            "image": datasets.Image(),
            "question": datasets.Value("string"),
            "answers": datasets.List({"answer": datasets.Value("string")}),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "alt": datasets.Value("string"),
            "agrees": datasets.Value("bool"),
        }
    )
    rows = {
        "question_id": [5, 6],
        "image": [str(folder / "red.png"), str(folder / "blue.png")],
        "question": ["one?", "two?"],
        "answers": [[{"answer": "a"}, {"answer": "b"}], [{"answer": "c"}]],
        "label": [1, 0],
        "alt": ["first", "second"],
        "agrees": [True, False],
    }
    table = datasets.Dataset.from_dict(rows, features=features)
    (folder / "repository" / "data").mkdir(parents=True)
    table.to_parquet(folder / "repository" / "data" / "validation-00000-of-00001.parquet")
    return folder / "repository"


def test_hub_questions(repository):
    columns = {"id": "question_id", "kind": "alt"}
    first, second = load("hub", repository, "vqa", {"split": "validation"}, columns=columns)
    assert isinstance(first["image"], Picture)
    assert colour(second) == (0, 0, 255)
    del first["image"]
    assert first == {"id": "s/5", "question": "one?", "answers": ["a", "b"], "kind": "first"}


def test_hub_captions_classes_and_texts(repository):
    files = {"split": "validation"}
    captions = load("hub", repository, "captions", files, columns={"captions": "alt"})
    assert [example["captions"] for example in captions] == [["first"], ["second"]]
    classes = load("hub", repository, "classes", files)
    assert [(e["label"], e["classes"]) for e in classes] == [
        ("dog", ["cat", "dog"]),
        ("cat", ["cat", "dog"]),
    ]
    files = {"split": "train", "data_files": "data/validation-*.parquet"}  # as C4's are named
    texts = load("hub", repository, "text", files, columns={"text": "question"})
    assert texts == [{"id": "s/0", "text": "one?"}, {"id": "s/1", "text": "two?"}]


def test_rows_without_words_are_left_out_of_texts(tmp_path):
    rows = {"text": ["", "= A title =", " ", "words"]}  # as WikiText is stored
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "test.parquet")
    texts = load("hub", tmp_path, "text", {"split": "test"})
    assert texts == [{"id": "s/1", "text": "= A title ="}, {"id": "s/3", "text": "words"}]


def test_hub_pairs(repository):
    columns = {"left": "image", "right": "image", "text": "alt", "label": "agrees"}
    first, second = load("hub", repository, "pairs", {"split": "validation"}, columns=columns)
    assert [opened(image).getpixel((0, 0)) for image in first["images"]] == [(255, 0, 0)] * 2
    assert (first["text"], first["label"], second["label"]) == ("first", "True", "False")
    with pytest.raises(DataError, match="has the label 'dog'.*True, False"):
        load(
            "hub",
            repository,
            "pairs",
            {"split": "validation"},
            columns={**columns, "label": "label"},
        )


def test_a_missing_column_is_told_with_those_there_are(repository):
    with pytest.raises(DataError, match=r"no column 'querstion' .*Did you mean 'question'"):
        load(
            "hub",
            repository,
            "vqa",
            {"split": "validation"},
            columns={"question": "querstion"},
        )


def test_a_hub_id_that_cannot_be_reached_is_told(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    entry = {"name": "x", "split": "train", "view": "text", "layout": "hub"}
    with pytest.raises(DataError, match=r"cannot read no-one/nothing .*gated"):
        data.load({**entry, "hub": "no-one/nothing", "revision": "0" * 40})


def test_a_limit_takes_the_same_random_examples_each_time(tmp_path):
    rows = [{"image": f"{i}.png", "caption": str(i)} for i in range(50)]
    write(tmp_path / "list.json", rows)
    files = {"captions": "list.json"}
    some = load("image-text", tmp_path, "captions", files, limit=10)
    assert some == load("image-text", tmp_path, "captions", files, limit=10)
    assert [e["captions"][0] for e in some] != [str(i) for i in range(10)]
    with pytest.raises(DataError, match="60 examples of 'x'.*at most 50"):
        load("image-text", tmp_path, "captions", files, limit=60)


def broken(tmp_path, change):
    files = vqa_files(tmp_path)
    change(tmp_path, files)
    return load("vqa", tmp_path, "vqa", files)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder, files: files.pop("annotations"), "no 'annotations' among the files"),
        (lambda folder, files: (folder / "questions.json").unlink(), "questions.json is missing"),
        (lambda folder, files: write(folder / "questions.json", "{"), "questions.json is no JSON"),
        (
            lambda folder, files: write(folder / "questions.json", {"question": []}),
            "no key 'questions' .*Did you mean 'question'",
        ),
        (
            lambda folder, files: write(folder / "annotations.json", {"annotations": []}),
            "question 420 of .* has no answers",
        ),
    ],
)
def test_what_is_wrong_with_files_is_told(tmp_path, change, said):
    with pytest.raises(DataError, match=said):
        broken(tmp_path, change)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="data_folders"):
        load("vqa", tmp_path / "nowhere", "vqa", {})


def test_a_truncated_picture_is_told_when_it_is_opened(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"picture a\.png cannot be read"):
        opened(Picture("a.png", path))


def csv_repository(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    picture(folder / "a.png", "red")
    (folder / "train.csv").write_text(content, encoding="utf-8")
    return {"split": "train", "data_files": "train.csv"}


def test_cells_of_a_csv_are_texts_in_the_hub_layout_too(tmp_path):
    content = "image,question,answers\na.png,q,2\na.png,NA,007\na.png,q,3.50\na.png,q,None\n"
    files = csv_repository(tmp_path, content)
    examples = load("hub", tmp_path, "vqa", files)
    assert [e["answers"] for e in examples] == [["2"], ["007"], ["3.50"], ["None"]]
    assert [e["question"] for e in examples] == ["q", "NA", "q", "q"]


def test_classes_of_the_hub_have_names_without_blanks_around_them(tmp_path):
    files = csv_repository(tmp_path, "image,label\na.png,cat\na.png, cat\na.png,dog \n")
    examples = load("hub", tmp_path, "classes", files)
    assert [(e["label"], e["classes"]) for e in examples] == [
        (name, ["cat", "dog"]) for name in ("cat", "cat", "dog")
    ]


def test_numbers_of_classes_without_names_are_refused(tmp_path):
    picture(tmp_path / "a.png", "red")
    rows = {"image": [str(tmp_path / "a.png")] * 2, "label": [1, 2]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match="'label' holds numbers .int64. without the names"):
        load("hub", tmp_path, "classes", {"split": "train"})


def test_the_reason_why_the_hubs_library_stops_is_told(tmp_path):
    (tmp_path / "train.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="UnicodeDecodeError.*files in UTF-8"):
        load("hub", tmp_path, "text", {"split": "train", "data_files": "train.txt"})


def test_one_picture_named_in_two_ways_is_one(tmp_path):
    picture(tmp_path / "a.png", "red")
    write(tmp_path / "l.csv", "image,caption\na.png,one\n./a.png,two\n")
    (example,) = load("image-text", tmp_path, "captions", {"captions": "l.csv"})
    assert (example["id"], example["captions"]) == ("s/a.png", ["one", "two"])


@pytest.mark.parametrize(("name", "told"), [("l.tsv", "suffix '.tsv'.*.csv"), ("l", "suffix ''")])
def test_a_list_of_another_kind_is_told_by_its_suffix(tmp_path, name, told):
    write(tmp_path / name, "image\tcaption\na.png\tred\n")
    with pytest.raises(DataError, match=told):
        load("image-text", tmp_path, "captions", {"captions": name})


def test_a_list_in_capitals_is_read(tmp_path):
    picture(tmp_path / "a.png", "red")
    write(tmp_path / "L.CSV", "image,caption\na.png,red\n")
    assert len(load("image-text", tmp_path, "captions", {"captions": "L.CSV"})) == 1


def test_the_line_that_is_no_json_is_told(tmp_path):
    write(tmp_path / "l.jsonl", '{"image": "a.png", "caption": "red"}\n\n{"image": \n')
    with pytest.raises(DataError, match=r"line 3 of .*l\.jsonl is no JSON"):
        load("image-text", tmp_path, "captions", {"captions": "l.jsonl"})


def test_a_key_with_two_values_is_refused(tmp_path):
    write(tmp_path / "c.json", '{"a": "cat", "a": "dog"}')
    picture(tmp_path / "pictures" / "a" / "1.png", "red")
    with pytest.raises(DataError, match="the key 'a' has two values"):
        load("class-folders", tmp_path, "classes", {"images": "pictures", "classes": "c.json"})


def test_what_the_lists_name_beside_the_pictures_is_counted(tmp_path):
    picture(tmp_path / "pictures" / "a" / "1.png", "red")
    write(tmp_path / "c.txt", "a cat\nb dog\n")
    entry = {"name": "x", "split": "s", "folder": str(tmp_path)}
    classes = {"images": "pictures", "classes": "c.txt"}
    folders = {**entry, "view": "classes", "layout": "class-folders", "files": classes}
    what = "classes without a folder, which no picture is compared with"
    assert data.left_out(folders) == {what: 1}
    notes = [{"image_id": image, "caption": "red"} for image in (1, 7, "1")]
    write(tmp_path / "n.json", {"images": [{"id": 1, "file_name": "a"}], "annotations": notes})
    coco = {**entry, "view": "captions", "layout": "coco-captions", "files": {"captions": "n.json"}}
    assert data.left_out(coco) == {"captions of pictures that are not listed": 2}


def test_a_pattern_without_the_number_of_a_picture_is_refused(tmp_path):
    files = vqa_files(tmp_path) | {"images": "val2014/COCO_val2014_000000000042.png"}
    with pytest.raises(DataError, match="it names one picture, whatever the id"):
        load("vqa", tmp_path, "vqa", files)
