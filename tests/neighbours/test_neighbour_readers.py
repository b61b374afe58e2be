"""Other libraries read the shards, with the side files of `wds-real export`, and get the bytes that were packed.

Each test adds a row to the table at the end of scripts/neighbours.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as PillowImage

import wds_real
from wds_real import interop
from wds_real.packing.source import open_source
from wds_real.packing.writer import write_shards
from wds_real.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.neighbours, pytest.mark.filterwarnings("ignore")]  # the other libraries' warnings


@dataclasses.dataclass(frozen=True)
class Packed:
    """A folder of shards with all side files, and what is in it: JPEG and label of each sample, in key order."""

    root: Path
    dataset: wds_real.Dataset
    jpegs: list[bytes]
    labels: list[dict[str, Any]]

    @property
    def shards(self) -> list[str]:
        return [str(self.root / shard.name) for shard in self.dataset.manifest.shards]


@pytest.fixture(scope="module")
def shards(made_tar: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Packed:
    """The 650 real validation images where they are, otherwise 120 made-up ones, in several shards."""
    real_data: Callable[[str], Path] = request.getfixturevalue("real_data")
    try:
        tar = real_data("val-650.tar")
    except pytest.skip.Exception:
        tar = made_tar
    root = tmp_path_factory.mktemp("read")
    with open_source(tar, allow_partial=True) as source:
        write_shards(source, LocalStore(root), samples_per_shard=50 if tar == made_tar else 200)
    dataset = wds_real.open_dataset(root)
    before = {shard.name: (root / shard.name).read_bytes() for shard in dataset.manifest.shards}
    forms: tuple[Any, ...] = ("timm", "dali", "hf", "croissant")
    for form in forms:
        interop.write_side_files(LocalStore(root), interop.side_files(dataset, form))
    assert {name: (root / name).read_bytes() for name in before} == before
    jpegs = [bytes(dataset.reader.read(position)) for position in range(len(dataset))]
    labels = [_label(dataset, position) for position in range(len(dataset))]
    assert len(dataset) in (120, 650)
    return Packed(root, dataset, jpegs, labels)


def _label(dataset: wds_real.Dataset, position: int) -> dict[str, Any]:
    label = dataset.index.label(position)
    return {
        "file_name": label.file_name,
        "original_label": label.original_label,
        "real_label": list(label.real_label),
    }


def _pixels(jpeg: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(PillowImage.open(io.BytesIO(jpeg)).convert("RGB"))


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Callable[[str, str, int, str], None]:
    def add(library: str, what: str, num_samples: int, equal: str) -> None:
        record_property("reader", (library, version(library), what, num_samples, equal))

    return add


@pytest.mark.usefixtures("_files_left_open")
def test_webdataset(shards: Packed, row: Callable[[str, str, int, str], None]) -> None:
    """Stock webdataset reads JPEG and label of each sample."""
    wds = pytest.importorskip("webdataset")
    samples = list(wds.WebDataset(shards.shards, shardshuffle=False))
    assert [sample["jpg"] for sample in samples] == shards.jpegs
    assert [json.loads(sample["json"]) for sample in samples] == shards.labels
    row("webdataset", "WebDataset(shards): jpg, json", len(samples), "yes")


@pytest.mark.usefixtures("_files_left_open")
@pytest.mark.parametrize("target", ["original_label", "real_label"])
def test_timm(shards: Packed, row: Callable[[str, str, int, str], None], target: str) -> None:
    """create_dataset("wds/...") gives every image; the target is the original label, or the list of the ReaL labels."""
    pytest.importorskip("timm")
    from timm.data import create_dataset

    more = {} if target == "original_label" else {"target_key": target}
    dataset = create_dataset("wds/imagenet2012_real", str(shards.root), split="validation", **more)
    samples = list(dataset)
    assert len(dataset) == len(samples) == len(shards.jpegs)
    assert [label for _, label in samples] == [label[target] for label in shards.labels]
    for (image, _), jpeg in zip(samples, shards.jpegs, strict=True):
        np.testing.assert_array_equal(np.asarray(image), _pixels(jpeg))
    row("timm", f'create_dataset("wds/..."): image, {target}', len(samples), "yes, decoded")


@pytest.mark.usefixtures("_files_left_open")
def test_timm_gives_its_own_loader_all_images(shards: Packed) -> None:
    """A DataLoader with two workers over timm's data set gives each label as often as it is in the set."""
    pytest.importorskip("timm")
    from timm.data import create_dataset, create_transform
    from torch.utils.data import DataLoader

    dataset = create_dataset("wds/imagenet2012_real", str(shards.root), split="validation")
    dataset.transform = create_transform(32)
    found = [label for _, labels in DataLoader(dataset, batch_size=16, num_workers=2) for label in labels.tolist()]
    assert sorted(found) == sorted(label["original_label"] for label in shards.labels)


