"""The whole public API as a user writes it. It is type-checked, not run: mypy checks it with the tests.

A test asserts that every public name is used here. A changed signature or type shows as an error in this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, assert_type

import numpy as np
import torch

import wds_real
from wds_real import interop, labels, synthetic

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray
    from PIL import Image


def pack_verify_and_index(tar: Path, root: Path, store_url: str) -> wds_real.Manifest:
    """Write shards to a folder, check them, and index shards in a bucket."""
    store: wds_real.Store = wds_real.open_store(root)
    with wds_real.open_source(tar, labels=labels.bundled(), allow_partial=True) as source:
        assert_type(source, wds_real.Source)
        manifest = wds_real.write_shards(source, store, samples_per_shard=500, jobs=2, overwrite=True, progress=print)
    report: wds_real.Report = wds_real.verify(store, level="decode", jobs=2)
    assert_type(report.problems, tuple[str, ...])
    assert_type(manifest.digest, str)
    options = {"region": "eu-west-1", "skip_signature": "true"}
    indexed = wds_real.index_shards(store_url, str(root), storage_options=options, checksums=True)
    assert_type(indexed.num_samples, int)
    return assert_type(manifest, wds_real.Manifest)


def read_samples(root: str) -> list[wds_real.Sample]:
    """Read samples by position, key, slice and split."""
    dataset: wds_real.Dataset = wds_real.open_dataset(root, split="validation[:10%]", storage_options={})
    sample = assert_type(dataset[0], wds_real.Sample)
    assert_type(sample["original_label"], int)
    assert_type(sample["real_label"], list[int])
    assert_type(dataset["ILSVRC2012_val_00000002"]["file_name"], str)
    assert_type(dataset[10:20], wds_real.Dataset)
    assert_type(dataset.keys, tuple[str, ...])
    assert_type(torch.utils.data.DataLoader(dataset, batch_size=None), torch.utils.data.DataLoader[wds_real.Sample])
    frame: pd.DataFrame = dataset.as_dataframe()
    return [sample for sample in dataset if sample["key"] in frame["key"].to_list()]


def evaluate(root: str, output: Path) -> wds_real.Result:
    """Evaluate a model with one call, and read its result."""
    model: wds_real.LoadedModel = wds_real.load_model("timm:resnet50.tv_in1k")
    options = wds_real.EvalOptions(batch_size=64, device="cuda", amp=True, amp_dtype="bfloat16", on_error="record")
    dataset = wds_real.open_dataset(root)
    result = wds_real.evaluate(model, dataset, options=options, output=output)
    result = wds_real.evaluate("timm:resnet18", root, batch_size=64, device="cpu")
    top1: wds_real.Accuracy = result.real_top1
    assert_type(float(top1), float)
    assert_type(top1.percent, float)
    frame: pd.DataFrame = result.as_dataframe(per_class=True)
    assert_type(len(frame), int)
    assert_type(top1.value, float)
    assert_type(top1.interval, tuple[float, float])
    assert_type(result.original_top5, wds_real.Accuracy | None)
    coverage: wds_real.Coverage = result.coverage
    assert_type(coverage.seen_once, int)
    breakdown: wds_real.Breakdown = result.breakdown
    assert_type(breakdown.slices, dict[str, tuple[int, int]])
    assert_type(result.as_dict(), dict[str, Any])
    return assert_type(result, wds_real.Result)


def evaluate_a_function(root: str, model: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Evaluate any callable, with mean and std of its own."""
    dataset = wds_real.open_dataset(root)
    transform = wds_real.EvalTransform(img_size=(240, 320), crop_mode="border", interpolation="bilinear")
    result = wds_real.evaluate(
        model, dataset, transform=transform, mean=wds_real.IMAGENET_MEAN, std=wds_real.IMAGENET_STD
    )
    return result.real_top1.value


