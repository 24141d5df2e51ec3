"""Artifacts: round trips, atomic writing, and damage found by name."""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from ecoflap import artifacts
from ecoflap.errors import ArtifactError
from ecoflap.masks import pack_mask, unpack_mask


def head(kind):
    return artifacts.header(kind, rule="test", code="c0de", config={"a": 1}, seed=3)


def write(kind, path):
    if kind == "json":
        artifacts.write_json(path, {"numbers": [1, 2.5, None]}, head(kind))
    elif kind == "parquet":
        artifacts.write_table(path, pd.DataFrame({"a": [1, 2], "b": [[1.0], []]}), head(kind))
    else:
        artifacts.write_tensors(path, {"t": torch.arange(6).reshape(2, 3).T}, head(kind))


def read(kind, path, expected=None):
    reader = {
        "json": artifacts.read_json,
        "parquet": artifacts.read_table,
        "safetensors": artifacts.read_tensors,
    }[kind]
    return reader(path, expected or kind)


KINDS = ["json", "parquet", "safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_and_same_bytes(kind, tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        write(kind, "results/file")
    one, two = tmp_path / "one/results/file", tmp_path / "two/results/file"
    assert one.read_bytes() == two.read_bytes()
    content = read(kind, one)
    if kind == "json":
        assert content["numbers"] == [1, 2.5, None]
        assert content["ecoflap"]["code"] == "c0de"
    elif kind == "parquet":
        assert content[0]["a"].tolist() == [1, 2]
        assert content[1]["seed"] == 3
    else:
        assert torch.equal(content[0]["t"], torch.arange(6).reshape(2, 3).T)
        assert content[1]["config"] == {"a": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_copied_into_the_place_of_another_is_found(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(kind, "results/seed0/file")
    Path("results/seed1").mkdir()
    shutil.copy("results/seed0/file", "results/seed1/file")
    read(kind, "results/seed0/file")
    with pytest.raises(ArtifactError, match="seed1/file was written as results/seed0/file"):
        read(kind, "results/seed1/file")
    Path("results").rename("scratch")
    Path("results").symlink_to("scratch")
    read(kind, "results/seed0/file")
    read(kind, Path("results/seed0/file").resolve())


@pytest.mark.parametrize("kind", KINDS)
def test_everyone_whom_the_umask_allows_may_read(kind, tmp_path):
    write(kind, tmp_path / "file")
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", KINDS)
def test_damage_kind_and_version_are_found_by_name(kind, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(kind, path)
    with pytest.raises(ArtifactError, match="file holds"):
        read(kind, path, "something else")
    monkeypatch.setattr(artifacts, "SCHEMA_VERSION", 4)
    with pytest.raises(ArtifactError, match="schema version 3. Allowed: 4"):
        read(kind, path)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="cannot read .*file"):
        read(kind, path)
    with pytest.raises(ArtifactError, match="missing"):
        read(kind, tmp_path / "missing")


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_found(kind, tmp_path):
    path = tmp_path / "file"
    write(kind, path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="file"):
            read(kind, path)
    path.write_bytes(whole)
    read(kind, path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(kind, tmp_path):
    write(kind, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    before, mark, after = content.partition(b"ecoflap-sha256:")
    digest, rest = after[:64], after[64:]
    assert hashlib.sha256(before + mark + b"0" * 64 + rest).hexdigest() == digest.decode()


def test_an_artifact_of_an_older_version_without_a_digest_is_told_as_such(tmp_path):
    old = {**head("json"), "schema_version": 2, "file": "results/file"}
    (tmp_path / "file").write_text(json.dumps({"ecoflap": old}))
    with pytest.raises(ArtifactError, match="schema version 2. Allowed: 3"):
        read("json", tmp_path / "file")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_what_was_there(kind, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write(kind, path)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(kind, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.json"
    artifacts.write_json(path, {"a": 1}, head("json"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(path, {"a": float("nan")}, head("json"))
    unwritable = pd.DataFrame({"a": [object()]})
    with pytest.raises(Exception, match="object"):
        artifacts.write_table(path, unwritable, head("parquet"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_mask_of_another_shape_is_refused():
    packed = pack_mask(torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(ArtifactError, match="does not fit"):
        unpack_mask(packed, (30, 5))


def test_the_manifest_lists_every_file_with_its_hash(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    artifacts.write_manifest(tmp_path, head("model"), [{"name": "m"}])
    content = artifacts.read_manifest(tmp_path)
    assert content["files"] == {
        # sha256sum of the one letter
        "a.txt": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    }
    assert content["matrices"] == [{"name": "m"}]
    assert artifacts.file_hash(tmp_path) == artifacts.file_hash(tmp_path / "manifest.json")
    json.dumps(content, allow_nan=False)


@pytest.mark.parametrize(("content", "seen"), [(b"two", "is changed"), (None, "is missing")])
def test_a_checkpoint_that_changed_after_it_was_prepared_is_refused(tmp_path, content, seen):
    (tmp_path / "weights").write_bytes(b"one")
    artifacts.write_manifest(tmp_path, head("model"), [])
    assert artifacts.checked(tmp_path) == tmp_path
    if content is None:
        (tmp_path / "weights").unlink()
    else:
        (tmp_path / "weights").write_bytes(content)
    with pytest.raises(ArtifactError, match=seen):
        artifacts.checked(tmp_path)


@pytest.mark.parametrize("value", [1.5, float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_has_not_are_stored_and_read_back(value, tmp_path):
    path = tmp_path / "a.json"
    artifacts.write_json(path, {"a": artifacts.json_number(value)}, head("json"))
    found = artifacts.read_json(path, "json")["a"]
    assert (found is None) if value != value else float(found) == value
