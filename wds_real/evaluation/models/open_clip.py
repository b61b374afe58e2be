"""Models of open_clip as zero-shot classifiers, with its own class names, templates and preprocessing."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wds_real.errors import ModelError, first_few
from wds_real.evaluation.device import default_device
from wds_real.evaluation.failures import loading_errors
from wds_real.evaluation.models.base import LoadedModel, OwnTransform, import_package
from wds_real.evaluation.models.downloads import Weights, downloaded, hub_weights, url_weights
from wds_real.evaluation.models.processors import equal_transform
from wds_real.evaluation.models.weights_file import digest_of
from wds_real.evaluation.models.weights_only import weights_only
from wds_real.image.transform import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["load_open_clip"]

_LOG = logging.getLogger(__name__)
_HOW = "pip install 'wds_real[open-clip]'"
_FORMS = "Expected open_clip:ARCH/TAG, open_clip:ARCH/FILE, open_clip:hf-hub:USER/MODEL or open_clip:local-dir:FOLDER."
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}
_LOGIT_SCALE = 100.0  # of open_clip's own evaluation; only the probabilities depend on it


class ZeroShot(torch.nn.Module):
    """Scores of the classes: the cosine of the image's embedding and that of each class's prompts.

    Args:
        clip: Of open_clip.
        classifier: float (D, 1000), a column for each class.
    """

    def __init__(self, clip: Any, classifier: torch.Tensor) -> None:  # noqa: ANN401 -- of several classes
        super().__init__()
        self.clip = clip
        # Not saved: it follows from weights and prompts, up to the last bits, which depend on the device.
        self.register_buffer("classifier", classifier, persistent=False)
        self.classifier: torch.Tensor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores (B, 1000)."""
        scores: torch.Tensor = _LOGIT_SCALE * self.clip.encode_image(image, normalize=True) @ self.classifier
        return scores


def load_open_clip(spec: str, name: str) -> LoadedModel:
    """Return the zero-shot classifier of ARCH/TAG, ARCH/FILE, hf-hub:USER/MODEL or local-dir:FOLDER.

    The 80 templates and the class names are open_clip's (`OPENAI_IMAGENET_TEMPLATES`, `IMAGENET_CLASSNAMES`); the
    80,000 prompts are embedded once, on this process's device.

    Raises:
        ModelError: open_clip is not installed, there is no such architecture, tag or file, the weights cannot be
            downloaded, do not fit, or are a pickle of more than tensors.
    """
    open_clip = import_package("open_clip", spec, _HOW)
    library = f"open_clip {open_clip.__version__}"
    architecture, pretrained = _parts(open_clip, spec, name)
    with downloaded(spec, _weights(open_clip, architecture, pretrained)), _quiet(), loading_errors(spec, library):
        files = _files(open_clip, architecture, pretrained)
    with _quiet(), loading_errors(spec, library):
        digests = {file.name: digest_of(file) for file in files}
        with weights_only(spec):
            clip = open_clip.create_model(architecture, pretrained=pretrained, require_pretrained=True).eval()
        with downloaded(spec, _tokenizer_files(open_clip, architecture)):
            tokenizer = open_clip.get_tokenizer(architecture)
        transform = _transform_of(spec, clip, library)
        classifier = _classifier(open_clip, spec, clip, tokenizer)
    return LoadedModel(
        spec,
        ZeroShot(clip, classifier).eval(),
        transform,
        facts={
            "files": digests,
            "prompts_sha256": prompts_digest(open_clip),
            "open_clip": open_clip.__version__,
        },
    )


def prompts_digest(open_clip: ModuleType) -> str:
    """Return the SHA-256 (hex) of the templates, with {} for the class, and of the class names, one a line."""
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    return hashlib.sha256("\n".join([*templates, "", *open_clip.IMAGENET_CLASSNAMES]).encode()).hexdigest()