def custom_loop(root: str, model: torch.nn.Module) -> wds_real.Result:
    """Write the loop with loader, normalisation and metric."""
    dataset = wds_real.open_dataset(root)
    device = assert_type(wds_real.default_device(), torch.device)
    normalize = wds_real.Normalize(wds_real.IMAGENET_MEAN, wds_real.IMAGENET_STD, device=device)
    loader = wds_real.Loader(dataset, batch_size=256, transform=wds_real.EvalTransform(), shuffle=True, seed=1)
    loader.set_epoch(3)
    loader.load_state_dict(loader.state_dict())
    assert_type(len(loader), int)
    metric = wds_real.RealAccuracy(dataset)
    with wds_real.process_group(device, timeout_s=600) as world, torch.inference_mode():
        for batch in loader:
            assert_type(batch, wds_real.Batch)
            assert_type(batch.valid, torch.Tensor)
            metric.update(model(normalize(batch.to(device, non_blocking=True).image)), batch)
        assert_type(world.rank, int)
        return assert_type(metric.compute(), wds_real.Result)


def torch_data_loader(root: str) -> wds_real.Batch:
    """Use torch's DataLoader over the map-style data set."""

    def transform(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image.resize((224, 224)))).permute(2, 0, 1)

    dataset = wds_real.open_dataset(root, transform=transform)
    samples: Any = dataset
    loader = torch.utils.data.DataLoader(samples, batch_size=32, num_workers=2, collate_fn=wds_real.collate)
    for batch in loader:
        assert isinstance(batch, wds_real.Batch)
    return assert_type(wds_real.collate([dataset[0], dataset[1]]), wds_real.Batch)


def undecoded(root: str) -> list[bytes]:
    """Read the checked JPEG files without decoding them."""
    loader = wds_real.UndecodedLoader(wds_real.open_dataset(root), mmap=True, threads=2, rank=0, world_size=1)
    files = list[bytes]()
    for batch in loader:
        files += map(bytes, assert_type(batch, wds_real.UndecodedBatch).jpeg)
    return files


def score_and_compare(file: Path, logits: NDArray[np.float32]) -> wds_real.Comparison:
    """Score predictions from a file, a mapping and an array, and compare two of them."""
    predictions: wds_real.Predictions = wds_real.read_predictions(file, name_column="image", class_column="top1")
    assert_type(predictions.encode("npz"), bytes)
    assert_type(wds_real.score(predictions, threshold=0.5, allow_partial=True), wds_real.Result)
    assert_type(wds_real.score({"ILSVRC2012_val_00000001.JPEG": 65}, allow_partial=True), wds_real.Result)
    assert_type(wds_real.score(logits, labels=labels.load_real_json("real.json")), wds_real.Result)
    assert_type(wds_real.score("s3://lab/run", storage_options={"region": "eu-west-1"}), wds_real.Result)
    comparison = wds_real.compare(str(file), predictions, against="original")
    assert_type(comparison.against, Literal["real", "original"])
    assert_type(comparison.interval, tuple[float, float])
    return assert_type(comparison, wds_real.Comparison)


def look(root: str) -> None:
    """Draw images with their labels, and list them."""
    dataset = wds_real.open_dataset(root)
    answers = wds_real.read_predictions("predictions.csv")
    sheet = wds_real.show_examples(dataset, where="predicted not in real", predictions=[answers], num_images=12, seed=1)
    sheet.savefig("sheet.png")
    frame = wds_real.as_dataframe(dataset)
    assert len(frame) == len(dataset)


def compare_several(old: Path, new: wds_real.Predictions) -> list[wds_real.PairDifference]:
    """Compare each with each of several models, and take the pairs that cannot be told apart."""
    found = wds_real.compare_many({"old": old, "new": new, "other": "other.csv"}, against="original")
    assert_type(found, wds_real.PairwiseComparison)
    assert_type(found.accuracies, dict[str, wds_real.Accuracy])
    assert_type(found.close, tuple[tuple[str, str], ...])
    return [pair for pair in found.pairs if not pair.told_apart]


def evaluate_several(root: str, load: Callable[[], wds_real.LoadedModel]) -> dict[str, wds_real.Result]:
    """Evaluate several models in as few passes as their preprocessing allows."""
    dataset, options = wds_real.open_dataset(root), wds_real.EvalOptions(batch_size=64)
    wds_real.evaluate_many(["timm:resnet*", "@models.txt"], root, batch_size=64)
    place = {"endpoint": "http://localhost:9000"}
    wds_real.evaluate("timm:resnet18", root, output="s3://lab/run", output_options=place, save_every_s=5.0)
    share = wds_real.evaluate_share("timm:resnet18", root, output="s3://lab/run", rank=3, world_size=8, steal=True)
    assert_type(share, wds_real.Result | None)
    models: list[str | wds_real.LoadedModel | wds_real.ModelSource]
    models = ["torchvision:resnet18", wds_real.ModelSource("mine", load), load()]
    outcomes = wds_real.evaluate_many(
        models, dataset, options=options, output="results", models_at_once=4, skip_existing=True
    )
    assert_type(outcomes, list[wds_real.ModelOutcome])
    return {outcome.name: outcome.result for outcome in outcomes if outcome.result is not None}


