"""Text is read and written in UTF-8, also where the locale of the machine is another."""

import ast
import json
import os
import subprocess
import sys

import pandas as pd
from PIL import Image

from helpers.configs import ROOT

SOURCES = sorted((ROOT / "workflow").rglob("*.py"))
MODES = {"r", "w", "a", "x", "rt", "wt"}
CAFE = "caf\xe9 \u2028 \u6f22"  # of 2 and 3 bytes in UTF-8


def unnamed(source):
    """Yields the lines of calls that read or write text in the encoding of the locale.

    Those that the linter does not see (PLW1514), which must know that something is a Path.
    """
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        method, owner = call.func.attr, ast.unparse(call.func.value)
        named = {keyword.arg for keyword in call.keywords}
        modes = {argument.value for argument in call.args if isinstance(argument, ast.Constant)}
        text = method in ("read_text", "write_text") and owner != "artifacts"
        text |= method == "open" and ("newline" in named or bool(modes & MODES))
        text |= bool(named & {"text", "universal_newlines"}) and owner == "subprocess"
        if text and "encoding" not in named:
            yield call.lineno


def test_each_text_file_is_opened_with_an_encoding():
    assert len(SOURCES) > 100
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in SOURCES}
    assert [f"{path}:{line}" for path, text in texts.items() for line in unnamed(text)] == []
    for wrong in (
        "p.read_text()",
        "p.open('w')",
        "p.open(newline='')",
        "subprocess.run(a, text=1)",
    ):
        assert list(unnamed(wrong)) == [1]


CHAIN = """
import json, sys, warnings
from pathlib import Path

warnings.filterwarnings("error", category=EncodingWarning, module=r"ecoflap(_pipeline)?\\b")
import pandas as pd
from ecoflap import artifacts
from ecoflap.data import inspect, load
from ecoflap_pipeline import job
from ecoflap_pipeline.config import check as config
from ecoflap_pipeline.report import tables
from ecoflap.data.overlap import files_of

log = job.start_job("log/job.log")
assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
entries = json.loads(Path("entries.json").read_text(encoding="utf-8"))
list(config.files_problems(["mine.yaml"]))
seen = {}
for key, entry in entries.items():
    found = inspect.check(entry)
    examples = load(entry)
    log.info("%s: %s", key, examples[0]["id"])
    for example in examples:
        example["file"] = "image" in example and example.pop("image").open().getpixel((0, 0))
    seen[key] = {**found, "examples": examples, "files": len(files_of(entry))}
head = artifacts.header("dataset", rule="x", code={"hash": "x"}, config=entries)
artifacts.write_json("out/seen.json", seen, head)
assert artifacts.read_json("out/seen.json", "dataset")["text"]["files"] == 1
frame = pd.DataFrame({"id": [e["id"] for e in seen["list"]["examples"]]})
artifacts.write_table("out/seen.parquet", frame, head)
artifacts.write_text("out/seen.csv", frame.to_csv(index=False))
"""


def test_data_with_other_letters_are_read_and_written_in_a_plain_c_locale(tmp_path):
    pictures, name = tmp_path / "pictures", "caf\xe9.png"
    for folder in (pictures / "one", pictures / "\u6f22_\u5b57"):
        folder.mkdir(parents=True)
        Image.new("RGB", (2, 2), "red").save(folder / name)
        (folder / name).with_suffix(".txt").write_text(CAFE, encoding="utf-8")
    rows = [{"image": f"\u6f22_\u5b57/{name}", "caption": CAFE}]
    (tmp_path / "list.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    lines = f"one {CAFE}\n\u6f22_\u5b57\t\u6f22\n"
    (tmp_path / "names.txt").write_text(lines, encoding="utf-8")
    texts = tmp_path / "hub"
    texts.mkdir()
    (texts / "train.jsonl").write_text(json.dumps({"text": CAFE}, ensure_ascii=False), "utf-8")
    (texts / "train.txt").write_bytes(b"\xef\xbb\xbf" + CAFE.encode())
    (tmp_path / "mine.yaml").write_text(f"run: ['{CAFE}']\n", encoding="utf-8")

    def entry(layout, view, folder=".", **files):
        made = {"name": "x", "split": "train", "view": view, "layout": layout, "folder": folder}
        return {**made, "files": files}

    entries = {
        "list": entry("image-text", "captions", captions="list.json", images="pictures"),
        "beside": entry("image-text", "captions", images="pictures"),
        "classes": entry("class-folders", "classes", images="pictures"),
        "named": entry("class-folders", "classes", images="pictures", classes="names.txt"),
        "json": entry("hub", "text", folder="hub", data_files="train.jsonl"),
        "text": entry("hub", "text", folder="hub", data_files="train.txt"),
    }
    (tmp_path / "entries.json").write_text(json.dumps(entries), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment |= {"PYTHONPATH": str(ROOT / "workflow" / "scripts"), "HF_HOME": str(tmp_path)}
    environment.pop("PYTHONIOENCODING", None)
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", CHAIN],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    log = (tmp_path / "log" / "job.log").read_text(encoding="utf-8")
    assert done.returncode == 0, log + done.stderr
    seen = json.loads((tmp_path / "out" / "seen.json").read_text(encoding="utf-8"))
    there = f"\u6f22_\u5b57/{name}"
    assert [e["id"] for e in seen["list"]["examples"]] == [f"train/{there}"]
    assert f"list: train/{there}" in log
    assert [e["id"] for e in seen["beside"]["examples"]] == [f"train/one/{name}", f"train/{there}"]
    for key, read in (("list", "captions"), ("beside", "captions"), ("json", "text")):
        found = seen[key]["examples"][0][read]
        assert (found if read == "text" else found[0]) == CAFE
    assert seen["text"]["examples"][0]["text"] == CAFE
    assert [e["label"] for e in seen["classes"]["examples"]] == ["one", "\u6f22 \u5b57"]
    assert [e["label"] for e in seen["named"]["examples"]] == [CAFE, "\u6f22"]
    assert pd.read_parquet(tmp_path / "out" / "seen.parquet")["id"].item() == f"train/{there}"
    assert there in (tmp_path / "out" / "seen.csv").read_bytes().decode("utf-8")
