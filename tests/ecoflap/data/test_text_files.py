"""Text files and folders as people have them: marks, separators, encodings, strange neighbours."""

import json

import pytest
from PIL import Image

from ecoflap import data
from ecoflap.data import inspect
from ecoflap.errors import DataError

BOM = "\ufeff"
# Lines for str.splitlines, parts of a line for everybody else.
SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
CAPTION = f"caf\xe9{SEPARATORS}noir"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "classes/n1/a.png", "7.jpg", "p-img0.png", "p-img1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    return tmp_path


def row(**content):
    return json.dumps(content, ensure_ascii=False)


SENTENCE = row(identifier="p-0", sentence=CAPTION, label="True")
COCO = {"images": [{"id": 1, "file_name": "a.png"}]}
COCO["annotations"] = [{"image_id": 1, "caption": CAPTION}]
# layout, view, files of the split, name and content of a text, where CAPTION is in the example
TEXTS = [
    ("image-text", "captions", {}, "a.txt", CAPTION + "\n", "captions"),
    (
        "image-text",
        "captions",
        {"captions": "l.csv"},
        "l.csv",
        f"image,caption\na.png,{CAPTION}\n",
        "captions",
    ),
    (
        "image-text",
        "captions",
        {"captions": "l.jsonl"},
        "l.jsonl",
        row(image="a.png", caption=CAPTION) + "\n\n",
        "captions",
    ),
    (
        "image-text",
        "captions",
        {"captions": "l.json"},
        "l.json",
        f"[{row(image='a.png', caption=CAPTION)}]",
        "captions",
    ),
    (
        "coco-captions",
        "captions",
        {"captions": "c.json"},
        "c.json",
        json.dumps(COCO, ensure_ascii=False),
        "captions",
    ),
    ("nlvr2", "pairs", {"sentences": "n.jsonl"}, "n.jsonl", SENTENCE + "\n", "text"),
    (
        "class-folders",
        "classes",
        {"images": "classes", "classes": "n.txt"},
        "n.txt",
        f"n1\t{CAPTION}\n",
        "label",
    ),
]


IDS = [f"{layout}-{name}" for layout, _, _, name, *_ in TEXTS]


def load(folder, layout, view, files):
    place = {"name": "x", "split": "s", "view": view, "layout": layout, "folder": str(folder)}
    return data.load({**place, **({"files": files} if files else {})})


@pytest.mark.parametrize(("layout", "view", "files", "name", "content", "key"), TEXTS, ids=IDS)
@pytest.mark.parametrize("mark", ["", BOM])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_and_separators_are_no_lines_and_no_letters(
    folder, layout, view, files, name, content, key, mark, end
):
    encoded = (mark + content.replace("\n", end)).encode("utf-8")
    (folder / name).write_bytes(encoded)
    (example,) = load(folder, layout, view, files)
    found = example[key]
    assert (found[0] if isinstance(found, list) else found) == CAPTION


@pytest.mark.parametrize("mark", ["", BOM])
def test_the_lists_of_fgvc_aircraft_likewise(folder, mark):
    (folder / "v.txt").write_bytes(f"{mark}{CAPTION}\r\nother\n".encode())
    (folder / "l.txt").write_bytes(f"{mark}7\t{CAPTION}\r\n\n".encode())
    (example,) = load(folder, "fgvc-aircraft", "classes", {"list": "l.txt", "classes": "v.txt"})
    assert (example["id"], example["label"]) == ("s/7", CAPTION)
    assert example["classes"] == [CAPTION, "other"]


@pytest.mark.parametrize("mark", ["", BOM])
def test_the_files_of_wikitext_likewise(tmp_path, mark):
    (tmp_path / "test.txt").write_bytes(f"{mark} = A = \r\n{CAPTION}\n".encode())
    entry = {"name": "wikitext-2", "split": "test", "view": "text", "folder": str(tmp_path)}
    assert data.load(entry)[0]["text"] == f" = A = \n{CAPTION}\n"