def handle_errors(root: str) -> str:
    """Catch one kind of error, or all of them."""
    try:
        wds_real.evaluate(synthetic.known_answer_model()[0], wds_real.open_dataset(root))
    except wds_real.CoverageError as error:
        return ", ".join(assert_type(error.missing, tuple[str, ...]) + error.doubled)
    except wds_real.ShardError as error:
        assert_type(error.byte_range, tuple[int, int] | None)
        return f"{error.shard} {error.key}"
    except (wds_real.MissingError, wds_real.UnavailableError) as error:
        store_error: wds_real.StoreError = error
        return str(store_error)
    except (
        wds_real.ManifestError,
        wds_real.ModelError,
        wds_real.ModelRunError,
        wds_real.PlanError,
        wds_real.PredictionsError,
        wds_real.SourceError,
    ) as error:
        base: wds_real.WdsRealError = error
        return f"exit code {assert_type(base.exit_code, int)}"
    return ""


def look_up_labels(real_json: bytes) -> str:
    """Use the labels without images."""
    table: labels.Labels = labels.bundled()
    label: wds_real.Label = table.by_file_name("ILSVRC2012_val_00000001_n01751748.JPEG")
    assert_type(label.real_label, tuple[int, ...])
    assert_type(labels.by_file_name(labels.canonical_file_name("val/ILSVRC2012_val_00000001.jpg")), labels.Label)
    info: labels.ClassInfo = labels.classes()[label.original_label]
    same: wds_real.ClassInfo = info
    both: tuple[wds_real.Labels, labels.Labels] = (table, labels.at_threshold(0.5))
    real = labels.parse_real_json(real_json, where="my.json")
    assert len(real) == labels.NUM_IMAGES
    assert len(labels.classes()) == labels.NUM_CLASSES
    assert_type(labels.digest_labels([(label.key, label.original_label, both[1].real[0])]), str)
    return f"{same.index} {info.wnid} {info.name}"


def with_webdataset(root: str, url: str) -> None:
    """Read the samples in webdataset's pipelines, and any URL through this package's stores."""
    dataset = wds_real.open_dataset(root)
    source = interop.ExactlyOnce(dataset, batch_size=64, shuffle=True, seed=1)
    source.set_epoch(1)
    for sample in source:
        assert_type(sample, dict[str, Any])
    pipeline = interop.WebDataset(dataset, batch_size=64, rank=0, world_size=1)
    pipeline.set_epoch(1)
    interop.register_stores({"region": "eu-west-1"})
    with interop.open_stream(url) as stream:
        file: io.BufferedReader = stream
        assert_type(file.read(), bytes)
    with interop.StoreStream(url, storage_options={"region": "eu-west-1"}) as raw:
        assert_type(raw.readable(), bool)


def for_other_libraries(root: str) -> int:
    """Make cards, and the side files by which other libraries read the shards."""
    dataset = wds_real.open_dataset(root)
    text: str = interop.card(dataset, "croissant")
    files: dict[str, bytes] = interop.side_files(dataset, "dali")
    written: list[str] = interop.write_side_files(wds_real.open_store(root), files, overwrite=True)
    return len(text) + len(written) + len(interop.huggingface_features())


def generate_a_data_set(tar: Path) -> dict[str, int]:
    """Write generated images whose evaluation is known beforehand."""
    numbers = range(1, 101)
    synthetic.write_source_tar(tar, numbers, side=32)
    chosen = synthetic.labels_of(numbers)
    first: labels.Label = chosen[0]
    assert_type(synthetic.encode_image(synthetic.top5_of(first)[0], side=48), bytes)
    model, transform = synthetic.known_answer_model()
    assert_type(model, torch.nn.Module)
    assert_type(transform, wds_real.EvalTransform)
    return assert_type(synthetic.known_answer(chosen), dict[str, int])
