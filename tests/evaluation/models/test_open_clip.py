"""Zero-shot models of open_clip: its own scores, pixels and prompts, and one line for what does not fit.

The models are tiny, with random weights; most tests take two of the 80 templates, which embeds prompts in a second.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import wds_real
from wds_real import EvalTransform, load_model
from wds_real.evaluation.models.base import OwnTransform
from wds_real.labels import classes
from wds_real.labels.class_names import classes_by_name, plain_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.commands import Ended

pytestmark = pytest.mark.neighbours

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an architecture that is registered as tiny-clip. Read only."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(3)
    torch.save(open_clip.create_model("tiny-clip").state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


@pytest.fixture
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", open_clip.OPENAI_IMAGENET_TEMPLATES[:2])


def saved_folder(folder: Path, weights: Path, **preprocess: Any) -> Path:
    """Make what open_clip loads as local-dir."""
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    (folder / "open_clip_pytorch_model.bin").write_bytes(weights.read_bytes())
    return folder


def own_scores(name: str, pretrained: str | None, images: list[Any]) -> torch.Tensor:
    """Return what open_clip's own example computes: embeddings of prompts, of images, and 100 times their cosine."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained)
    model.eval()
    classifier = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(name), open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
    )
    with torch.inference_mode():
        features = model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True)
        scores: torch.Tensor = 100.0 * features @ classifier
    return scores


