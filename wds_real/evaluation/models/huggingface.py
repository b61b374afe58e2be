"""Image classifiers of transformers, from a folder or the Hugging Face hub, with the preprocessing saved with them."""

from __future__ import annotations

import json
import math
import re
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError
from wds_real.evaluation.failures import loading_errors
from wds_real.evaluation.models.base import LoadedModel, OwnTransform, first_line, import_package
from wds_real.evaluation.models.downloads import downloaded, hub_weights
from wds_real.evaluation.models.processors import equal_transform
from wds_real.evaluation.models.torchvision import crop_pct_of
from wds_real.evaluation.models.weights_file import digest_of
from wds_real.evaluation.models.weights_only import weights_only
from wds_real.image.resample import RESAMPLING
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["load_huggingface"]

_HOW = "pip install 'wds_real[hf]'"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?")
_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_WEIGHTS = (("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
            ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"))  # fmt: skip
_CROPPED_BELOW = 384  # ConvNeXT squashes images of this size or larger


def load_huggingface(spec: str, name: str) -> LoadedModel:
    """Return the classifier of a folder that transformers saved, or of a repository USER/MODEL or USER/MODEL@REVISION.

    Weights are read from safetensors, else from a pickle of tensors only. No code of a repository is run.

    The processor becomes an `EvalTransform` if both give the same pixels; otherwise it is used as it is.

    Raises:
        ModelError: transformers is not installed, or the model is not there, cannot be downloaded, needs code of its
            own, is no image classifier, or lacks weights.
    """
    transformers = import_package("transformers", spec, _HOW)
    version: str = transformers.__version__
    if int(version.partition(".")[0]) < 5:
        raise ModelError(f"{spec}: transformers {version} is too old. Expected 5 or newer: {_HOW}.")
    library = f"transformers {version}"
    folder, facts = _found(spec, name)
    config = _checked_config(transformers, spec, folder)
    files = [path for pattern in _SETTINGS for path in folder.glob(pattern)] + _weight_files(spec, folder)
    digests = {path.name: digest_of(path) for path in files}
    with _quiet(transformers), loading_errors(spec, library), weights_only(spec):
        model, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # `_check_complete` refuses them
            output_loading_info=True,
        )
        _check_complete(spec, library, report)
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    return LoadedModel(
        spec,
        model,
        _transform_of(spec, processor, library),
        facts={**facts, "files": digests, "transformers": version},
        labels=_labels(config),
    )


def _found(spec: str, name: str) -> tuple[Path, dict[str, str]]:
    """Return the folder of a model, and the commit of its repository if it is of the hub."""
    if Path(name).is_dir():
        return Path(name), {}
    if Path(name).exists():
        raise ModelError(f"{spec}: {name} is a file. Expected the folder that save_pretrained wrote: hf:FOLDER.")
    if not _REPOSITORY.fullmatch(name) or name.startswith("."):
        raise ModelError(
            f"{spec}: no such folder, and not the name of a repository. Expected hf:FOLDER or hf:USER/MODEL."
        )
    repository, _, revision = name.partition("@")
    return _downloaded(spec, repository, revision or None)


def _downloaded(spec: str, repository: str, revision: str | None) -> tuple[Path, dict[str, str]]:
    """Return the folder of a repository in the hub's cache, after the download of what is missing in it.

    The hub says which commit a branch is at now; without a network, the cache does.
    """
    hub = import_package("huggingface_hub", spec, _HOW)
    try:
        with _silent_progress(hub):
            listed = hub.snapshot_download(repository, revision=revision, dry_run=True)
    except Exception:  # noqa: BLE001 -- any failure: if the files are not cached, the download below raises it again
        listed = []
    wanted = _names_to_load({each.filename for each in listed})
    commit = listed[0].commit_hash if listed else revision
    missing_bytes = sum(each.file_size or 0 for each in listed if each.filename in wanted and each.will_download)
    weights = hub_weights(repository, [file for kind in _WEIGHTS for file in (kind[0], kind[2])], commit)
    if weights is not None and missing_bytes:
        weights = replace(weights, name=f"{weights.name}, {missing_bytes / 1e6:,.1f} MB,")
    patterns = sorted(wanted) if wanted else [*_SETTINGS, *_WEIGHTS[0], *_WEIGHTS[1]]
    bars = nullcontext() if missing_bytes or not listed else _silent_progress(hub)
    with downloaded(spec, weights), loading_errors(spec, "huggingface_hub"), bars:
        folder = Path(hub.snapshot_download(repository, revision=commit, allow_patterns=patterns))
    return folder, {"repository": repository, "revision": folder.name}


def _names_to_load(names: set[str]) -> set[str]:
    """Return which files of a repository are read: settings, and weights of the best of the two kinds."""
    for kind in _WEIGHTS:
        found = {name for name in names for pattern in kind if Path(name).match(pattern) and "/" not in name}
        if found:
            return found | (names & {*_SETTINGS})
    return names & {*_SETTINGS}


def _weight_files(spec: str, folder: Path) -> list[Path]:
    """Return the files that transformers reads weights from, which it prefers to be safetensors."""
    for kind in _WEIGHTS:
        found = sorted(path for pattern in kind[:2] for path in folder.glob(pattern))
        if found:
            return found
    raise ModelError(
        f"{spec}: {folder} holds no weights that are read. Expected model.safetensors, or pytorch_model.bin."
    )


def _checked_config(transformers: ModuleType, spec: str, folder: Path) -> dict[str, Any]:
    """Return config.json, if transformers itself has the classifier that it names."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{spec}: {folder} holds no config.json. Expected a folder that save_pretrained wrote.")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{spec}: {path} is not JSON: {first_line(error)}. Get the file again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{spec}: {path} holds no JSON object. Get the file again.")
    if "architecture" in config and "model_type" not in config:  # saved by timm, which transformers can wrap
        return config
    kind = config.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        if "auto_map" in config:
            code = ", ".join(map(str, config["auto_map"].values()))
            raise ModelError(
                f"{spec}: needs Python code of its repository ({code}), which is not run here. Read it, then load the "
                "model in a function of yours: -m my_models:make."
            )
        raise ModelError(
            f"{spec}: transformers {transformers.__version__} knows no model_type {kind!r} (config.json). Install a "
            "version that does."
        )
    if transformers.CONFIG_MAPPING[kind] not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"{spec}: a model of type {kind!r}, which has no image classifier in transformers. Expected one that was "
            "trained to classify images."
        )
    return config


def _check_complete(spec: str, library: str, report: dict[str, Any]) -> None:
    """Refuse weights that are missing or have other shapes, which transformers would fill with random numbers."""
    for name, found, expected in sorted(report["mismatched_keys"]):
        shapes = ", but ".join("x".join(map(str, shape)) for shape in (found, expected))
        raise ModelError(f"{spec}: the weights are of another model: {name} is {shapes} by config.json.")
    lacking = sorted(report["missing_keys"])
    if lacking:
        more = f" and {len(lacking) - 3:,} more" if len(lacking) > 3 else ""
        raise ModelError(
            f"{spec}: the weights lack {', '.join(lacking[:3])}{more}, which {library} would fill with random numbers. "
            "Give a model that was trained to classify."
        )


def _labels(config: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the outputs, in their order, if the config has one for each."""
    names = config.get("id2label") or config.get("label_names")
    if isinstance(names, dict):
        numbers = sorted((int(number), str(name)) for number, name in names.items() if str(number).isdigit())
        return tuple(name for _, name in numbers) if [n for n, _ in numbers] == [*range(len(names))] else None
    return tuple(map(str, names)) if isinstance(names, list) else None


def _transform_of(spec: str, processor: Any, library: str) -> EvalTransform | OwnTransform:  # noqa: ANN401 -- of many classes
    """Return the preprocessing of a processor."""

    def preprocess(image: Any) -> torch.Tensor:  # noqa: ANN401 -- a Pillow image
        return torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"][0])

    settings = json.loads(processor.to_json_string())
    own = OwnTransform(f"{type(processor).__name__} of {library}", settings, preprocess)
    with loading_errors(spec, f"the processor of {library}"):
        return equal_transform(spec, own, _candidates(processor))


def _candidates(processor: Any) -> Iterator[EvalTransform]:  # noqa: ANN401 -- of many classes
    """Yield the transforms that a processor's settings may mean; many families give them a meaning of their own."""
    config = getattr(processor, "data_config", None)
    if isinstance(config, dict):  # timm's
        yield EvalTransform(
            tuple(config["input_size"][1:]), config["crop_pct"], config["crop_mode"], config["interpolation"],
            tuple(config["mean"]), tuple(config["std"]),
        )  # fmt: skip
    size, crop = _sides(processor, "size"), _sides(processor, "crop_size")
    filters = {int(number): name for name, number in RESAMPLING.items()}
    resample = getattr(processor, "resample", None)
    interpolation = "bilinear" if resample is None else filters[int(resample)]
    mean, std = _normalisation(processor)
    for mode, height, width, crop_pct in _geometries(processor, size, crop):
        try:
            yield EvalTransform((height, width), crop_pct, mode, interpolation, mean, std)
        except ValueError:  # not what an EvalTransform can do
            continue


def _geometries(
    processor: Any,  # noqa: ANN401 -- of many classes
    size: dict[str, int],
    crop: dict[str, int],
) -> Iterator[tuple[Any, int, int, float]]:
    """Yield crop mode, height, width and crop_pct of what `size` and `crop_size` may mean."""
    edge, crop_pct = size.get("shortest_edge"), getattr(processor, "crop_pct", None)
    if edge and crop_pct:  # ConvNeXT and its relatives
        yield ("center_floor", edge, edge, crop_pct) if edge < _CROPPED_BELOW else ("squash", edge, edge, 1.0)
    if edge and crop and crop["height"] == crop["width"]:
        for resized in (edge, int(edge * 256 / 224)):  # the latter is LeViT's
            for mode in ("center_floor", "center"):
                yield mode, crop["height"], crop["width"], crop_pct_of(crop["height"], resized)
    if "height" in size:
        full = (size["height"], size["width"])
        yield ("squash", *full, 1.0)
        if crop and full[0] == full[1] and crop["height"] == crop["width"]:
            yield "squash", crop["height"], crop["width"], crop_pct_of(crop["height"], full[0])


def _sides(processor: Any, name: str) -> dict[str, int]:  # noqa: ANN401 -- of many classes
    """Return the sides that a setting such as `size` gives; {} if it is not set, or its step is switched off."""
    value = getattr(processor, name, None)
    if value is None or (name == "crop_size" and not getattr(processor, "do_center_crop", False)):
        return {}
    sides = {side: getattr(value, side, None) for side in ("height", "width", "shortest_edge", "longest_edge")}
    found = {side: int(number) for side, number in sides.items() if number}
    return found if {"height", "width"} <= set(found) or "shortest_edge" in found else {}


def _normalisation(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:  # noqa: ANN401
    """Return mean and std, of values in 0..1, that have the effect of a processor's rescaling and normalising."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):
        mean, std = (_three(getattr(processor, name)) for name in ("image_mean", "image_std"))
    factor = getattr(processor, "rescale_factor", 1.0) if getattr(processor, "do_rescale", False) else 1.0
    scale = 1.0 if math.isclose(255 * factor, 1.0) else 1 / (255 * factor)
    return (mean[0] * scale, mean[1] * scale, mean[2] * scale), (std[0] * scale, std[1] * scale, std[2] * scale)


def _three(value: float | list[float]) -> tuple[float, float, float]:
    red, green, blue = [float(value)] * 3 if isinstance(value, int | float) else map(float, value)
    return red, green, blue


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Keep transformers from writing reports and bars to stderr in the block: what matters in them is raised here."""
    logging = transformers.utils.logging
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


@contextmanager
def _silent_progress(hub: ModuleType) -> Iterator[None]:
    """Show no bar in the block, in which nothing is downloaded."""
    had_bars = not hub.utils.are_progress_bars_disabled()
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            hub.utils.enable_progress_bars()
