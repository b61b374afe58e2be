"""The evaluation loop: known answers, whatever the options and however many processes."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import torch

import wds_real
from wds_real import (
    Accuracy,
    Dataset,
    EvalOptions,
    EvalTransform,
    LoadedModel,
    ModelError,
    Normalize,
    PredictionsError,
    Result,
    ShardError,
    evaluate,
)
from wds_real.evaluation.models.base import AcceptedInput
from wds_real.image.backends import describe
from wds_real.synthetic import KnownAnswerModel, known_answer, known_answer_model, labels_of

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

MODEL, TRANSFORM = known_answer_model()
OPTIONS = EvalOptions(batch_size=50, threads=2, device="cpu")


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """The first 120 validation images, made up."""
    return wds_real.open_dataset(packed)


@pytest.fixture(scope="module")
def known() -> dict[str, int]:
    """What a right evaluation of the known-answer model finds in them."""
    return known_answer(labels_of(range(1, 121)))


def counts(result: Result) -> dict[str, int]:
    names = ("original_top1", "original_top5", "original_top1_labelled", "real_top1", "real_top5")
    found = {name: getattr(result, name).correct for name in names}
    bridge = {"forgiven": result.forgiven, "newly_wrong": result.newly_wrong}
    return found | bridge | {"labelled": result.real_top1.total, "all": result.original_top1.total}


def comparable(result: Result) -> dict[str, Any]:
    """Return the result as JSON gives it back, without what may differ between two runs."""
    found: dict[str, Any] = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    del found["run"]
    return found


class Watching(KnownAnswerModel):
    """The known-answer model, and what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []
        self.autocast: list[torch.dtype | None] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.inputs.append(image)
        self.autocast.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return super().forward(image)


def as_floats(image: Image.Image) -> torch.Tensor:
    """Return what TRANSFORM and Normalize return, computed separately."""
    pixels = torch.frombuffer(bytearray(TRANSFORM(image).tobytes()), dtype=torch.uint8)
    return (pixels.reshape(64, 64, 3).permute(2, 0, 1) / 255 - 0.5) / 0.5


# --- one process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        EvalOptions(batch_size=1, device="cpu"),
        EvalOptions(batch_size=999, threads=1, device="cpu"),
        EvalOptions(batch_size=50, amp=True, amp_dtype="bfloat16", device="cpu"),
        EvalOptions(batch_size=50, channels_last=True, device="cpu"),
        pytest.param(
            EvalOptions(batch_size=50, torchcompile=True, device="cpu"),
            marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")],  # torch's own
        ),
    ],
)
def test_the_known_answer_is_found(ds: Dataset, known: dict[str, int], options: EvalOptions) -> None:
    """Every count is the known one, and each image was seen once, however it is run."""
    result = evaluate(MODEL, ds, transform=TRANSFORM, options=options)
    assert counts(result) == known
    assert result.receipt == "120 expected, 120 seen once, 0 missing, 0 twice, 1 rank"


def test_a_loaded_model_has_its_transform_and_name(ds: Dataset, known: dict[str, int]) -> None:
    """What `load_model` returned is evaluated with its own transform, and named in the result."""
    loaded = wds_real.load_model("wds_real.synthetic:known_answer_model")
    result = evaluate(loaded, ds, options=OPTIONS)
    assert counts(result) == known
    assert result.model["name"] == "wds_real.synthetic:known_answer_model"
    assert result.preprocessing == TRANSFORM.describe() | {"mean": [0.5] * 3, "std": [0.5] * 3}


