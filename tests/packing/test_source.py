"""The validation images where they come from: which sources are taken, and what is said of those that are not."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wds_real.errors import SourceError, printable
from wds_real.labels import bundled, classes, load_real_json
from wds_real.packing import source as source_module
from wds_real.packing.source import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wds_real.packing.source import Source

Member = tuple[str, bytes]
OFFICIAL = "ILSVRC2012_val_00000001.JPEG"


@pytest.fixture(scope="module")
def pictures(made_tar: Path) -> dict[str, bytes]:
    """The first twelve made-up images, by official name, as the standard library reads them."""
    with tarfile.open(made_tar) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in sorted(files.items())[:12] if file is not None}


def make_tar(path: Path, members: Iterable[Member], *, tar_format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=tar_format, encoding="utf-8", errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_folder(path: Path, members: Iterable[Member]) -> Path:
    for name, data in members:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def hugging_face(name: str) -> str:
    wnid = classes()[bundled().by_file_name(name).original_label].wnid
    return name.replace(".JPEG", f"_{wnid}.JPEG")


def by_class(name: str) -> str:
    return f"{classes()[bundled().by_file_name(name).original_label].wnid}/{name}"


def content(source: Source) -> dict[str, bytes]:
    return {image.label.file_name: source.read(image) for image in source.images}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("seed", range(3))
def test_tar_members_in_any_order_come_in_key_order(
    pictures: dict[str, bytes], tmp_path: Path, tar_format: int, seed: int
) -> None:
    """Whatever the order of the tar's members and its dialect, images come sorted by key, each with its own bytes."""
    members = list(pictures.items())
    random.Random(seed).shuffle(members)  # noqa: S311 -- an order, not a secret
    path = make_tar(tmp_path / "val.tar", members, tar_format=tar_format)
    with open_source(path, allow_partial=True) as source:
        assert [image.label.file_name for image in source.images] == sorted(pictures)
        assert content(source) == pictures
        assert source.partial


@pytest.mark.parametrize("make", [make_tar, make_folder])
@pytest.mark.parametrize(
    "spell",
    [
        lambda name: name,
        lambda name: f"val/{name}",
        hugging_face,
        by_class,
        lambda name: by_class(hugging_face(name)),
        lambda name: name.replace(".JPEG", ".jpg"),
    ],
    ids=["flat", "one folder", "Hugging Face", "by class", "by class, Hugging Face", "lower case"],
)
def test_known_layouts_and_spellings_give_the_same_images(
    pictures: dict[str, bytes], tmp_path: Path, make: Callable[[Path, list[Member]], Path], spell: Callable[[str], str]
) -> None:
    """A tar or a folder, flat or by class, in the official or the Hugging Face spelling, holds the same images."""
    path = make(tmp_path / "val", [(spell(name), data) for name, data in pictures.items()])
    with open_source(path, allow_partial=True) as source:
        assert content(source) == pictures


@pytest.mark.parametrize("make", [make_tar, make_folder])
def test_files_of_file_managers_are_passed_over_with_a_line(
    pictures: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path, list[Member]], Path],
) -> None:
    """What they leave behind (.DS_Store, ._NAME, Thumbs.db, desktop.ini) is no image of another set."""
    names = (".DS_Store", f"._{OFFICIAL}", "val/.DS_Store", "val/Thumbs.db", "desktop.ini")
    litter = [(name, b"x") for name in names]
    with open_source(make(tmp_path / "val", [*litter, *pictures.items()]), allow_partial=True) as source:
        assert content(source) == pictures
    (line,) = caplog.messages
    assert "skipped 5 files that file managers leave" in line
    assert ".DS_Store" in line


