"""Reads and writes every artifact. The only module that knows file formats.

Each artifact carries a header (schema version, kind, the path it was written to, provenance, and
the digest of the whole file), so that a damaged file, and one of ``results`` that was copied into
another's place, are found whenever they are read. Writing is atomic: a temporary file beside the
target, flushed to the disk, then renamed. Nothing here reads or writes pickle.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ecoflap import measure
from ecoflap.errors import ArtifactError

SCHEMA_VERSION = 3
RESULTS = "results"
HEADER = "ecoflap"
MARK = "ecoflap-sha256:"  # stands before the digest of a file within that file
DIGITS = 64
UNSEALED = MARK + "0" * DIGITS


def header(kind: str, *, rule: str, code: Mapping | str, config: Mapping, **facts: Any) -> dict:
    """Builds the provenance header of an artifact.

    Args:
        kind: What the artifact is, such as ``scores``.
        rule: The rule or function that made it.
        code: The code that made it, as `code.code_of` describes it.
        config: The config values that it depends on, as `settings` gives them.
        facts: Further facts: seed, device, hashes of the inputs.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "rule": rule,
        "code": code,
        "config": dict(config),
        "versions": measure.versions(),
        **facts,
    }


def file_hash(path: Path | str) -> str:
    """Returns the SHA-256 of a file; of a checkpoint folder, that of its manifest."""
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.json"
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def input_hashes(paths: Iterable[str]) -> dict[str, str]:
    """Returns the hash of each input by its path."""
    return {str(path): file_hash(path) for path in paths}


def _digest(file: mmap.mmap) -> tuple[int, str]:
    """Returns where the digest of a file stands in it and what it must be.

    It is the SHA-256 of the file with zeros in its place. -1 if there is no such place.
    """
    mark = file.find(MARK.encode())
    if mark < 0:
        return mark, ""
    start = mark + len(MARK)
    with memoryview(file) as view, view[:start] as before, view[start + DIGITS :] as after:
        digest = hashlib.sha256(before)
        digest.update(b"0" * DIGITS)
        digest.update(after)
    return start, digest.hexdigest()


def _seal(path: Path) -> None:
    """Puts the digest of a file into it."""
    with path.open("rb+") as file, mmap.mmap(file.fileno(), 0) as content:
        start, digest = _digest(content)
        content[start : start + DIGITS] = digest.encode()
        content.flush()


def _check_seal(path: Path) -> None:
    """Refuses a file whose digest is wrong; one without any is left to `_check`."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            start, digest = _digest(content)
            whole = start < 0 or content[start : start + DIGITS] == digest.encode()
    except OSError as error:
        raise _damaged(path, error) from error
    except ValueError as error:
        raise _damaged(path, "it is empty") from error
    if not whole:
        raise _damaged(path, "its bytes are not those that were written")


class _Atomic:
    """A path to write to, renamed to the target when the ``with`` block ends well.

    Args:
        target: The path in the end.
        sealed: Whether what is written has a header, whose digest is filled in.
    """

    def __init__(self, target: Path | str, *, sealed: bool = True):
        self.target = Path(target)
        self.sealed = sealed
        self.temporary = self.target.with_name(self.target.name + ".tmp")

    def __enter__(self) -> Path:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self.temporary.unlink(missing_ok=True)  # gone already if all went well

    def _finish(self) -> None:
        if self.sealed:
            _seal(self.temporary)
        with self.temporary.open("rb+") as file:
            os.fsync(file.fileno())
        share(self.temporary)
        self.temporary.replace(self.target)


def share(path: Path) -> None:
    """Lets others read a file as far as the umask says; safetensors lets its owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _placed(head: Mapping, path: Path | str) -> dict:
    return {**head, "file": os.path.normpath(path), "digest": UNSEALED}


def _check(head: Any, path: Path, kind: str) -> dict:
    if not isinstance(head, dict) or head.get("kind") != kind:
        seen = head.get("kind") if isinstance(head, dict) else None
        raise ArtifactError(
            f"{path} holds '{seen}'",
            allowed=kind,
            fix="Delete the file and run its rule again.",
        )
    if head.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {head.get('schema_version')}",
            allowed=str(SCHEMA_VERSION),
            fix="Delete the file and run its rule again.",
        )
    if not str(head.get("digest")).startswith(MARK):
        raise _damaged(path, "its digest is missing")
    folder, *place = Path(head["file"]).parts
    if folder == RESULTS and list(path.absolute().parts[-len(place) :]) != place:
        raise ArtifactError(
            f"{path} was written as {head['file']} and copied here",
            allowed="the file that its own rule wrote",
            fix="Delete the file and run its rule again.",
        )
    return head


