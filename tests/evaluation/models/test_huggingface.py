"""Classifiers of transformers: its own logits and pixels, nothing run or guessed, and one line for what does not fit.

The models are tiny, with random weights, and saved by transformers itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.commands import Ended
from support.environments import FAST
from support.hub import COMMIT, hub

import wds_real
from wds_real import EvalTransform, ModelError, load_model
from wds_real.evaluation.models.base import OwnTransform
from wds_real.evaluation.outputs import check_labels
from wds_real.image.decode import decode_image
from wds_real.labels import classes
from wds_real.labels.class_maps import ClassMap

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.neighbours

REPOSITORY = Path(__file__).resolve().parents[3]
HALF = (0.5, 0.5, 0.5)


class Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def save_vit(folder: Path, processor: Any = None, **config: Any) -> Path:
    """Save a tiny vision transformer with random weights, and a processor."""
    import transformers

    torch.manual_seed(7)
    settings = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32,
        "patch_size": 8, "num_labels": 1000, **config,
    }  # fmt: skip
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**settings))
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    (processor or transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model. Read only."""
    return save_vit(tmp_path_factory.mktemp("vit"))


def edited(source: Path, folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json") -> Path:
    """Copy a saved model, with a change of one of its JSON files."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return folder


def own_logits(folder: Path, images: list[Any]) -> torch.Tensor:
    """Return what transformers itself gives for images."""
    import transformers

    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        logits: torch.Tensor = model(**processor(images=images, return_tensors="pt")).logits
    return logits


@pytest.mark.parametrize("resnet", [False, True])
def test_logits_and_predictions_are_those_of_transformers(resnet: bool, packed: Path, tmp_path: Path) -> None:
    """Of a transformer that squashes and a ResNet that crops, over images of several sizes."""
    import transformers

    if resnet:
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=1000
        )
        transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
        transformers.ConvNextImageProcessor(size={"shortest_edge": 40}, crop_pct=0.875).save_pretrained(tmp_path)
    else:
        save_vit(tmp_path)
    loaded, dataset = load_model(f"hf:{tmp_path}"), wds_real.open_dataset(packed)
    assert isinstance(loaded.transform, EvalTransform)
    assert loaded.transform.crop_mode == ("center_floor" if resnet else "squash")
    expected = own_logits(tmp_path, [dataset[key]["image"] for key in dataset.keys])
    found = torch.zeros(len(dataset), 1000)
    module, normalize = loaded.module, wds_real.Normalize(loaded.transform.mean, loaded.transform.std, device=CPU)
    assert isinstance(module, torch.nn.Module)
    with torch.inference_mode():
        for batch in wds_real.Loader(dataset, batch_size=50, transform=loaded.transform, pad=False):
            found[batch.index] = module.eval()(normalize(batch.image)).logits
    assert torch.allclose(found, expected, atol=1e-4)
    wds_real.evaluate(loaded, dataset, output=tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == expected.argmax(dim=1).tolist()


CPU = torch.device("cpu")

PROCESSORS: list[tuple[str, dict[str, Any], EvalTransform | None]] = [
    ("ViTImageProcessorPil", {}, EvalTransform(224, 1.0, "squash", "bilinear", HALF, HALF)),
    ("PvtImageProcessorPil", {}, EvalTransform(224, 1.0, "squash")),
    ("DeiTImageProcessorPil", {"image_mean": HALF, "image_std": HALF},
     EvalTransform(224, 0.875, "squash", "bicubic", HALF, HALF)),
    ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 224}},
     EvalTransform(224, 0.875, "center_floor", "bicubic", HALF, HALF)),
    ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}, "resample": 2},
     EvalTransform(384, 1.0, "squash", "bilinear", HALF, HALF)),
    ("LevitImageProcessorPil", {}, EvalTransform(224, 0.875, "center_floor")),
    ("BitImageProcessorPil", {"size": {"shortest_edge": 232}, "image_mean": HALF, "image_std": HALF},
     EvalTransform(224, 224 / 232, "center_floor", "bicubic", HALF, HALF)),
    ("BitImageProcessorPil", {"size": {"shortest_edge": 256}, "do_normalize": False},
     EvalTransform(224, 0.875, "center_floor", "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
    ("ViTImageProcessorPil", {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
     EvalTransform(224, 1.0, "squash", "bilinear", HALF, HALF)),
    ("MobileViTImageProcessorPil", {}, None),  # swaps the channels
    ("EfficientNetImageProcessorPil", {}, None),  # normalises twice
    ("PerceiverImageProcessorPil", {}, None),  # crops before it resizes
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "expected"), PROCESSORS)
def test_a_processor_becomes_a_transform_with_its_pixels(
    name: str, settings: dict[str, Any], expected: EvalTransform | None, vit: Path, tmp_path: Path
) -> None:
    """Families that give their settings a meaning of their own are found out; what no transform can do is kept."""
    import transformers

    folder = edited(vit, tmp_path / "model", lambda config: config)
    getattr(transformers, name)(**settings).save_pretrained(folder)
    transform = load_model(f"hf:{folder}").transform
    if expected is None:
        assert isinstance(transform, OwnTransform)
        assert transform.name == f"{name} of transformers {transformers.__version__}"
        assert transform.describe()["settings"]["image_processor_type"] == name.removesuffix("Pil")
        return
    assert isinstance(transform, EvalTransform)
    found, wanted = transform.describe(), expected.describe()
    for field in ("crop_pct", "mean", "std"):
        assert found.pop(field) == pytest.approx(wanted.pop(field), abs=1e-9), field
    assert found == wanted


@pytest.mark.parametrize("archive", ["val-650.tar", "photos-300.tar"])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_pixels_of_real_images_are_the_processors(
    place: int, archive: str, real_data: Callable[[str], Path], vit: Path, tmp_path: Path
) -> None:
    """What holds on the made-up probes holds on photographs: no pixel differs."""
    import transformers

    name, settings, _ = PROCESSORS[place]
    processor = getattr(transformers, name)(**settings)
    folder = edited(vit, tmp_path / "model", lambda config: config)
    processor.save_pretrained(folder)
    transform = load_model(f"hf:{folder}").transform
    assert isinstance(transform, EvalTransform)
    mean, std = torch.tensor(transform.mean).view(3, 1, 1), torch.tensor(transform.std).view(3, 1, 1)
    with tarfile.open(real_data(archive)) as tar:
        members = [member for member in tar if member.isfile()][:60]
        for member in members:
            file = tar.extractfile(member)
            assert file is not None
            image = decode_image(file.read())
            values = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"][0])
            wanted = ((values * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            assert np.array_equal(np.asarray(transform(image)), wanted), member.name


@pytest.fixture
def unequal(vit: Path, tmp_path: Path) -> Path:
    """A model whose processor no EvalTransform equals."""
    import transformers

    folder = edited(vit, tmp_path / "unequal", lambda config: config)
    size = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    transformers.MobileViTImageProcessorPil(**size).save_pretrained(folder)
    return folder


def test_a_processor_that_nothing_equals_is_used_and_named(
    unequal: Path, here: Path, run: Callable[..., Ended]
) -> None:
    """The result names it, and predictions are those of transformers itself."""
    done = run("eval", "-m", f"hf:{unequal}", "-b", "50", "-o", "out")
    assert done.code == 0, done.err
    assert "preprocessed by MobileViTImageProcessorPil of transformers" in done.out.splitlines()[0]
    dataset = wds_real.open_dataset("shards")
    expected = own_logits(unequal, [dataset[key]["image"] for key in dataset.keys]).argmax(dim=1).tolist()
    lines = (here / "out" / "predictions.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == expected
    result = json.loads((here / "out" / "result.json").read_text())
    assert result["preprocessing"]["settings"]["do_flip_channel_order"] is True


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("option", "words"),
    [(["--img-size", "64"], "which --img-size cannot change"), (["--pixel-cache", "c"], "--pixel-cache cannot keep")],
)
def test_options_of_the_transform_do_not_reach_it(
    option: list[str], words: str, unequal: Path, run: Callable[..., Ended]
) -> None:
    """They are wrong usage, not ignored."""
    done = run("eval", "-m", f"hf:{unequal}", *option)
    assert done.code == 2
    assert words in done.err
    assert "MobileViTImageProcessorPil" in done.err


def test_the_identity_has_the_files_and_the_version(vit: Path, tmp_path: Path) -> None:
    """Another byte of the settings is another model."""
    import transformers

    facts = load_model(f"hf:{vit}").facts
    assert facts["transformers"] == transformers.__version__
    assert set(facts["files"]) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    other = edited(vit, tmp_path / "other", lambda config: config.update(layer_norm_eps=1e-6))
    assert load_model(f"hf:{other}").identity() != load_model(f"hf:{vit}").identity()


def labels(names: list[str]) -> Callable[[dict[str, Any]], object]:
    return lambda config: config.update(
        id2label={str(i): name for i, name in enumerate(names)}, label2id={name: i for i, name in enumerate(names)}
    )


WNIDS = [each.wnid for each in classes()]
LEMMAS = [each.lemmas for each in classes()]


@pytest.mark.parametrize("names", [WNIDS, LEMMAS, [f"LABEL_{i}" for i in range(1000)]])
def test_labels_in_the_order_of_the_classes_pass(names: list[str], vit: Path, tmp_path: Path) -> None:
    """So do names that say nothing."""
    check_labels(load_model(f"hf:{edited(vit, tmp_path / 'm', labels(names))}"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (WNIDS[::-1], r"output 0 is 'n15075141', but class 0 is 'tench'\. .*--class-map FILE"),
        (LEMMAS[1:] + LEMMAS[:1], r"not in the order of the classes: .*--class-map FILE"),
        ([f"thing {i}" for i in range(1000)], r"other names than the classes of ILSVRC2012: 'thing 0', .*--class-map"),
    ],
)
def test_labels_in_another_order_are_refused(
    names: list[str], words: str, vit: Path, tmp_path: Path, packed: Path
) -> None:
    """Nothing is guessed: the message names the option, and a class map settles it."""
    loaded = load_model(f"hf:{edited(vit, tmp_path / 'm', labels(names))}")
    dataset = wds_real.open_dataset(packed)
    with pytest.raises(ModelError, match=words) as caught:
        wds_real.evaluate(loaded, dataset, progress=False)
    assert caught.value.exit_code == 2
    mapped = wds_real.LoadedModel(
        loaded.spec, loaded.module, loaded.transform, labels=loaded.labels,
        classes=ClassMap(np.arange(1000)[::-1].copy(), 1000, {"order": "reversed"}),
    )  # fmt: skip
    assert wds_real.evaluate(mapped, dataset, progress=False).original_top1.total == len(dataset)


def bad_inputs(vit: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """Return the name of each model that does not fit, and words of its message."""
    import transformers

    def make(name: str, change: Callable[[dict[str, Any]], object]) -> Path:
        return edited(vit, folder / name, change)

    def without(name: str, *files: str) -> Path:
        found = make(name, lambda config: config)
        for file in files:
            (found / file).unlink()
        return found

    pickled = without("pickled", "model.safetensors")
    torch.save({"weight": Touch(folder / "made")}, pickled / "pytorch_model.bin")
    truncated, pointer, junk = make("truncated", dict), make("pointer", dict), make("junk", dict)
    (truncated / "model.safetensors").write_bytes((vit / "model.safetensors").read_bytes()[:5000])
    (pointer / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
    (junk / "config.json").write_text("{")
    transformers.BertConfig().save_pretrained(folder / "bert")
    (folder / "file").touch()
    headless = folder / "headless"
    transformers.ViTModel(transformers.ViTConfig.from_pretrained(vit)).save_pretrained(headless)
    remote = make("remote", lambda config: config.update(
        model_type="mine", auto_map={"AutoConfig": "configuration_mine.MyConfig"}))  # fmt: skip
    return {
        "missing folder": (str(folder / "nowhere" / "model"), "no such folder"),
        "a file": (str(folder / "file"), "is a file. Expected the folder"),
        "no name of a repository": ("a/b/c", "not the name of a repository"),
        "no config.json": (str(without("bare", "config.json")), "holds no config.json"),
        "config.json is not JSON": (str(junk), "config.json is not JSON"),
        "no weights": (str(without("empty", "model.safetensors")), "holds no weights"),
        "no processor": (str(without("blind", "preprocessor_config.json")), "Can't load image processor"),
        "code of its own": (str(remote), "needs Python code of its repository (configuration_mine.MyConfig)"),
        "unknown type": (str(make("new", lambda config: config.update(model_type="vit9"))), "no model_type 'vit9'"),
        "no classifier": (str(folder / "bert"), "a model of type 'bert', which has no image classifier"),
        "no head": (str(headless), "the weights lack classifier.bias, classifier.weight"),
        "other shapes": (
            str(make("wide", lambda each: each.update(hidden_size=32))),
            "the weights are of another model",
        ),
        "pickle with code": (str(pickled), "a pickle of Python objects"),
        "truncated weights": (str(truncated), "cannot load it"),
        "LFS pointer": (str(pointer), "a Git LFS pointer"),
        "999 classes": (
            str(save_vit(folder / "few", num_labels=999)),
            "has 999 outputs, expected 1000",
        ),
        "1001 classes": (str(save_vit(folder / "more", num_labels=1001)), "--background first"),
    }


def test_models_that_do_not_fit(vit: Path, tmp_path: Path, here: Path, run: Callable[..., Ended]) -> None:
    """One line each, exit code 2, and nothing of a pickle is run."""
    del here
    cases = bad_inputs(vit, tmp_path)
    wrong = {}
    for case, (name, words) in cases.items():
        done = run("eval", "-m", f"hf:{name}", "--quiet")
        if done.code != 2 or words not in done.err or len(done.err.splitlines()) != 1:
            wrong[case] = (done.code, done.err)
    assert wrong == {}
    assert len(cases) >= 15
    assert not (tmp_path / "made").exists()


def test_a_processor_without_a_fixed_size_is_refused(vit: Path, tmp_path: Path) -> None:
    """No batch can hold images of different sizes."""
    import transformers

    folder = edited(vit, tmp_path / "m", lambda config: config)
    transformers.BitImageProcessorPil(size={"shortest_edge": 32}, do_center_crop=False).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"gives images of 3 x .* Set a crop or a fixed size"):
        load_model(f"hf:{folder}")


def evaluated(endpoint: str, cache: Path, *arguments: str, ranks: int = 1, more: dict[str, str] | None = None) -> Ended:
    launcher = [] if ranks == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *launcher, "-m", "wds_real", "eval", str(REPOSITORY / "shards" / "tiny"), *arguments]
    environment = {**os.environ, **FAST, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), **(more or {})}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_hub_is_asked_once_and_with_a_word(vit: Path, tmp_path: Path) -> None:
    """Two ranks download each file once, with one line; then the network is not needed; the commit is in the result."""
    cache = tmp_path / "cache"
    arguments = ("-m", "hf:me/vit", "-b", "20", "-o", str(tmp_path / "out"))
    with hub({"me/vit": vit}) as server:
        done = evaluated(server.url, cache, *arguments, ranks=2)
        assert done.code == 0, done.err
        assert done.err.count("wds-real: hf:me/vit: downloading me/vit of the Hugging Face hub, ") == 1
        assert str(cache / "hub") in done.err
        assert set(server.downloads) == {"config.json", "preprocessor_config.json", "model.safetensors"}
        assert set(server.downloads.values()) == {1}
    model = json.loads((tmp_path / "out" / "result.json").read_text())["model"]
    assert (model["repository"], model["revision"]) == ("me/vit", COMMIT)
    environments: list[dict[str, str]] = [{}, {"HF_HUB_OFFLINE": "1"}]
    for environment in environments:
        again = evaluated(server.url, cache, *arguments, more=environment)
        assert again.code == 0, again.err
        assert "downloading" not in again.err
        assert "resuming: 3 of 3 batches" in again.err


@pytest.mark.parametrize(
    ("environment", "words"),
    [({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"), ({}, "no network"), (None, "there is no such repository")],
)
def test_what_cannot_be_downloaded_is_said_with_the_command_that_gets_it(
    environment: dict[str, str] | None, words: str, tmp_path: Path
) -> None:
    """One line: why not, what to fetch and where it goes."""
    with hub({}) as server:
        endpoint = server.url if environment is None else "http://127.0.0.1:1"
        done = evaluated(endpoint, tmp_path / "cache", "-m", "hf:me/vit@v2", "--quiet", more=environment)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert f"hf:me/vit@v2: me/vit of the Hugging Face hub is not in {tmp_path / 'cache' / 'hub'}" in line
    assert words in line
    assert "hf download me/vit --revision v2; copy the folder models--me--vit" in line