def _parts(open_clip: ModuleType, spec: str, name: str) -> tuple[str, str | None]:
    """Return what open_clip calls the model, and its tag or file; None where the first says it all."""
    scheme, _, place = name.partition(":")
    if scheme in ("hf-hub", "local-dir"):
        if not place:
            raise ModelError(f"{spec}: nothing after {scheme}. {_FORMS}")
        if scheme == "local-dir" and not (Path(place) / "open_clip_config.json").is_file():
            raise ModelError(f"{spec}: {place} holds no open_clip_config.json. Expected a folder saved for open_clip.")
        return name, None
    architecture, _, pretrained = name.partition("/")
    config = open_clip.get_model_config(architecture)
    if config is None:
        similar = difflib.get_close_matches(architecture, open_clip.list_models(), n=5)
        raise ModelError(
            f"{spec}: open_clip {open_clip.__version__} has no architecture {architecture!r}. Similar: "
            f"{', '.join(similar) or 'none'}. {_FORMS}"
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    if tag.get("quick_gelu") and not config.get("quick_gelu"):
        raise _other_activation(spec, architecture, pretrained)
    if tag:
        return architecture, pretrained
    if not Path(pretrained).is_file():
        near = difflib.get_close_matches(pretrained, tags)
        raise ModelError(
            f"{spec}: {pretrained or 'nothing after the architecture'}: neither a file nor a tag of {architecture}. "
            f"Its tags: {first_few(near + [tag for tag in tags if tag not in near]) if tags else 'none'}. {_FORMS}"
        )
    if not pretrained.endswith((*_SUFFIXES, ".npz")):
        raise ModelError(f"{spec}: {pretrained} is not a file of weights. Expected one of {', '.join(_SUFFIXES)}.")
    return architecture, pretrained


def _other_activation(spec: str, architecture: str, pretrained: str) -> ModelError:
    """Return the error for QuickGELU weights in an architecture without it, which would lose points of accuracy."""
    return ModelError(
        f"{spec}: the weights were trained with QuickGELU, {architecture} computes without it. Give "
        f"open_clip:{architecture}-quickgelu/{pretrained}."
    )


def _weights(open_clip: ModuleType, architecture: str, pretrained: str | None) -> Weights | None:
    """Return what open_clip may have to download."""
    scheme, _, place = architecture.partition(":")
    if scheme == "hf-hub":
        return hub_weights(place, _FILES)
    config = {} if pretrained is None else open_clip.get_pretrained_cfg(architecture, pretrained)
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    found = None
    if repository:
        safe = f"{Path(file).stem}.safetensors"
        found = hub_weights(repository, [safe, file] if file else _FILES)
    if found is None and config.get("url"):
        return url_weights(config["url"], Path.home() / ".cache" / "clip")
    return found


def _files(open_clip: ModuleType, architecture: str, pretrained: str | None) -> list[Path]:
    """Return the files of the weights, after their download."""
    scheme, _, place = architecture.partition(":")
    if scheme == "local-dir":
        folder = Path(place)
        found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
        return [folder / "open_clip_config.json", *found]
    if scheme == "hf-hub":
        download = open_clip.pretrained.download_pretrained_from_hf
        return [Path(download(place, filename="open_clip_config.json")), Path(download(place))]
    config = open_clip.get_pretrained_cfg(architecture, pretrained)
    return [Path(open_clip.download_pretrained(config) if config else str(pretrained))]


def _tokenizer_files(open_clip: ModuleType, architecture: str) -> Weights | None:
    """Return what open_clip may have to download to split prompts into tokens: only some architectures need it."""
    if architecture.startswith("local-dir:"):
        return None
    repository = open_clip.get_model_config(architecture)["text_cfg"].get("hf_tokenizer_name")
    return hub_weights(repository, ("tokenizer.json", "tokenizer_config.json")) if repository else None


def _transform_of(spec: str, clip: Any, library: str) -> EvalTransform | OwnTransform:  # noqa: ANN401 -- of several classes
    """Return open_clip's preprocessing for evaluation, by the settings that the weights brought."""
    module = import_package("open_clip.transform", spec, _HOW)
    settings = json.loads(json.dumps(clip.visual.preprocess_cfg))
    preprocess = module.image_transform_v2(module.PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    own = OwnTransform(f"the {settings['resize_mode']} transform of {library}", settings, preprocess)
    size = settings["size"]
    candidate = EvalTransform(
        img_size=size if isinstance(size, int) else tuple(size),
        crop_pct=1.0,
        crop_mode=_MODES[settings["resize_mode"]],  # type: ignore[arg-type]  # one of the three modes
        interpolation="bilinear" if settings["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )
    return equal_transform(spec, own, [candidate])


def _classifier(open_clip: ModuleType, spec: str, clip: Any, tokenizer: Any) -> torch.Tensor:  # noqa: ANN401 -- of several classes
    """Return the embeddings of the classes, float (D, 1000), on the CPU; the model is back there too."""
    names, templates = open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
    device = default_device()
    _LOG.info("%s: embedding %s prompts on %s", spec, f"{len(names) * len(templates):,}", device)
    classifier: torch.Tensor = open_clip.build_zero_shot_classifier(
        clip.to(device), tokenizer, classnames=names, templates=templates, num_classes_per_batch=10, device=device
    )
    clip.cpu()
    return classifier.cpu()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what open_clip writes to the root logger in the block: what matters in it is raised here."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # or logging would add one that prints
    root.addFilter(_nothing)
    try:
        yield
    finally:
        root.removeFilter(_nothing)
        root.removeHandler(handler)


def _nothing(record: logging.LogRecord) -> bool:
    del record
    return False