def _damaged(path: Path, error: Exception | str) -> ArtifactError:
    return ArtifactError(
        f"cannot read {path} ({error})",
        allowed="a whole file",
        fix="Delete it and run its rule again.",
    )


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file without a header atomically."""
    with _Atomic(path, sealed=False) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_number(value: float) -> float | str | None:
    """Returns a number as JSON can hold it: None if it is no number, "inf" or "-inf" as text.

    ``float`` reads the texts back.
    """
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def write_json(path: Path | str, content: Mapping, head: Mapping) -> None:
    """Writes a JSON artifact; keys keep their order, so the same content gives the same bytes."""
    head = _placed(head, path)
    text = json.dumps({HEADER: head, **content}, indent=1, allow_nan=False) + "\n"
    with _Atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str, kind: str) -> dict:
    """Reads a JSON artifact of a kind, header included under ``ecoflap``.

    Raises:
        ArtifactError: if it is missing, damaged, or of another kind or version.
    """
    path = Path(path)
    _check_seal(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    _check(content.get(HEADER) if isinstance(content, dict) else None, path, kind)
    return content


def write_table(path: Path | str, frame: Any, head: Mapping) -> None:
    """Writes a pandas DataFrame as parquet with the header in the schema's metadata."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), HEADER.encode(): json.dumps(_placed(head, path)).encode()}
    )
    with _Atomic(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def read_table(path: Path | str, kind: str) -> tuple[Any, dict]:
    """Reads a parquet artifact of a kind; returns the DataFrame and the header."""
    import pyarrow.parquet

    path = Path(path)
    _check_seal(path)
    try:
        # The table's own schema has a second copy of the header, made before the digest was known.
        with pyarrow.parquet.ParquetFile(path) as file:
            head = json.loads((file.metadata.metadata or {}).get(HEADER.encode(), b"null"))
            table = file.read()
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return table.to_pandas(), _check(head, path, kind)


def read_scores(paths: Iterable[Path | str], folder: Path | str) -> dict[str | None, Any]:
    """Reads tables of scores, by the names of their files; None: the matrices of a checkpoint.

    Args:
        paths: Files of compute_scores.
        folder: The checkpoint.
    """
    import pandas as pd

    matrices = {None: pd.DataFrame(read_manifest(folder)["matrices"])}
    return matrices | {Path(path).stem: read_table(path, "scores")[0] for path in paths}


def write_tensors(
    path: Path | str, tensors: Mapping[str, Any], head: Mapping, *, name: str | None = None
) -> None:
    """Writes torch tensors as safetensors with the header in the file's metadata.

    Args:
        path: The file.
        tensors: What to write.
        head: Provenance header.
        name: What the header says that the file is; its path if None, which is nobody's concern
            where the file leaves ``results``.
    """
    from safetensors.torch import save_file

    placed = json.dumps(_placed(head, name or path))
    with _Atomic(path) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={HEADER: placed})


def read_tensors(path: Path | str, kind: str) -> tuple[dict[str, Any], dict]:
    """Reads a safetensors artifact of a kind; returns the tensors and the header."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_seal(path)
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {}).get(HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(path, error) from error
    return tensors, _check(head, path, kind)


def read_header(path: Path | str, kind: str) -> dict:
    """Reads the header of an artifact of a kind, having checked the whole file.

    Of a checkpoint folder it is the header of its manifest.

    Raises:
        ArtifactError: if it is missing, damaged, or of another kind or version.
    """
    path = Path(path)
    if path.is_dir():
        return read_manifest(path, kind)[HEADER]
    if path.suffix == ".parquet":
        return read_table(path, kind)[1]
    if path.suffix == ".safetensors":
        return read_tensors(path, kind)[1]
    return read_json(path, kind)[HEADER]


def write_manifest(folder: Path | str, head: Mapping, matrices: list[dict]) -> None:
    """Writes ``manifest.json`` into a checkpoint folder.

    Args:
        folder: The checkpoint; the hash of every file in it is recorded.
        head: Provenance header.
        matrices: The prunable matrices: tower, block, name, n_weights, n_out, n_in.
    """
    folder = Path(folder)
    files = {
        str(path.relative_to(folder)): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", ".snakemake_timestamp")
    }
    write_json(folder / "manifest.json", {"files": files, "matrices": matrices}, head)


def read_manifest(folder: Path | str, kind: str = "model") -> dict:
    """Reads the manifest of a checkpoint folder."""
    return read_json(Path(folder) / "manifest.json", kind)


def checked(folder: Path | str, kind: str = "model") -> Path:
    """Returns a checkpoint folder whose files are those that its manifest names.

    Raises:
        ArtifactError: if a file is missing or has changed.
    """
    folder = Path(folder)
    for name, expected in read_manifest(folder, kind)["files"].items():
        file = folder / name
        if not file.is_file() or file_hash(file) != expected:
            raise ArtifactError(
                f"{file} is {'changed' if file.is_file() else 'missing'}",
                allowed="the file that its rule wrote",
                fix=f"Delete {folder} and run the same command again.",
            )
    return folder