def test_the_result_says_what_was_done(ds: Dataset) -> None:
    """The result is JSON, with data set, model, preprocessing and options, and prints as a table with the receipt."""
    result = evaluate(MODEL, ds[:60], transform=TRANSFORM, options=OPTIONS)
    found = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert found["dataset"]["split"] == "validation[:60]"
    assert (found["dataset"]["digest"], found["dataset"]["num_samples"]) == (ds.digest, 60)
    assert found["preprocessing"]["img_size"] == [64, 64]
    assert found["run"]["options"]["batch_size"] == 50
    assert found["run"]["decode"] == describe()["decode"]
    assert found["run"]["resize"] == describe()["resize"]
    assert found["run"]["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    title, *lines = str(result).splitlines()
    assert "on imagenet2012_real, validation" in title
    assert lines[0] == " float32 on cpu, batch size 50"
    assert found["execution"] == {
        "precision": "float32", "batch_size": 50, "device": "cpu", "compile": False, "channels_last": False
    }  # fmt: skip
    assert lines[2].startswith(" original top-1 ")
    assert " coverage: 60 expected, 60 seen once, 0 missing, 0 twice, 1 rank" in lines
    assert lines[-1] == f" data set {ds.digest}"


def test_a_model_sees_normalised_pixels_in_full_batches(ds: Dataset) -> None:
    """The input is (x / 255 - mean) / std, float32, contiguous, in batches of one size, in inference and eval mode."""
    model = Watching().train()
    evaluate(model, ds, transform=TRANSFORM, options=OPTIONS)
    assert [tuple(image.shape) for image in model.inputs] == [(50, 3, 64, 64)] * 3
    assert not model.training
    for row in (0, 49):
        assert torch.allclose(model.inputs[1][row], as_floats(ds[50 + row]["image"]), atol=1e-6)
    assert all(image.is_contiguous() and image.dtype == torch.float32 for image in model.inputs)
    assert all(image.is_inference() for image in model.inputs)
    assert model.autocast == [None] * 3


def test_mean_and_std_replace_the_transforms(ds: Dataset) -> None:
    """Given mean and std are used in place of the transform's, and told in the result."""
    model = Watching()
    result = evaluate(model, ds[:1], transform=TRANSFORM, mean=(0.0, 0.25, 0.5), std=(1.0, 0.5, 2.0), options=OPTIONS)
    pixels = as_floats(ds[0]["image"]) * 0.5 + 0.5
    mean, std = torch.tensor([0.0, 0.25, 0.5]), torch.tensor([1.0, 0.5, 2.0])
    assert torch.allclose(model.inputs[0][0], (pixels - mean[:, None, None]) / std[:, None, None], atol=1e-6)
    assert (result.preprocessing["mean"], result.preprocessing["std"]) == ([0.0, 0.25, 0.5], [1.0, 0.5, 2.0])


def test_normalising_is_exact_where_the_numbers_are() -> None:
    """A mean of 127 / 255 takes exactly 127 from a pixel; floats pass as they are."""
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    normalize = Normalize([127 / 255] * 3, [128 / 255] * 3, device=torch.device("cpu"))
    assert torch.equal(normalize(pixels), (pixels.float() - 127) / 128)
    floats = torch.rand(1, 3, 4, 4)
    assert normalize(floats) is floats


def test_amp_and_channels_last_reach_the_model(ds: Dataset) -> None:
    """The model runs under autocast of the given type, and gets channels-last memory."""
    model = Watching()
    options = EvalOptions(batch_size=60, amp=True, amp_dtype="bfloat16", channels_last=True, device="cpu")
    evaluate(model, ds, transform=TRANSFORM, options=options)
    assert model.autocast == [torch.bfloat16] * 2
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in model.inputs)


def test_float_transforms_are_not_normalised_again(ds: Dataset, known: dict[str, int]) -> None:
    """A transform that gives floats has normalised them itself: the model sees just these."""
    model = Watching()
    result = evaluate(model, ds, transform=as_floats, options=OPTIONS)
    assert counts(result) == known
    assert torch.equal(model.inputs[0][3], as_floats(ds[3]["image"]))
    assert result.preprocessing["name"].startswith(f"{__name__}.as_floats#")


