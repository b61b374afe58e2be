"""A folder with one wrong file or folder of each kind: sources, sets, shards, predictions, runs, models."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore
from wds_real.synthetic import encode_image, write_source_tar

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BAD_KEY", "BAD_SHARD", "write_bad_files"]

BAD_SHARD = "imagenet2012_real-validation-000001.tar"
BAD_KEY = "ILSVRC2012_val_00000011"  # in BAD_SHARD

_NAME = "ILSVRC2012_val_00000001.JPEG"
_OTHER = "ILSVRC2012_val_00000002.JPEG"
_IMAGE = encode_image(5, side=16)


def write_bad_files(folder: Path) -> None:
    """Write them all; ``val.tar`` and ``shards`` are good: 20 images in two shards."""
    write_source_tar(folder / "val.tar", range(1, 21), side=16)
    with open_source(folder / "val.tar", allow_partial=True) as source:
        write_shards(source, LocalStore(folder / "shards"), samples_per_shard=10)
    _write_sources(folder)
    _write_real_json(folder)
    _write_sets(folder)
    _write_external(folder / "tars")
    _write_predictions(folder / "p")
    _write_runs(folder / "runs")
    (folder / "garbage.pt2").write_bytes(b"not a program" * 100)
    (folder / "empty.pt2").write_bytes(b"")


def _tar(path: Path, *members: tuple[str, bytes | str]) -> None:
    """Write a tar of files; a text in place of the bytes is the target of a symbolic link."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _write_sources(folder: Path) -> None:
    tar = (folder / "val.tar").read_bytes()
    for name, data in {
        "cut.tar": tar[: len(tar) // 2],
        "page.tar": b"<!DOCTYPE html><title>Sign in</title>",
        "empty.tar": b"",
        "gz.tar": gzip.compress(tar),
        "blank.tar": bytes(10240),
        "flipped.tar": _flipped(tar, 0),
        "trailing.tar": tar + b"x" * 512,
    }.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "zip.tar", "w") as archive:
        archive.writestr("a", "b")
    _tar(folder / "others.tar", (_NAME, _IMAGE), ("n01440764_10026.JPEG", _IMAGE))
    _tar(folder / "link.tar", (_NAME, _IMAGE), (_OTHER, _NAME))
    _tar(folder / "twice.tar", (_NAME, _IMAGE), (f"val/{_NAME}", _IMAGE))
    _tar(folder / "text.tar", (_NAME, b"hello"))
    _tar(folder / "hollow.tar", (_NAME, b""))
    _tar(folder / "wnid.tar", (_NAME.replace(".", "_n01440764."), _IMAGE))
    _tar(folder / "beyond.tar", ("ILSVRC2012_val_00050001.JPEG", _IMAGE))
    (folder / "nothing").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "readme.txt").write_text("x")


def _write_real_json(folder: Path) -> None:
    rest: list[list[int]] = [[]] * 49_999
    for name, value in {
        "short": [[1], [2]],
        "words": [["sea snake"], *rest],
        "high": [[1000], *rest],
        "double": [[1, 1], *rest],
        "flag": [[True], *rest],
        "flat": [1] * 50_000,
        "mapping": {},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "page.json").write_text("<html>")
    (folder / "nested.json").write_text("[" * 100_000)
    (folder / "binary.json").write_bytes(bytes(range(256)))


def _write_sets(folder: Path) -> None:
    manifest = (folder / "shards" / "manifest.json").read_text()
    body = json.loads(manifest)
    newer = json.dumps({**body, "format": {**body["format"], "version": 2}})
    index = (folder / "shards" / "index.json").read_text()
    for name, file, text in (
        ("unfinished", "manifest", None),
        ("page", "manifest", "<html>"),
        ("blank", "manifest", ""),
        ("list", "manifest", "[]"),
        ("cut_manifest", "manifest", manifest[:200]),
        ("edited", "manifest", manifest.replace('"validation"', '"train"', 1)),
        ("newer", "manifest", newer),
        ("double_field", "manifest", manifest.replace("{", '{"partial": false,', 1)),
        ("no_index", "index", None),
        ("cut_index", "index", index[:200]),
        ("page_index", "index", "<html>"),
    ):
        shutil.copytree(folder / "shards", folder / name)
        path = folder / name / f"{file}.json"
        path.unlink()
        if text is not None:
            path.write_text(text)
    for name in ("damaged", "cut", "lost"):
        shutil.copytree(folder / "shards", folder / name)
    (folder / "lost" / BAD_SHARD).unlink()
    damaged = folder / "damaged" / BAD_SHARD
    damaged.write_bytes(_flipped(damaged.read_bytes(), 512 + 100))
    os.truncate(folder / "cut" / BAD_SHARD, 1 << 13)