def test_nothing_is_said_where_nothing_is_passed_over(made_tar: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line is about files that are there."""
    with open_source(made_tar, allow_partial=True):
        pass
    assert caplog.messages == []


def _change_in_place(path: Path) -> None:
    data, status = path.read_bytes(), path.stat()
    with path.open("r+b") as file:
        file.write(data[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(path: Path) -> None:
    status = path.stat()
    other = path.with_name(".other")
    other.write_bytes(bytes(status.st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [_change_in_place, _replace])
@pytest.mark.parametrize("how", ["read", "prefetch"])
def test_an_image_of_the_same_length_is_noticed(
    pictures: dict[str, bytes], tmp_path: Path, change: Callable[[Path], None], how: str
) -> None:
    """Another file under the name, or other bytes in it, even with the old time of the last write."""
    folder = make_folder(tmp_path / "val", pictures.items())
    with open_source(folder, allow_partial=True) as source:
        change(folder / source.images[3].label.file_name)
        source.read(source.images[2])
        with pytest.raises(SourceError, match=rf"{source.images[3].label.file_name} .*The source changed"):
            _read_all(source, how)


@pytest.mark.parametrize("change", [_change_in_place, _replace])
@pytest.mark.parametrize("how", ["read", "prefetch"])
def test_a_tar_that_changes_is_noticed(
    pictures: dict[str, bytes], tmp_path: Path, change: Callable[[Path], None], how: str
) -> None:
    """Though its length stays the same, and it is open."""
    path = make_tar(tmp_path / "val.tar", pictures.items())
    with open_source(path, allow_partial=True) as source:
        _read_all(source, how)
        change(path)
        with pytest.raises(SourceError, match=r"val\.tar.*The source changed"):
            _read_all(source, how)


def _read_all(source: Source, how: str) -> None:
    if how == "read":
        for image in source.images:
            source.read(image)
    else:
        with source.prefetch(source.images) as jpegs:
            list(jpegs)


def test_directories_in_a_tar_are_no_images(pictures: dict[str, bytes], tmp_path: Path) -> None:
    """A tar made of a folder, with entries for the folders themselves, is read like the folder."""
    folder = make_folder(tmp_path / "val", [(by_class(name), data) for name, data in pictures.items()])
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        tar.add(folder, arcname=".")
    with open_source(tmp_path / "val.tar", allow_partial=True) as source:
        assert content(source) == pictures


FOREIGN = {
    "zero": "ILSVRC2012_val_00000000.JPEG",
    "past the last": "ILSVRC2012_val_00050001.JPEG",
    "training image": "n01440764_10026.JPEG",
    "test image": "ILSVRC2012_test_00000001.JPEG",
    "another type": "ILSVRC2012_val_00000020.png",
    "nine digits": "ILSVRC2012_val_000000020.JPEG",
    "numbered copy": "ILSVRC2012_val_00000020 (1).JPEG",
    "trailing newline": "ILSVRC2012_val_00000020.JPEG\n",
    "a wnid that is not the label's": "ILSVRC2012_val_00000020_n01440764.JPEG",
    "digits of another script": "ILSVRC2012_val_\u0660\u0660\u0660\u0660\u0660\u0660\u0662\u0660.JPEG",
    "not UTF-8": "ILSVRC2012_val_\udcff.JPEG",
    "read me": "README.txt",
}


@pytest.mark.parametrize("make", [make_tar, make_folder])
@pytest.mark.parametrize("name", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_an_error_even_if_partial(
    pictures: dict[str, bytes], tmp_path: Path, make: Callable[[Path, list[Member]], Path], name: str
) -> None:
    """One file that is not a validation image, and the whole source is refused, by name; its path is said once."""
    path = make(tmp_path / "val", [*pictures.items(), (name, pictures[OFFICIAL])])
    with pytest.raises(SourceError) as caught:
        open_source(path, allow_partial=True)
    assert str(caught.value).count(str(path)) == 1
    assert printable(name) in str(caught.value)


@pytest.mark.parametrize("make", [make_tar, make_folder])
@pytest.mark.parametrize("copy", [hugging_face(OFFICIAL), f"copy/{OFFICIAL}", "ILSVRC2012_val_00000001.jpg"])
def test_an_image_that_is_there_twice_is_an_error(
    pictures: dict[str, bytes], tmp_path: Path, make: Callable[[Path, list[Member]], Path], copy: str
) -> None:
    """Two files of one image, spelled alike or not, are refused: one of them would be lost without a word."""
    path = make(tmp_path / "val", [*pictures.items(), (copy, b"other bytes")])
    with pytest.raises(SourceError, match=rf"1 images occur twice: {OFFICIAL}"):
        open_source(path, allow_partial=True)


def test_a_name_twice_in_a_tar_is_an_error(pictures: dict[str, bytes], tmp_path: Path) -> None:
    """A tar may hold a name twice, and tarfile lets the last one win; here it is an error."""
    path = make_tar(tmp_path / "val.tar", [*pictures.items(), (OFFICIAL, b"other bytes")])
    with pytest.raises(SourceError, match="twice"):
        open_source(path, allow_partial=True)


@pytest.mark.parametrize("make", [make_tar, make_folder])
def test_missing_images_are_counted_and_named(
    pictures: dict[str, bytes], tmp_path: Path, make: Callable[[Path, list[Member]], Path]
) -> None:
    """Fewer than the 50,000 images are an error that counts them, names the first ones and says what to do."""
    members = [member for member in pictures.items() if member[0] != OFFICIAL]
    with pytest.raises(SourceError) as caught:
        open_source(make(tmp_path / "val", members))
    message = str(caught.value)
    assert f"49,989 of the 50,000 validation images are missing: {OFFICIAL}, ILSVRC2012_val_00000013.JPEG" in message
    assert "--allow-partial" in message


@pytest.mark.parametrize("make", [make_tar, make_folder])
def test_a_source_without_images_is_an_error(tmp_path: Path, make: Callable[[Path, list[Member]], Path]) -> None:
    """A sound but empty tar or folder is not a small set."""
    (tmp_path / "val").mkdir() if make is make_folder else None
    with pytest.raises(SourceError, match="holds no validation image"):
        open_source(make(tmp_path / "val", []), allow_partial=True)


def _zip_of(pictures: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("empty", "the file is empty"),
        ("web page", "looks like a web page"),
        ("short web page", "looks like a web page"),
        ("gzip", "run gunzip"),
        ("zip", "unpack it"),
        ("zstd", "run unzstd"),
        ("JPEG", "an image, not a tar"),
        ("noise", "6,744,924,160 bytes"),
    ],
)
def test_something_else_than_a_tar_is_recognised(
    made_tar: Path, pictures: dict[str, bytes], tmp_path: Path, kind: str, advice: str
) -> None:
    """What downloads leave in place of the tar is named for what it is, with what to do."""
    data = {
        "empty": b"",
        "web page": b"\n<!DOCTYPE html><html>" + b"Please sign in. " * 200 + b"</html>",
        "short web page": b"<html>403</html>",
        "gzip": gzip.compress(made_tar.read_bytes()),
        "zip": _zip_of(pictures),
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(2000),
        "JPEG": pictures[OFFICIAL],
        "noise": random.Random(0).randbytes(5000),  # noqa: S311 -- reproducible noise
    }[kind]
    path = tmp_path / "ILSVRC2012_img_val.tar"
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        open_source(path, allow_partial=True)
    assert str(path) in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("kind", ["nothing", "nested too deep", "dangling link", "named pipe"])
def test_a_path_that_cannot_be_a_source_is_an_error(pictures: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    """What is not there, or not a file or folder of images, is a SourceError that names the path."""
    path = tmp_path / "val"
    if kind == "nested too deep":
        make_folder(path, [(f"val/{by_class(name)}", data) for name, data in pictures.items()])
    elif kind == "dangling link":
        make_folder(path, pictures.items())
        (path / "ILSVRC2012_val_00000020.JPEG").symlink_to(tmp_path / "gone")
    elif kind == "named pipe":
        os.mkfifo(path)
    with pytest.raises(SourceError, match=str(path)):
        open_source(path, allow_partial=True)


def test_links_to_images_are_followed(pictures: dict[str, bytes], tmp_path: Path) -> None:
    """A folder of symbolic links, as dataset managers keep them, is a folder of images."""
    kept = make_folder(tmp_path / "kept", pictures.items())
    (tmp_path / "val").mkdir()
    for name in pictures:
        (tmp_path / "val" / name).symlink_to(kept / name)
    with open_source(tmp_path / "val", allow_partial=True) as source:
        assert content(source) == pictures


@pytest.mark.parametrize("change", ["cut", "grown", "removed"])
def test_a_folder_that_changes_after_it_was_indexed_is_noticed(
    pictures: dict[str, bytes], tmp_path: Path, change: str
) -> None:
    """An image that is no longer as long as when it was found is an error that names it."""
    path = make_folder(tmp_path / "val", pictures.items()) / OFFICIAL
    with open_source(path.parent, allow_partial=True) as source:
        if change == "removed":
            path.unlink()
        else:
            path.write_bytes(b"" if change == "cut" else pictures[OFFICIAL] + b"x")
        with pytest.raises(SourceError, match=OFFICIAL):
            source.read(source.images[0])


def test_a_tar_that_is_cut_after_it_was_indexed_is_noticed(made_tar: Path, tmp_path: Path) -> None:
    """Bytes that are gone when they are read are an error, not a shorter image."""
    path = tmp_path / "val.tar"
    path.write_bytes(made_tar.read_bytes())
    with open_source(path, allow_partial=True) as source:
        last = max(source.images, key=lambda image: image.offset)
        os.truncate(path, last.offset + 1)
        with pytest.raises(SourceError, match=rf"{last.label.file_name} .* The source changed"):
            source.read(last)
        with (
            source.prefetch(source.images) as found,
            pytest.raises(SourceError, match=r"ILSVRC2012_val_\d{8}.JPEG .* The source changed"),
        ):
            for _ in found:
                pass


@pytest.mark.parametrize("block", [1, 20_000, 1 << 20])
@pytest.mark.parametrize("make", [make_tar, make_folder])
def test_images_come_one_after_the_other_as_they_are_read_alone(
    pictures: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path, list[Member]], Path],
    block: int,
) -> None:
    """Whatever their order in the tar, and however many of them are read at once."""
    monkeypatch.setattr(source_module, "_BLOCK_BYTES", block)
    mixed = sorted(pictures.items(), key=lambda item: item[0][::-1])
    expected = [pictures[name] for name in sorted(pictures)]
    for members in (list(pictures.items()), mixed):
        with open_source(make(tmp_path / f"val-{members is mixed}", members), allow_partial=True) as source:
            with source.prefetch(source.images) as found:
                assert [bytes(data) for data in found] == expected
            with source.prefetch(source.images[5:2:-1]) as found:
                assert [bytes(data) for data in found] == expected[5:2:-1]


@pytest.mark.parametrize("make", [make_tar, make_folder])
def test_threads_share_a_source(
    pictures: dict[str, bytes], tmp_path: Path, make: Callable[[Path, list[Member]], Path]
) -> None:
    """Reads from several threads at once give each its own image."""
    with open_source(make(tmp_path / "val", pictures.items()), allow_partial=True) as source:  # type: ignore[arg-type]
        wanted = source.images * 20
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(source.read, wanted))
    assert found == [pictures[image.label.file_name] for image in wanted]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd to count open files")
@pytest.mark.parametrize("name", [OFFICIAL, "foreign.txt"])
def test_no_file_is_left_open(tmp_path: Path, name: str) -> None:
    """Whether a source was closed or refused, its tar is not held open."""
    path = make_tar(tmp_path / "val.tar", [(name, b"x")])

    def held() -> int:
        return sum(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir())

    if name == OFFICIAL:
        with open_source(path, allow_partial=True):
            assert held() == 1
    else:
        with pytest.raises(SourceError):
            open_source(path, allow_partial=True)
    assert held() == 0


def test_other_labels_are_joined_by_file_name(pictures: dict[str, bytes], tmp_path: Path) -> None:
    """Labels given as a real.json reach the image whose number is the position in the list, plus one."""
    lists = [[position % 1000] for position in range(50_000)]
    (tmp_path / "real.json").write_text(json.dumps(lists))
    path = make_tar(tmp_path / "val.tar", reversed(pictures.items()))
    with open_source(path, labels=load_real_json(tmp_path / "real.json"), allow_partial=True) as source:
        assert [image.label.real_label for image in source.images] == [(number,) for number in range(12)]
        original = [image.label.original_label for image in source.images]
    assert original == list(bundled().original[:12])