class Callable64:
    """A transform that is an object, as those of torchvision are, without a repr of its own."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return as_floats(image)


@pytest.mark.parametrize("make", [Callable64, lambda: functools.partial(as_floats)], ids=["object", "partial"])
def test_transforms_that_are_objects_have_one_name(ds: Dataset, make: Any) -> None:
    """The name in the result does not depend on where in memory the transform lies, so two runs are the same."""
    first, second = make(), make()
    results = [evaluate(MODEL, ds[:5], transform=transform, options=OPTIONS) for transform in (first, second)]
    assert comparable(results[0]) == comparable(results[1])
    assert "0x" not in results[0].preprocessing["name"]


def test_progress_counts_every_sample_once(ds: Dataset) -> None:
    """The calls add up to the total that each of them tells, padding not counted."""
    calls: list[tuple[int, int]] = []
    evaluate(MODEL, ds, transform=TRANSFORM, options=OPTIONS, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(50, 120), (50, 120), (20, 120)]


def test_a_function_is_a_model(ds: Dataset) -> None:
    """Any callable on batches is evaluated, also one that returns classes, which has no top-5."""
    result = evaluate(lambda image: MODEL(image).argmax(dim=1), ds, transform=TRANSFORM, options=OPTIONS)
    assert result.original_top1.correct == known_answer(labels_of(range(1, 121)))["original_top1"]
    assert result.original_top5 is None
    assert "top-5" not in str(result)


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(lambda image: {"a": MODEL(image), "b": MODEL(image)}, id="dict"),
        pytest.param(lambda _: None, id="None"),
        pytest.param(lambda image: MODEL(image).mean(), id="scalar"),
        pytest.param(lambda image: MODEL(image)[:-1], id="too few"),
        pytest.param(lambda image: MODEL(image)[:, :100], id="100 classes"),
        pytest.param(lambda image: MODEL(image).numpy(), id="array"),
        pytest.param(lambda image: MODEL(image) * float("nan"), id="NaN"),
        pytest.param(lambda image: MODEL(image).long(), id="integer scores"),
    ],
)
def test_a_model_that_returns_something_else(ds: Dataset, output: Any) -> None:
    """What is not a tensor of 1,000 finite scores a row is a ModelError, not a number and not a traceback."""
    with pytest.raises(ModelError):
        evaluate(output, ds, transform=TRANSFORM, options=OPTIONS)


@pytest.mark.parametrize("wrap", [lambda scores: (scores,), lambda scores: {"logits": scores, "hidden": scores[:, :3]}])
def test_a_model_may_return_its_scores_in_something(ds: Dataset, known: dict[str, int], wrap: Any) -> None:
    """The counts are those of the scores alone."""
    result = evaluate(lambda image: wrap(MODEL(image)), ds, transform=TRANSFORM, options=OPTIONS)
    assert counts(result) == known


def test_a_program_for_pixels_gets_them_as_decoded(ds: Dataset, known: dict[str, int]) -> None:
    """They are uint8 and not normalised; the result names no mean and no std, as none was used."""
    seen: list[torch.dtype] = []

    def program(pixels: torch.Tensor) -> Any:
        seen.append(pixels.dtype)
        mean, std = (255 * torch.tensor(value).view(1, 3, 1, 1) for value in (TRANSFORM.mean, TRANSFORM.std))
        return MODEL((pixels.float() - mean) / std)

    any_size = ((1, None), (3, 3), (1, None), (1, None))
    loaded = LoadedModel("program", program, TRANSFORM, AcceptedInput(any_size, torch.uint8))
    result = evaluate(loaded, ds, options=OPTIONS)
    assert (set(seen), counts(result)) == ({torch.uint8}, known)
    assert not {"mean", "std"} & result.preprocessing.keys()
    with pytest.raises(ModelError, match="takes uint8 pixels, but the transform returns floats"):
        evaluate(loaded, ds, transform=lambda image: torch.zeros(3, *image.size), options=OPTIONS)


def test_unreadable_samples_bound_the_result(packed: Path, tmp_path: Path, known: dict[str, int]) -> None:
    """on_error="record" gives the worst case and the best; the default gives no result."""
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    damaged = wds_real.open_dataset(tmp_path)
    shard = tmp_path / damaged.manifest.shards[0].name
    data = bytearray(shard.read_bytes())
    for row in (4, 5):
        data[damaged.index.offset[row] + 200] ^= 255
    shard.write_bytes(data)
    with pytest.raises(ShardError, match=damaged.index.keys[4]):
        evaluate(MODEL, damaged, transform=TRANSFORM, options=OPTIONS)
    options = EvalOptions(batch_size=50, device="cpu", on_error="record")
    result = evaluate(MODEL, damaged, transform=TRANSFORM, options=options)
    assert result.coverage.failed == damaged.index.keys[4:6]
    assert result.original_top1.failed == 2
    assert result.original_top1.value <= known["original_top1"] / 120 <= result.original_top1.best_case
    assert comparable(result)["coverage"]["failed"] == list(damaged.index.keys[4:6])
    assert result.original_top1.correct + sum(
        known_answer(labels_of([number]))["original_top1"] for number in (5, 6)
    ) == known["original_top1"]  # fmt: skip


def test_an_interrupted_run_is_resumed(ds: Dataset, known: dict[str, int], tmp_path: Path) -> None:
    """With an output folder, a second call evaluates only the missing batches and gives the same result and files."""
    calls = 0

    class Failing(KnownAnswerModel):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            return super().forward(image)

    def run(output: Path, transform: EvalTransform = TRANSFORM) -> Result:
        model = LoadedModel("failing", Failing(), transform)
        return evaluate(model, ds, options=OPTIONS, output=output)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a")
    assert not (tmp_path / "a" / "result.json").exists()
    done = run(tmp_path / "a")
    assert calls == 4
    assert counts(done) == known
    assert comparable(done) == comparable(run(tmp_path / "b"))
    assert comparable(run(tmp_path / "a")) == comparable(done)
    assert calls == 7
    one, other = ((tmp_path / name / "predictions.csv").read_bytes() for name in "ab")
    assert one == other
    with pytest.raises(PredictionsError, match="another run"):
        run(tmp_path / "a", EvalTransform(64))


def test_public_functions_are_functions_whatever_was_imported_before() -> None:
    """No module's name hides `wds_real.evaluate` or its like, also once every module is imported."""
    program = """
        import importlib, pkgutil, wds_real
        for module in pkgutil.iter_modules(wds_real.__path__):
            if not module.name.startswith("__"):
                importlib.import_module(f"wds_real.{module.name}")
        for name in wds_real.__all__:
            assert type(getattr(wds_real, name)) is not type(wds_real), name
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- several processes ------------------------------------------------------------------------------------------------

SCRIPT = """
    import json, os, sys
    from pathlib import Path

    import wds_real
    from wds_real import EvalOptions, evaluate

    ds, folder, loaded = wds_real.open_dataset(sys.argv[1]), Path(sys.argv[2]), wds_real.load_model(sys.argv[3])
    for batch_size in (7, 50, 100):
        options = EvalOptions(batch_size=batch_size, device="cpu")
        result = evaluate(loaded, ds, options=options, output=folder / str(batch_size))
        (folder / f"{batch_size}-{os.environ['RANK']}.json").write_text(json.dumps(result.as_dict()))