def _write_external(folder: Path) -> None:
    folder.mkdir()
    image, label = ("a.jpg", _IMAGE), ("a.cls", b"5")
    _tar(folder / "good.tar", image, label)
    _tar(folder / "nothing.tar")
    _tar(folder / "nolabel.tar", image)
    _tar(folder / "noimage.tar", label)
    _tar(folder / "two.tar", image, ("a.png", _IMAGE), label)
    _tar(folder / "high.tar", image, ("a.cls", b"1000"))
    _tar(folder / "disagree.tar", (_NAME.replace("JPEG", "jpg"), _IMAGE), (_NAME.replace("JPEG", "cls"), b"66"))
    _tar(folder / "notjson.tar", image, ("a.json", b"{"))
    _tar(folder / "latin.tar", image, ("a.cls", b"\xff"))
    _tar(folder / "again.tar", image, label, ("a.cls", b"6"))
    _tar(folder / "large.tar", image, ("a.json", b" " * (1 << 20) + b"{}"))
    _tar(folder / "keys.tar", image, label, ("b.jpg", _IMAGE), ("b.cls", b"5"), image, label)
    _tar(folder / "real.tar", image, ("a.json", b'{"label": 5, "real_label": [5, 5]}'))
    good = (folder / "good.tar").read_bytes()
    (folder / "gzip.tar").write_bytes(gzip.compress(good))
    (folder / "cut.tar").write_bytes(good[:1000])


def _write_predictions(folder: Path) -> None:
    folder.mkdir()
    row = f"filename,pred\n{_NAME}"
    for name, text in {
        "empty.csv": "",
        "page.csv": "<html><body>",
        "header.csv": "filename,pred\n",
        "names.csv": f"filename,x\n{_NAME},a\n",
        "part.csv": f"{row},1\n",
        "other.csv": f"filename,pred\n{_OTHER},1\n",
        "high.csv": f"{row},1000\n",
        "low.csv": f"{row},-1\n",
        "nan.csv": f"{row},nan\n",
        "half.csv": f"{row},1.5\n",
        "word.csv": f"{row},cat\n",
        "twice.csv": f"{row},1\n{_NAME},1\n",
        "unknown.csv": "filename,pred\ncat.jpg,1\n",
        "ragged.csv": f"{row},1\n{_OTHER},1,2,3\n",
        "lone.csv": f"filename\n{_NAME}\n",
        "short.csv": "1\n2\n3\n",
        "sheet.xlsx": "PK",
        "plain": "x",
        "page.json": "<html>",
        "nested.json": "[" * 100_000,
        "number.json": "5",
        "empty.json": "{}",
        "list.json": '[[1],"x"]',
        "lines.jsonl": '{"filename": "x"\n',
        "garbage.parquet": "PAR1xx",
        "garbage.npy": "x" * 100,
        "garbage.npz": "PK\3\4xx",
    }.items():
        (folder / name).write_text(text)
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 9)
    np.save(folder / "object.npy", np.array([{}], dtype=object))
    np.save(folder / "short.npy", np.zeros(5))
    np.save(folder / "columns.npy", np.zeros((10, 999), dtype=np.int8))
    np.save(folder / "text.npy", np.array(["a"]))
    np.save(folder / "cube.npy", np.zeros((2, 2, 2)))
    np.savez(folder / "other.npz", a=np.zeros(3))


def _write_runs(folder: Path) -> None:
    for name, text in (("empty", None), ("page", "<html>"), ("other", '{"format": {"name": "x", "version": 9}}')):
        (folder / name).mkdir(parents=True)
        if text is not None:
            (folder / name / "run.json").write_text(text)
