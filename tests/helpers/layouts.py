"""Small data sets in the real layouts: real file names, keys and columns, pictures of noise."""

import gzip
import json
from pathlib import Path

import numpy as np
from PIL import Image

TEXT = "a dog cat ball sits runs on in near red blue big small the mat house tree"
WORDS = TEXT.split()


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (18, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def sentence(number: int, length: int = 4) -> str:
    chosen = np.random.default_rng(number).choice(len(WORDS), length)
    return " ".join(WORDS[i] for i in chosen)


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def vqav2(folder: Path, count: int = 6) -> dict:
    """VQAv2: questions and annotations of two splits."""
    splits = {}
    for split, offset in (("train", 0), ("val", 100)):
        numbers = range(offset + 1, offset + count + 1)
        questions = [
            {"image_id": n, "question": f"what is {sentence(n, 2)} ?", "question_id": 10 * n}
            for n in numbers
        ]
        annotations = [
            {
                "question_id": 10 * n,
                "image_id": n,
                "answer_type": "other",
                "question_type": "what is",
                "multiple_choice_answer": "dog",
                "answers": [
                    {"answer": sentence(n + i, 1), "answer_confidence": "yes", "answer_id": i}
                    for i in range(1, 11)
                ],
            }
            for n in numbers
        ]
        asked = f"v2_OpenEnded_mscoco_{split}2014_questions.json"
        said = f"v2_mscoco_{split}2014_annotations.json"
        write(folder / asked, {"questions": questions})
        write(folder / said, {"annotations": annotations})
        pattern = f"{split}2014/COCO_{split}2014_{{image_id:012d}}.jpg"
        for n in numbers:
            picture(folder / pattern.format(image_id=n), n)
        splits[split] = {"questions": asked, "annotations": said, "images": pattern}
    return {"layout": "vqa", "folder": str(folder), "splits": splits}


def karpathy(folder: Path, count: int = 6, name: str = "dataset_flickr30k.json") -> dict:
    """Flickr30k as Karpathy split it."""
    images = []
    for split, offset in (("train", 0), ("test", 100)):
        for n in range(offset, offset + count):
            picture(folder / "flickr30k-images" / f"{n}.jpg", n)
            sentences = [{"raw": sentence(n + 1000 * i), "tokens": [], "sentid": i} for i in (1, 2)]
            images.append({"filename": f"{n}.jpg", "split": split, "sentences": sentences})
    write(folder / name, {"images": images, "dataset": "flickr30k"})
    files = {"captions": name, "images": "flickr30k-images"}
    splits = {split: {**files, "split": split} for split in ("train", "test")}
    return {"layout": "karpathy", "folder": str(folder), "splits": splits}


def cc3m(folder: Path, count: int = 8) -> dict:
    """CC3M as img2dataset writes it."""
    for n in range(count):
        picture(folder / "00000" / f"{n:09d}.jpg", n)
        write(folder / "00000" / f"{n:09d}.txt", sentence(n))
    return {"layout": "image-text", "folder": str(folder), "splits": {"train": {}}}


def c4(folder: Path, count: int = 12) -> dict:
    """A file of C4: gzipped JSON lines with text, timestamp and url."""
    rows = [
        {"text": sentence(n, 30), "timestamp": "2019-04-25T12:57:54Z", "url": "http://x"}
        for n in range(count)
    ]
    name = "en/c4-train.00000-of-01024.json.gz"
    (folder / "en").mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / name, "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    splits = {"train": {"split": "train", "data_files": name}}
    return {"layout": "hub", "folder": str(folder), "splits": splits}


def imagenet(folder: Path, count: int = 4) -> dict:
    """ImageNet: a folder per synset, names of the classes beside."""
    classes = {"n01": "dog", "n02": "cat", "n03": "big tree"}
    write(folder / "classes.json", classes)
    for split, offset in (("train", 0), ("val", 100)):
        for place, synset in enumerate(classes):
            for n in range(count):
                name = f"{synset}_{n}.JPEG"
                picture(folder / split / synset / name, offset + 10 * place + n)
    splits = {
        "train": {"images": "train", "classes": "classes.json"},
        "validation": {"images": "val", "classes": "classes.json"},
    }
    return {"layout": "class-folders", "folder": str(folder), "splits": splits}


def nlvr2(folder: Path, count: int = 6) -> dict:
    """NLVR2: a file of sentences per split, pictures of the training split in numbered folders."""
    for split, place in (("train", "images/train/{}"), ("dev", "dev")):
        lines = []
        for n in range(count):
            pair = f"{split}-{n}-0"
            for side in (0, 1):
                name = f"{pair}-img{side}.png"
                picture(folder / place.format(n % 2) / name, 2 * n + side + len(split))
            entry = {"identifier": f"{pair}-0", "sentence": sentence(n), "synset": "dog"}
            entry |= {"label": ("True", "False")[n % 2], "directory": n % 2, "query": "dogs0"}
            if split == "dev":
                del entry["directory"]
            lines.append(json.dumps(entry))
        write(folder / f"{split}.json", "\n".join(lines) + "\n")
    splits = {
        "train": {"sentences": "train.json", "images": "images/train"},
        "dev": {"sentences": "dev.json", "images": "dev"},
    }
    return {"layout": "nlvr2", "folder": str(folder), "splits": splits}