@pytest.mark.parametrize(("layout", "view", "files", "name", "content", "key"), TEXTS, ids=IDS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings_are_told(folder, layout, view, files, name, content, key, encoding):
    plain = content.replace("\u2028", " ").replace("\u2029", " ")
    (folder / name).write_bytes(plain.encode(encoding))
    with pytest.raises(DataError, match=f"{name} is no text in UTF-8"):
        load(folder, layout, view, files)


CSV = [
    (
        "image,caption\na.png," + "long " * 32_000 + "\n",
        "after line 1: field larger than field limit",
    ),
    ('image,caption\na.png,"a cat\nb.png,a dog\n', "unexpected end of data"),
    ("image,caption\na.png,a cat, sitting\n", "row 1 has more fields than there are columns"),
    ("image,caption,caption\na.png,a,b\n", "two columns of one name"),
    ("image,caption\n,a cat\n", "'image' of an entry of .* is empty"),
]


@pytest.mark.parametrize(("content", "said"), CSV)
def test_what_a_csv_would_give_wrongly_is_told(folder, content, said):
    (folder / "l.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"l\.csv.*{said}|{said}"):
        load(folder, "image-text", "captions", {"captions": "l.csv"})


def test_a_csv_may_have_commas_and_line_breaks_in_quotes(folder):
    (folder / "l.csv").write_text('image,caption\na.png,"a cat,\nsitting"\n', encoding="utf-8")
    (example,) = load(folder, "image-text", "captions", {"captions": "l.csv"})
    assert example["captions"] == ["a cat,\nsitting"]


NAMES = [
    ("n.txt", "n1\n", "line 'n1' of .* has no class"),
    ("n.txt", "n1 cat\nn1 dog\n", "n1 'cat' and 'dog'"),
    ("n.json", '{"n1": ["cat"]}', "'n1' of .* is list"),
    ("n.json", '{"n1": null}', "'n1' of .* is empty"),
    ("n.json", '{"n1": NaN}', "'n1' of .* is empty"),
]


@pytest.mark.parametrize(("name", "content", "said"), NAMES)
def test_what_is_wrong_with_the_names_of_classes_is_told(folder, name, content, said):
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        load(folder, "class-folders", "classes", {"images": "classes", "classes": name})


def test_a_number_with_two_classes_and_a_question_with_two_annotations_are_told(folder):
    (folder / "s.json").write_text('{"test": [["a.png", 0, "a"], ["a.png", 0, "b"]]}', "utf-8")
    with pytest.raises(DataError, match="the class 0 'a' and 'b'"):
        load(folder, "coop", "classes", {"split_file": "s.json", "part": "test"})
    (folder / "q.json").write_text('{"questions": []}', "utf-8")
    note = '{"question_id": 1, "answers": [{"answer": "a"}]}'
    (folder / "a.json").write_text(f'{{"annotations": [{note}, {note}]}}', "utf-8")
    files = {"questions": "q.json", "annotations": "a.json", "images": "a.png"}
    with pytest.raises(DataError, match="2 annotations of 1 questions"):
        load(folder, "vqa", "vqa", files)


def grown(root):
    """A folder with what unpacking, phones and links leave in it."""
    good = ["one.jpg", "two.JPG", "three.gif", "four.jfif", "five.avif", "deep/six.webp"]
    for name in good:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {".jfif": "JPEG", ".JPG": "JPEG"}.get(name[name.rindex(".") :])
        Image.new("RGB", (8, 8)).save(root / name, kind)
    aside = ["phone.heic", "drawing.svg", "._one.jpg", ".DS_Store", "__MACOSX/._two.jpg"]
    for name in [*aside, "__MACOSX/one.jpg"]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    return good


def test_what_is_left_out_of_a_folder_is_counted_by_the_reason(tmp_path):
    root, beside = tmp_path / "root", tmp_path / "beside"
    good = grown(root)
    for name in good:
        (root / name).with_suffix(".txt").write_text("red", encoding="utf-8")
    beside.mkdir()
    Image.new("RGB", (8, 8)).save(beside / "seven.png")
    (beside / "seven.txt").write_text("red", encoding="utf-8")
    (root / "linked").symlink_to(beside)
    (root / "deep" / "again").symlink_to(root / "deep")
    (root / "deep" / "up").symlink_to(tmp_path)
    Image.new("RGB", (8, 8)).save(root / "alone.png")
    (root / "alone-too.txt").write_text("red", encoding="utf-8")
    entry = {"name": "x", "split": "s", "view": "captions", "layout": "image-text"}
    entry |= {"folder": str(root), "files": {"images": "."}}
    found = inspect.check(entry)
    ids = {example["id"] for example in data.load(entry)}
    assert ids == {f"s/{name}" for name in [*good, "linked/seven.png"]}
    assert found["examples"] == 7
    assert found["left_out"] == {
        "hidden files and folders": 3,  # ._one.jpg, .DS_Store, __MACOSX
        "links to a folder that is read already or holds all": 2,
        "files of the kind '.heic'": 1,
        "files of the kind '.svg'": 1,
        "pictures without a .txt": 1,
        ".txt without picture": 1,
    }


def test_what_is_left_out_of_class_folders_is_counted_by_the_reason(tmp_path):
    good = grown(tmp_path / "cat")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("x", encoding="utf-8")
    (tmp_path / "dog").symlink_to(tmp_path / "cat")
    entry = {"name": "x", "split": "s", "view": "classes", "layout": "class-folders"}
    entry |= {"folder": str(tmp_path), "files": {"images": "."}}
    found = inspect.check(entry)
    assert {example["label"] for example in data.load(entry)} == {"cat", "dog"}
    assert found["examples"] == 2 * (len(good) - 1)
    assert found["left_out"] == {
        "hidden files and folders": 2 + 2 * 3,
        "files in no class": 1,
        "folders in a class": 2,
        "files of the kind '.heic'": 2,
        "files of the kind '.svg'": 2,
    }


def test_a_folder_without_examples_tells_what_was_left_out(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no examples of 'x'.*1 files of the kind '\.heic'"):
        load(tmp_path, "image-text", "captions", {})