"""


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_result_is_the_same_for_every_world_size(
    ds: Dataset, packed: Path, world_size: int, tmp_path: Path, known: dict[str, int]
) -> None:
    """Real processes, also more of them than batches, all end with the result and the prediction file of one."""
    name = "wds_real.synthetic:known_answer_model"
    (tmp_path / "ranks.py").write_text(textwrap.dedent(SCRIPT))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size)]
    done = subprocess.run(
        [*launcher, str(tmp_path / "ranks.py"), str(packed), str(tmp_path), name],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for batch_size in (7, 50, 100):
        alone = tmp_path / f"alone-{batch_size}"
        options = EvalOptions(batch_size=batch_size, device="cpu")
        expected = evaluate(wds_real.load_model(name), ds, options=options, output=alone)
        assert counts(expected) == known
        for rank in range(world_size):
            found = json.loads((tmp_path / f"{batch_size}-{rank}.json").read_text())
            assert found.pop("run")["world_size"] == world_size
            assert found == comparable(expected)
        written = tmp_path / str(batch_size)
        assert (written / "predictions.csv").read_bytes() == (alone / "predictions.csv").read_bytes()
        found = json.loads((written / "result.json").read_text())
        assert found.pop("run")["world_size"] == world_size
        assert found == comparable(expected)


def test_accuracy_counts_are_plain_integers(ds: Dataset) -> None:
    """Counts compare and serialise as Python integers."""
    result = evaluate(MODEL, ds[:3], transform=TRANSFORM, options=OPTIONS)
    assert type(result.original_top1) is Accuracy
    assert {type(result.original_top1.correct), type(result.forgiven), type(result.coverage.seen_once)} == {int}


def test_names_of_model_and_data_are_enough(packed: Path) -> None:
    """A name for the model, a root for the data and keywords for the options give the result of the objects."""
    name = "wds_real.synthetic:known_answer_model"
    result = evaluate(name, packed, batch_size=50, device="cpu", progress=False)
    options = EvalOptions(batch_size=50, device="cpu")
    expected = evaluate(wds_real.load_model(name), wds_real.open_dataset(str(packed)), options=options)
    assert result.as_dict()["accuracy"] == expected.as_dict()["accuracy"]
    assert result.model == expected.model
    assert evaluate(name, str(packed), batch_size=50, device="cpu", progress=False).model == expected.model


def test_options_are_given_once(ds: Dataset) -> None:
    """An object and keywords together are refused before anything is loaded."""
    with pytest.raises(TypeError, match="batch_size given beside options="):
        evaluate(MODEL, ds, options=OPTIONS, batch_size=3)
