"""What holds on any device: bytes are copied whole, predictions are the same, and memory that runs out is said.

The tests marked `accelerator` run on one; ``scripts/check-accelerator`` runs them and prints what they proved. In the
default run the CPU stands in for it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support import SUPPORT
from support.commands import expect_one_line
from support.device_models import FITS, ConvModel, ConvolvedAnswer, TimedModel, free_memory

from wds_real import (
    Dataset,
    EvalOptions,
    LoadedModel,
    Loader,
    Normalize,
    RealAccuracy,
    evaluate,
    open_dataset,
    read_predictions,
)
from wds_real.evaluation.device import on_device
from wds_real.evaluation.readback import HostCopies
from wds_real.synthetic import known_answer, known_answer_model, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.commands import Ended

    from wds_real.scoring.predictions import Predictions

    Proved = Callable[[str, str], None]

TRANSFORM = known_answer_model()[1]
KNOWN = known_answer(labels_of(range(1, 121)))
SUMMED_S = 0.02  # of a forward pass on an accelerator in the test of the overlap, so that it is longer than loading


@pytest.fixture(params=["cpu", pytest.param("accelerator", marks=pytest.mark.accelerator)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The accelerator with ``-m accelerator``; in the default run the CPU."""
    if request.param == "cpu":
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        pytest.skip("there is no accelerator on this machine")
    return torch.device(found.type, 0)


@pytest.fixture
def proved(record_property: Callable[[str, object], None], device: torch.device) -> Proved:
    """Return a function that notes what was checked, and what came out: a line of the report."""

    def note(check: str, outcome: str) -> None:
        record_property("proved", (check, str(device), outcome))

    return note


@pytest.fixture(scope="module")
def ds(packed: Path) -> Dataset:
    """The first 120 validation images, made up."""
    return open_dataset(packed)


def predictions_of(
    model: torch.nn.Module, ds: Dataset, output: Path, device: torch.device, **options: Any
) -> Predictions:
    """Evaluate, and return what is in the prediction file."""
    fields: dict[str, Any] = {"batch_size": 16, "threads": 2, "device": str(device), **options}
    loaded = LoadedModel("model", model, TRANSFORM)
    evaluate(loaded, ds, options=EvalOptions(**fields), output=output, progress=False)
    return read_predictions(output / "predictions.csv")


def agreement(one: Predictions, other: Predictions) -> str:
    """Return in words how many images have the same first class, and the same five."""
    same = one.classes == other.classes
    largest = float(np.abs(one.probabilities - other.probabilities)[same].max())
    return (
        f"{int(same[:, 0].sum())} of {len(one)} images have the same top-1, {int(same.all(axis=1).sum())} the same "
        f"top-5; largest difference of a probability {largest:.1e}"
    )


def keep_busy(device: torch.device) -> None:
    """Queue work that takes an accelerator some milliseconds, and a CPU none."""
    if device.type != "cpu":
        square = torch.ones(2048, 2048, device=device)
        for _ in range(20):
            square = square @ square / 2048


# --- memory -----------------------------------------------------------------------------------------------------------


def test_copies_to_the_device_have_the_bytes_of_the_cpu(device: torch.device, ds: Dataset, proved: Proved) -> None:
    """Batches copied on a side stream, from pinned memory that is reused, while the device works, arrive unchanged."""
    loader = Loader(ds, batch_size=16, transform=TRANSFORM, threads=2)
    expected = {batch.number: batch.image.clone() for batch in loader}
    num_bytes = pinned = 0
    for _ in range(5):
        found = dict[int, torch.Tensor]()
        for batch, image in on_device(loader, device):
            keep_busy(device)
            assert image.device.type == device.type
            pinned += batch.image.is_pinned()
            found[batch.number] = image + 0  # computed behind the work that is queued
        for number, image in found.items():
            assert torch.equal(image.cpu(), expected[number])
            num_bytes += image.nbytes
    batches = 5 * len(expected)
    assert num_bytes == 5 * sum(image.nbytes for image in expected.values()) > 0
    assert pinned == (0 if device.type == "cpu" else batches)
    how = f"{pinned} of {batches} batches pinned" if pinned else "no copy is needed"
    proved("copies to the device on a side stream", f"{num_bytes:,} bytes equal to the CPU's; {how}")