def test_dali(shards: Packed, row: Callable[[str, str, int, str], None]) -> None:
    """fn.readers.webdataset reads JPEG and label of each sample by the index files."""
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    indexes = [str(Path(path).with_suffix(".idx")) for path in shards.shards]

    @pipeline_def(batch_size=10, num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def pipeline() -> tuple[Any, ...]:
        return tuple(
            fn.readers.webdataset(
                paths=shards.shards,
                index_paths=indexes,
                ext=["jpg", "json"],
                missing_component_behavior="error",
                name="reader",
            )
        )

    made = pipeline()
    made.build()
    assert made.epoch_size("reader") == len(shards.jpegs)
    batches = [made.run() for _ in range(len(shards.jpegs) // 10)]
    jpegs, labels = ([bytes(np.asarray(item)) for batch in batches for item in batch[place]] for place in (0, 1))
    assert jpegs == shards.jpegs
    assert [json.loads(label) for label in labels] == shards.labels
    row("nvidia-dali-cuda120", "fn.readers.webdataset(index_paths=...): jpg, json", len(jpegs), "yes")


def test_index_files_are_those_of_wds2idx(shards: Packed, tmp_path: Path) -> None:
    """The .idx files are byte for byte what DALI's own tool writes."""
    wds2idx = pytest.importorskip("wds2idx")
    for path in shards.shards:
        with wds2idx.IndexCreator(path, str(tmp_path / "one.idx"), verbose=False) as creator:
            creator.create_index()
        assert Path(path).with_suffix(".idx").read_bytes() == (tmp_path / "one.idx").read_bytes()


@pytest.mark.parametrize("way", ["load_dataset(FOLDER)", 'load_dataset("webdataset", features=...)'])
def test_hugging_face(shards: Packed, tmp_path: Path, row: Callable[[str, str, int, str], None], way: str) -> None:
    """load_dataset gives JPEG and labels, by the card alone or with explicit features; both have the class names."""
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path)
    if way == "load_dataset(FOLDER)":
        dataset = datasets.load_dataset(str(shards.root), cache_dir=cache)["validation"]
    else:
        dataset = datasets.load_dataset(
            "webdataset",
            data_files={"validation": shards.shards},
            features=interop.huggingface_features(),
            split="validation",
            cache_dir=cache,
        )
    assert dataset.features == interop.huggingface_features()
    raw = dataset.cast_column("jpg", datasets.Image(decode=False))
    assert [image["bytes"] for image in raw["jpg"]] == shards.jpegs
    assert [dict(label) for label in raw["json"]] == shards.labels
    np.testing.assert_array_equal(np.asarray(dataset[0]["jpg"].convert("RGB")), _pixels(shards.jpegs[0]))
    row("datasets", f"{way}: jpg, json", len(raw), "yes")


def test_hugging_face_streams(shards: Packed) -> None:
    """With streaming=True the samples come from the shards, without a copy in a cache."""
    datasets = pytest.importorskip("datasets")
    stream = datasets.load_dataset(str(shards.root), split="validation", streaming=True)
    assert [dict(sample["json"]) for sample in stream] == shards.labels


def test_hugging_face_notices_another_number_of_samples(shards: Packed, tmp_path: Path) -> None:
    """The counts of the card are checked: a folder with other shards is not taken for the data set."""
    datasets = pytest.importorskip("datasets")
    from datasets.exceptions import NonMatchingSplitsSizesError

    folder = tmp_path / "other"
    shutil.copytree(shards.root, folder)
    shutil.copyfile(shards.shards[0], folder / shards.dataset.manifest.shards[-1].name)
    with pytest.raises(NonMatchingSplitsSizesError):
        datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_the_features_on_the_card_are_those_that_datasets_writes(shards: Packed) -> None:
    """The header of the card is the YAML form that the library gives to the same features."""
    pytest.importorskip("datasets")
    yaml = pytest.importorskip("yaml")
    header = yaml.safe_load((shards.root / "README.md").read_text("utf-8").split("---\n")[1])
    assert header["dataset_info"]["features"] == interop.huggingface_features()._to_yaml_list()


@pytest.fixture
def croissant(shards: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, extracting to a folder of this test: its cache takes shards of one name for the same."""
    mlc = pytest.importorskip("mlcroissant")
    from etils import epath

    module = "mlcroissant._src.operation_graph.operations.extract"
    monkeypatch.setattr(f"{module}.EXTRACT_PATH", epath.Path(tmp_path / "extracted"))
    assert shards.root.is_dir()
    return mlc


def test_croissant_is_valid(shards: Packed, croissant: Any) -> None:
    """The reference library has nothing to report, and finds version 1.1, the RAI fields and all shards."""
    metadata = croissant.Dataset(shards.root / "croissant.json").metadata
    assert (metadata.issues.report(), list(metadata.issues.errors), list(metadata.issues.warnings)) == ("", [], [])
    assert metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    assert metadata.data_limitations
    assert metadata.data_annotation_protocol
    hashes = {node.name: node.sha256 for node in metadata.distribution if getattr(node, "sha256", None)}
    assert {shard.name: shard.sha256 for shard in shards.dataset.manifest.shards}.items() <= hashes.items()


def test_croissant_records(shards: Packed, croissant: Any, row: Callable[[str, str, int, str], None]) -> None:
    """Records hold image and labels of each key, read from local files without a network."""
    records = list(croissant.Dataset(shards.root / "croissant.json").records("validation"))
    found = {record["validation/key"].decode("ascii"): record for record in records}
    assert sorted(found) == list(shards.dataset.keys)
    assert len(records) == len(found)
    for key, jpeg, label in zip(shards.dataset.keys, shards.jpegs, shards.labels, strict=True):
        record = found[key]
        assert record["validation/original_label"] == label["original_label"]
        assert list(record["validation/real_label"]) == label["real_label"]
        np.testing.assert_array_equal(np.asarray(record["validation/image"].convert("RGB")), _pixels(jpeg))
    row("mlcroissant", 'Dataset(...).records("validation"): image, both labels', len(records), "yes, decoded")


def test_croissant_notices_a_changed_shard(shards: Packed, croissant: Any, tmp_path: Path) -> None:
    """A shard that is not the one described is refused by its SHA-256."""
    folder = tmp_path / "changed"
    shutil.copytree(shards.root, folder)
    path = folder / shards.dataset.manifest.shards[0].name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(croissant._src.core.issues.GenerationError) as caught:
        list(croissant.Dataset(folder / "croissant.json").records("validation"))
    assert "is not identical with the reference" in str(caught.value.__cause__)


def test_torchdata(shards: Packed, row: Callable[[str, str, int, str], None]) -> None:
    """Nodes of torchdata over `ExactlyOnce` give JPEG and label of each sample."""
    nodes = pytest.importorskip("torchdata.nodes")
    source = nodes.IterableWrapper(interop.ExactlyOnce(shards.dataset, batch_size=16))
    batches = list(nodes.Loader(nodes.Batcher(source, batch_size=16, drop_last=False)))
    samples = [sample for batch in batches for sample in batch]
    assert [sample["jpg"] for sample in samples] == shards.jpegs
    assert [json.loads(sample["json"]) for sample in samples] == shards.labels
    row("torchdata", "nodes over interop.ExactlyOnce(ds): jpg, json", len(samples), "yes")


def test_ray_data(shards: Packed, row: Callable[[str, str, int, str], None]) -> None:
    """ray.data.read_webdataset reads JPEG and label of each sample."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.read_webdataset(shards.shards, decoder=None).take_all()
    finally:
        ray.shutdown()
    rows.sort(key=lambda sample: str(sample["__key__"]))
    assert [sample["jpg"] for sample in rows] == shards.jpegs
    assert [json.loads(sample["json"]) for sample in rows] == shards.labels
    row("ray", "data.read_webdataset(shards, decoder=None): jpg, json", len(rows), "yes")


def _litdata_sample(jpeg_and_label: tuple[bytes, str]) -> dict[str, Any]:
    return {"jpg": jpeg_and_label[0], "json": jpeg_and_label[1]}


def test_litdata(shards: Packed, tmp_path: Path, row: Callable[[str, str, int, str], None]) -> None:
    """litdata.optimize makes its own chunks of the samples, and StreamingDataset reads the same bytes from them."""
    litdata = pytest.importorskip("litdata")
    inputs = [(jpeg, json.dumps(label)) for jpeg, label in zip(shards.jpegs, shards.labels, strict=True)]
    out = tmp_path / "chunks"
    litdata.optimize(_litdata_sample, inputs, output_dir=str(out), chunk_bytes="4MB", num_workers=1)
    dataset = litdata.StreamingDataset(str(out), shuffle=False)
    samples = list(dataset)
    assert [sample["jpg"] for sample in samples] == shards.jpegs
    assert [json.loads(sample["json"]) for sample in samples] == shards.labels
    row("litdata", "optimize(...), then StreamingDataset: jpg, json", len(samples), "yes, a copy")
