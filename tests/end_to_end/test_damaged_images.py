"""Images that were damaged before packing: pack, verify, loaders and results name them, and the pixels are Pillow's."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
import torch

from wds_real.data.dataset import open_dataset
from wds_real.data.loader import Loader
from wds_real.evaluation.loop import evaluate
from wds_real.evaluation.metric import RealAccuracy
from wds_real.evaluation.options import EvalOptions
from wds_real.image.transform import EvalTransform
from wds_real.packing.verification import verify
from wds_real.scoring.run.output import merge
from wds_real.storage.local import LocalStore
from wds_real.synthetic import encode_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.commands import Ended

SMALL = EvalTransform(32)
CUT, ZEROED = "ILSVRC2012_val_00000003", "ILSVRC2012_val_00000011"


def model(images: torch.Tensor) -> torch.Tensor:
    """Return scores that depend on the pixels."""
    return images.mean(dim=(1, 2, 3))[:, None] * torch.linspace(-1, 1, 1000)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of 20 images, of which one is cut in half with an end marker, and one is zeroed in its middle."""
    path = tmp_path_factory.mktemp("source") / "val.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(1, 21):
            name = f"ILSVRC2012_val_{number:08d}"
            data = encode_image(number, side=160)
            middle = len(data) - (len(data) - data.rindex(b"\xff\xda")) // 2
            if name == CUT:
                data = data[:middle] + b"\xff\xd9"
            if name == ZEROED:
                size = (len(data) - middle) // 2
                data = data[: middle - size] + bytes(size) + data[middle:]
            member = tarfile.TarInfo(f"{name}.JPEG")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def packed_again(source: Path, tmp_path: Path, run: Callable[..., Ended]) -> tuple[Path, Ended]:
    ended = run("pack", source, tmp_path / "root", "--allow-partial", "--samples-per-shard", "8")
    return tmp_path / "root", ended


def test_pack_warns(source: Path, tmp_path: Path) -> None:
    """Packing succeeds, since the source is what it is, and names both images on stderr."""
    command = [sys.executable, "-m", "wds_real", "pack", str(source), str(tmp_path / "root"), "--allow-partial"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    named = [line for line in ended.stderr.splitlines() if "the decoder warns" in line]
    assert len(named) == 2
    assert CUT in named[0]
    assert ZEROED in named[1]


def test_verify_reports_the_keys(packed_again: tuple[Path, Ended], run: Callable[..., Ended]) -> None:
    """Level decode names both images and ends with 0: the set is what was packed. The other levels do not decode."""
    root, _ = packed_again
    ended = run("verify", root, "--level", "decode")
    assert ended.code == 0
    assert "20 images, every image decoded, 2 of them with warnings" in ended.out
    lines = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert [CUT in lines[0], ZEROED in lines[1]] == [True, True]
    report = verify(LocalStore(root), level="decode")
    assert report.problems == ()
    assert len(report.warnings) == 2
    assert verify(LocalStore(root), level="full").warnings == ()
    assert len(json.loads(run("verify", root, "--level", "decode", "--json").out)["warnings"]) == 2


def test_batches_carry_the_rows(packed_again: tuple[Path, Ended], tmp_path: Path) -> None:
    """`Batch.warned` has the rows, also if the other images come from a pixel cache, and with any transform."""
    dataset = open_dataset(packed_again[0])

    def warned(**options: object) -> list[str]:
        batches = list(Loader(dataset, batch_size=7, **{"transform": SMALL, "check_files": True, **options}))  # type: ignore[arg-type]
        return [batch.key[row] for batch in batches for row in batch.warned]

    assert warned() == warned(threads=1) == [CUT, ZEROED]
    assert warned(transform=lambda image: image.resize((8, 8))) == [CUT, ZEROED]
    assert warned(check_files=False, pixel_cache=tmp_path) == [CUT, ZEROED]
    assert warned(check_files=False, pixel_cache=tmp_path) == [CUT, ZEROED]
    assert set(warned(check_files=False)) <= {CUT, ZEROED}


def test_results_name_the_images(packed_again: tuple[Path, Ended], tmp_path: Path, run: Callable[..., Ended]) -> None:
    """A run, its resumption, the merge of its records and a metric of two halves name the same images."""
    root, _ = packed_again
    dataset, options = open_dataset(root), EvalOptions(batch_size=4, device="cpu")
    output = tmp_path / "out"
    result = evaluate(model, dataset, transform=SMALL, options=options, output=output)
    assert result.warned == (CUT, ZEROED)
    assert f" 2 images decoded with warnings, perhaps damaged: {CUT}, {ZEROED}" in str(result)
    assert json.loads((output / "result.json").read_text())["decoded_with_warnings"] == [CUT, ZEROED]
    records = next((output / "records").glob("*.bin"))
    records.write_bytes(records.read_bytes()[: records.stat().st_size // 2])
    resumed = evaluate(model, dataset, transform=SMALL, options=options, output=output)
    assert resumed.warned == merge(output, dataset)[0].warned == (CUT, ZEROED)
    assert "decoded with warnings" in run("merge", output).out
    halves = [RealAccuracy(dataset, sync_on_compute=False) for _ in range(2)]
    for rank, half in enumerate(halves):
        loader = Loader(dataset, batch_size=4, transform=SMALL, rank=rank, world_size=2, check_files=True)
        for batch in loader:
            half.update(model(batch.image.float()), batch)
    assert halves[0].merge_state(halves[1:]).compute().warned == (CUT, ZEROED)


def test_a_result_without_warnings_does_not_speak_of_them(packed: Path) -> None:
    """Neither the table nor result.json has a line on warnings if there are none."""
    options = EvalOptions(batch_size=64, device="cpu")
    result = evaluate(model, open_dataset(packed), transform=SMALL, options=options)
    assert result.warned == ()
    assert "warnings" not in str(result)
    assert "decoded_with_warnings" not in result.as_dict()


def test_a_state_of_an_earlier_version_is_loaded(packed: Path) -> None:
    """A table of 12 columns, without that of the warnings, still loads."""
    dataset = open_dataset(packed)
    metric, other = RealAccuracy(dataset), RealAccuracy(dataset)
    metric.update(torch.zeros(len(dataset), dtype=torch.int64), dataset.keys)
    other.load_state_dict({"table": metric.state_dict()["table"][:, :12]})
    assert str(other.compute()) == str(metric.compute())