def test_copies_to_the_host_have_the_bytes_of_the_device(device: torch.device, proved: Proved) -> None:
    """Results copied without waiting, while the device works and the source is overwritten, are those of their time."""
    source = torch.zeros(256, 5, dtype=torch.int64, device=device)
    copies, waiting = [], 0
    for number in range(100):
        keep_busy(device)
        source.fill_(number)
        copies.append(HostCopies(source, source.float()))
        waiting += not copies[-1].arrived
    for number, copy in enumerate(copies):
        classes, probabilities = copy.wait()
        assert copy.arrived
        assert (classes.device.type, probabilities.dtype) == ("cpu", torch.float32)
        assert bool((classes == number).all() and (probabilities == number).all())
        assert classes.is_pinned() == (device.type != "cpu")
    proved("copies of results to the host", f"100 of 100 right; {waiting} were still under way when the host went on")


# --- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_cpu(device: torch.device, ds: Dataset, tmp_path: Path, proved: Proved) -> None:
    """A model whose answers have a margin gives the known answer; a net with close scores is compared and counted."""
    cpu = torch.device("cpu")
    known = [predictions_of(ConvolvedAnswer(), ds, tmp_path / f"known-{one}", one) for one in (device, cpu)]
    assert np.array_equal(known[0].classes, known[1].classes)
    net = [predictions_of(ConvModel(), ds, tmp_path / f"net-{one}", one) for one in (device, cpu)]
    assert (net[0].classes[:, 0] == net[1].classes[:, 0]).mean() > 0.5
    proved("known answers on the device and on the CPU", agreement(*known))
    proved("a random net on the device and on the CPU", agreement(*net))


def test_late_readback_has_the_predictions_of_a_loop_that_waits(
    device: torch.device, ds: Dataset, tmp_path: Path, proved: Proved
) -> None:
    """The bytes of the predictions are those of a loop of one's own, which reads each batch back before the next."""
    predictions_of(ConvModel(), ds, tmp_path / "late", device)
    model, metric = ConvModel().eval().to(device), RealAccuracy(ds)
    normalize = Normalize(TRANSFORM.mean, TRANSFORM.std, device=device)
    with torch.inference_mode():
        for batch, image in on_device(Loader(ds, batch_size=16, transform=TRANSFORM, threads=2), device):
            metric.update(model(normalize(image).contiguous()), batch)
    at_once = metric.compute_with_predictions()[1]
    assert at_once.encode("csv") == (tmp_path / "late" / "predictions.csv").read_bytes()
    proved("late readback against reading back at once", f"{len(at_once)} predictions have equal bytes")


def test_predictions_do_not_depend_on_the_world_size(
    device: torch.device, packed: Path, tmp_path: Path, proved: Proved
) -> None:
    """One process and two give the same bytes; two that share one device are connected by gloo, and it is said."""
    found, said = {}, ""
    for processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes > 1 else []
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "wds_real", "eval", str(packed), "-m", "device_models:conv_model",
             "-b", "16", "-o", str(tmp_path / str(processes)), *(["--device", "cpu"] if device.type == "cpu" else [])],
            env={**os.environ, "PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}", "OMP_NUM_THREADS": "1"},
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[processes] = (tmp_path / str(processes) / "predictions.csv").read_bytes()
        said = done.stderr
    assert found[1] == found[2]
    shared = device.type != "cpu" and torch.accelerator.device_count() < 2
    assert ("2 processes share 1 device: gloo connects them" in said) == (shared and device.type != "mps")
    how = "by gloo, as both share one device" if shared else "with a device each" if device.type != "cpu" else "by gloo"
    proved("predictions of 1 and 2 processes", f"{len(found[1]):,} bytes of predictions.csv equal; connected {how}")


OPTIONS: dict[str, dict[str, Any]] = {
    "--amp (bfloat16)": {"amp": True, "amp_dtype": "bfloat16"},
    "--amp (float16)": {"amp": True, "amp_dtype": "float16"},
    "--channels-last": {"channels_last": True},
    "--torchcompile": {"torchcompile": True},
}