@pytest.mark.usefixtures("few_prompts")
@pytest.mark.parametrize("form", ["file", "folder"])
def test_scores_and_predictions_are_those_of_open_clip(form: str, weights: Path, packed: Path, tmp_path: Path) -> None:
    """For a file of weights, and for a folder that squashes and normalises in its own way."""
    own: tuple[str, str | None] = ("tiny-clip", str(weights))
    if form == "folder":
        own = (f"local-dir:{saved_folder(tmp_path / 'm', weights, resize_mode='squash', mean=[0.5] * 3)}", None)
    loaded = load_model(f"open_clip:{'/'.join(part for part in own if part)}")
    assert isinstance(loaded.transform, EvalTransform)
    assert loaded.transform.crop_mode == ("squash" if form == "folder" else "center")
    dataset = wds_real.open_dataset(packed)
    expected = own_scores(*own, [dataset[key]["image"] for key in dataset.keys])
    normalize = wds_real.Normalize(loaded.transform.mean, loaded.transform.std, device=torch.device("cpu"))
    found = torch.zeros(len(dataset), 1000)
    with torch.inference_mode():
        for batch in wds_real.Loader(dataset, batch_size=50, transform=loaded.transform, pad=False):
            found[batch.index] = loaded.module(normalize(batch.image))
    assert torch.allclose(found, expected, atol=1e-3)
    wds_real.evaluate(loaded, dataset, output=tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == expected.argmax(dim=1).tolist()


def test_all_prompts_are_open_clips(weights: Path) -> None:
    """1,000 names in the order of the classes, 80 templates; their digest is in the facts, and no text in between."""
    import open_clip

    names, templates = open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
    assert (len(names), len(templates)) == (1000, 80)
    known = [(index, found) for index, name in enumerate(names) if (found := classes_by_name().get(plain_name(name)))]
    assert len(known) > 700  # the others are spelt so that they mean one class only
    assert sum(index in found for index, found in known) > 0.99 * len(known)
    assert names[0] == classes()[0].name
    loaded = load_model(f"open_clip:tiny-clip/{weights}")
    text = "\n".join([*(template("{}") for template in templates), "", *names])
    assert loaded.facts == {
        "files": {"weights.pt": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "prompts_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "open_clip": open_clip.__version__,
    }
    classifier = open_clip.build_zero_shot_classifier(
        open_clip.create_model("tiny-clip", pretrained=str(weights)).eval(),
        open_clip.get_tokenizer("tiny-clip"), names[:20], templates,
    )  # fmt: skip
    assert isinstance(loaded.module, torch.nn.Module)
    assert torch.allclose(loaded.module.classifier[:, :20], classifier, atol=1e-5)  # type: ignore[index]


@pytest.mark.usefixtures("few_prompts")
def test_other_prompts_are_another_model(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of the prompts tells runs apart whose weights are the same."""
    import open_clip

    first = load_model(f"open_clip:tiny-clip/{weights}").identity()
    assert load_model(f"open_clip:tiny-clip/{weights}").identity() == first
    monkeypatch.setattr(open_clip, "IMAGENET_CLASSNAMES", ("fish", *open_clip.IMAGENET_CLASSNAMES[1:]))
    other = load_model(f"open_clip:tiny-clip/{weights}").identity()
    assert other["weights_digest"] == first["weights_digest"]
    assert other != first


@pytest.mark.usefixtures("few_prompts")
def test_a_transform_that_nothing_equals_is_used_as_it_is(weights: Path, tmp_path: Path, packed: Path) -> None:
    """Padding with black is no EvalTransform; it is named, and the predictions are open_clip's own."""
    folder = saved_folder(tmp_path / "m", weights, resize_mode="longest")
    loaded = load_model(f"open_clip:local-dir:{folder}")
    assert isinstance(loaded.transform, OwnTransform)
    assert loaded.transform.name.startswith("the longest transform of open_clip ")
    dataset = wds_real.open_dataset(packed)
    result = wds_real.evaluate(loaded, dataset, output=tmp_path / "run", progress=False)
    assert result.preprocessing["settings"]["resize_mode"] == "longest"
    expected = own_scores(f"local-dir:{folder}", None, [dataset[key]["image"] for key in dataset.keys])
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == expected.argmax(dim=1).tolist()


def test_weights_of_another_gelu_are_refused_with_the_name_to_give() -> None:
    """For every tag whose weights have a QuickGELU that its architecture has not, the message names one that has it."""
    import open_clip

    refused = 0
    for architecture, tag in open_clip.list_pretrained():
        config, weights = open_clip.get_model_config(architecture), open_clip.get_pretrained_cfg(architecture, tag)
        if config.get("quick_gelu") or not weights.get("quick_gelu"):
            continue
        refused += 1
        with pytest.raises(wds_real.ModelError, match="QuickGELU") as caught:
            load_model(f"open_clip:{architecture}/{tag}")
        given = str(caught.value).rsplit("Give open_clip:", 1)[1].removesuffix(".").rpartition("/")[0]
        assert open_clip.get_model_config(given)["quick_gelu"] is True
        assert open_clip.get_pretrained_cfg(given, tag)["hf_hub"] == weights["hf_hub"]
    assert refused > 5


def bad_inputs(weights: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """Return the name of each model that does not fit, and words of its message."""
    import open_clip

    state = torch.load(weights, weights_only=True)
    torch.save({**state, "more": Touch(folder / "made")}, folder / "pickled.pt")
    torch.save({name: value for name, value in state.items() if name != "logit_scale"}, folder / "less.pt")
    torch.save({**state, "odd": torch.ones(1)}, folder / "more.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch advises torch.export
        torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "scripted.pt")  # type: ignore[no-untyped-call]
    (folder / "cut.pt").write_bytes(weights.read_bytes()[:90_000])
    (folder / "pointer.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
    (folder / "page.pt").write_bytes(b"<!DOCTYPE html><html>")
    (folder / "notes.txt").touch()
    saved_folder(folder / "noweights", weights)
    (folder / "noweights" / "open_clip_pytorch_model.bin").unlink()
    (saved_folder(folder / "junk", weights) / "open_clip_config.json").write_text("{")
    assert "ViT-B-32" in open_clip.list_models()
    return {
        "no slash": ("ViT-B-32", "nothing after the architecture: neither a file nor a tag"),
        "unknown architecture": ("ViT-B-33/openai", "no architecture 'ViT-B-33'. Similar: ViT-B-32"),
        "unknown tag": ("ViT-B-32/laion2b_s34b_b79", "Its tags: laion2b_s34b_b79k"),
        "missing file": ("tiny-clip//nowhere/w.pt", "/nowhere/w.pt: neither a file nor a tag of tiny-clip"),
        "another kind of file": (f"tiny-clip/{folder / 'notes.txt'}", "is not a file of weights"),
        "another GELU": ("ViT-B-32/openai", "Give open_clip:ViT-B-32-quickgelu/openai"),
        "offline": ("ViT-B-32/laion2b_s34b_b79k", "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        "another architecture": (f"RN50/{weights}", "cannot load it"),
        "weights are missing": (f"tiny-clip/{folder / 'less.pt'}", "cannot load it"),
        "weights too many": (f"tiny-clip/{folder / 'more.pt'}", "cannot load it"),
        "pickle with code": (f"tiny-clip/{folder / 'pickled.pt'}", "a pickle of Python objects"),
        "TorchScript": (f"tiny-clip/{folder / 'scripted.pt'}", "TorchScript"),
        "cut": (f"tiny-clip/{folder / 'cut.pt'}", "cannot load it"),
        "LFS pointer": (f"tiny-clip/{folder / 'pointer.pt'}", "a Git LFS pointer"),
        "a web page": (f"tiny-clip/{folder / 'page.pt'}", "looks like a web page"),
        "folder without config": (f"local-dir:{folder}", "holds no open_clip_config.json"),
        "folder without weights": (f"local-dir:{folder / 'noweights'}", "cannot load it"),
        "config is not JSON": (f"local-dir:{folder / 'junk'}", "cannot load it"),
        "nothing after hf-hub": ("hf-hub:", "nothing after hf-hub"),
    }


@pytest.mark.usefixtures("here", "few_prompts")
def test_models_that_do_not_fit(
    weights: Path, tmp_path: Path, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """One line each, exit code 2, and nothing of a pickle is run."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "bad").mkdir()
    cases = bad_inputs(weights, tmp_path / "bad")
    wrong = {}
    for case, (name, words) in cases.items():
        done = run("eval", "-m", f"open_clip:{name}", "--quiet")
        if done.code != 2 or words not in done.err or len(done.err.splitlines()) != 1:
            wrong[case] = (done.code, done.err)
    assert wrong == {}
    assert len(cases) >= 15
    assert not (tmp_path / "bad" / "made").exists()