@pytest.mark.parametrize(
    "name",
    [
        *list(OPTIONS)[:3],
        pytest.param(
            "--torchcompile",
            marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")],  # torch's own
        ),
    ],
)
def test_options_that_change_the_arithmetic_keep_the_answers(
    name: str, device: torch.device, ds: Dataset, tmp_path: Path, proved: Proved
) -> None:
    """Answers with a margin stay the known ones; how many of a random net's change is counted."""
    known = predictions_of(ConvolvedAnswer(), ds, tmp_path / "known", device, **OPTIONS[name])
    assert known.classes.tolist() == predictions_of(ConvolvedAnswer(), ds, tmp_path / "plain", device).classes.tolist()
    changed = predictions_of(ConvModel(), ds, tmp_path / "changed", device, **OPTIONS[name])
    net = predictions_of(ConvModel(), ds, tmp_path / "net", device)
    assert (changed.classes[:, 0] == net.classes[:, 0]).mean() > 0.5
    proved(f"{name}: answers with a margin", f"{len(known)} of {len(known)} as in the plain run")
    proved(f"{name}: a random net against the plain run", agreement(changed, net))


# --- memory that runs out, and time -----------------------------------------------------------------------------------


def test_memory_that_runs_out_is_one_line_with_a_batch_size_that_fits(
    device: torch.device, packed: Path, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, proved: Proved
) -> None:
    """The message names a smaller batch, and the same command with that batch ends right."""
    monkeypatch.syspath_prepend(str(SUPPORT))
    command = ("eval", str(packed), "-m", "device_models:hungry_model", "--device", str(device), "-b")
    ended = run(*command, 2 * FITS)
    expect_one_line(ended, 1)
    advised = re.search(rf"out of memory at batch {2 * FITS}: try -b (\d+)\.$", ended.err)
    assert advised is not None, ended.err
    assert int(advised[1]) == FITS
    assert run(*command, advised[1]).code == 0
    free = "a limit that stands in for memory" if device.type == "cpu" else f"{free_memory(device) / 1e9:.1f} GB free"
    proved("memory that runs out", f"one line, {advised[0]!r}; -b {advised[1]} ends right ({free})")


def test_the_share_of_time_that_the_device_waits_is_measured(
    device: torch.device, ds: Dataset, tmp_path: Path, proved: Proved
) -> None:
    """Events around the forward passes give the time between them, with late readback and with reading back at once."""
    net, rounds = ConvModel(64).eval().to(device), 1
    image = torch.zeros(8, 3, 64, 64, device=device)
    with torch.inference_mode():
        while device.type != "cpu":
            trial = TimedModel(net, rounds=rounds)
            trial(image), trial(image)
            torch.accelerator.synchronize(device)
            if trial.seconds() >= 2 * SUMMED_S:
                break
            rounds *= 2
    options = {"batch_size": 8, "threads": 2, "pixel_cache": str(tmp_path / "pixels")}
    predictions_of(net, ds, tmp_path / "warm", device, **options)
    late = TimedModel(net, rounds=rounds)
    predictions_of(late, ds, tmp_path / "late", device, **options)
    at_once, metric = TimedModel(net, rounds=rounds), RealAccuracy(ds)
    normalize = Normalize(TRANSFORM.mean, TRANSFORM.std, device=device)
    loader = Loader(ds, batch_size=8, transform=TRANSFORM, threads=2, pixel_cache=tmp_path / "pixels")
    with torch.inference_mode():
        for batch, pixels in on_device(loader, device):
            metric.update(at_once(normalize(pixels)), batch)
    for model in (late, at_once):
        assert len(model.spans) == 15
        assert 0 <= model.waiting_share() < 1
    proved(
        "time that the device waits between forward passes",
        f"{late.waiting_share():.1%} of {late.seconds() * 1e3:.0f} ms; reading back at once "
        f"{at_once.waiting_share():.1%} of {at_once.seconds() * 1e3:.0f} ms"
        + ("; on a CPU all other work lies between the passes" if device.type == "cpu" else ""),
    )


class _Watched(ConvModel):
    """Lets CUDA report each call that waits for the device, from the second batch to the last."""

    def __init__(self, num_batches: int) -> None:
        super().__init__()
        self.left = num_batches

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        scores: torch.Tensor = super().forward(image)  # type: ignore[no-untyped-call]  # torch's Sequential
        if image.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn" if self.left else "default")
        return scores


def test_nothing_in_the_loop_waits_for_the_device(
    device: torch.device, ds: Dataset, tmp_path: Path, proved: Proved
) -> None:
    """CUDA's own report of calls that wait is empty; other devices have none, and a fake device stands in for them."""
    watched = _Watched(8)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            predictions_of(watched, ds, tmp_path, device)
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    assert watched.left == 0
    calls = [str(warning.message) for warning in seen if "synchroniz" in str(warning.message)]
    assert not calls
    shown = "0, by CUDA's own report" if device.type == "cuda" else "not reported by this device"
    proved("calls in the loop that wait for the device", shown)
