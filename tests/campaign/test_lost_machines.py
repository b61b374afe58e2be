"""A run in an object store whose ranks are killed, lose their disks, or are taken for dead and go on.

What is written at the end is what an undisturbed run writes, byte by byte, whatever happened on the way.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support.fault_proxy import fault_proxy
from support.s3_gate import s3_gate
from support.trials import trial_environment
from support.wire import LOOPBACK

from wds_real.data.dataset import open_dataset
from wds_real.scoring.run.description import RunKey, read_run
from wds_real.scoring.run.frame import read_frames
from wds_real.scoring.run.output import merge
from wds_real.scoring.run.place import OutputPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.s3 import S3Server

BATCH_SIZE, NUM_BATCHES = 5, 24
SEED = 14
NUMBERS = itertools.count()


@pytest.mark.parametrize(
    ("trials", "accidents"),
    [
        pytest.param(2, {"suspend": 1, "kill": 2, "lose": 1}, id="few"),
        pytest.param(
            50,
            {"suspend": 2, "kill": 4, "lose": 1},
            id="200 kills",
            marks=[pytest.mark.slow, pytest.mark.timeout(3600)],
        ),
    ],
)
def test_machines_are_lost(
    packed: Path, s3: S3Server, tmp_path: Path, record_property: Callable[[str, object], None],
    trials: int, accidents: dict[str, int],
) -> None:  # fmt: skip
    """Kills, lost disks, late duplicates and thieves, among changing numbers of ranks: nothing changes the result."""
    url = f"s3://test/lost-{next(NUMBERS)}"
    undisturbed = evaluate_undisturbed(packed, s3, tmp_path)
    config = {
        "trials": trials, "accidents": accidents, "seed": SEED, "batch_size": BATCH_SIZE,
        "root": str(packed), "folder": str(tmp_path / "trials"), "url": url, "options": s3.options,
    }  # fmt: skip
    counts: Counter[str] = Counter()
    world_sizes, doubled, slowest = set[int](), 0, 0.0
    proxied = fault_proxy(
        LOOPBACK, s3.port, seed=SEED, rate=0.15, kinds=("reset", "503"), only=lambda request: request.method != "HEAD"
    )
    with s3_gate(s3) as gate, proxied as faulty:
        for trial in run_trials(config | {"endpoints": [s3.endpoint, gate.endpoint, s3.endpoint, faulty.endpoint]}):
            assert trial["left"] == [], trial
            assert set(trial["codes"]) == {0}, "\n".join(map(str, trial.items()))
            assert not [text for text in trial["errors"] if "Traceback" in text], trial
            assert found_in(trial["url"], s3, packed) == undisturbed, trial
            doubled += num_doubled(trial["url"], s3)
            counts.update({name: number for name, number in trial.items() if isinstance(number, int)})
            world_sizes.update(trial["world_sizes"])
            slowest = max(slowest, trial["seconds"])
        requests = Counter(request.method for request in gate.counted)
        sent, received = (sum(getattr(each, way) for each in gate.counted) for way in ("sent", "received"))
        injected = sum(faulty.injected.values())
    share = doubled / (trials * NUM_BATCHES)
    assert (counts["kill"], counts["lose"]) == (trials * accidents["kill"], trials * accidents["lose"])
    if trials > 10:
        assert share >= 0.3
        assert world_sizes == {1, 2, 3, 4}
        assert min(counts["gathered"], counts["stealing"], injected) > trials / 5
    record_property(
        "counts",
        f"{trials} runs in SeaweedFS, seed {SEED}: {counts['kill']} SIGKILLs, {counts['lose']} lost machines, "
        f"{counts['suspend']} ranks taken for dead, {counts['killed by the launcher']} killed with another; "
        f"{counts['starts']} starts, {counts['gathered']} of ranks that work together, {counts['stealing']} with "
        f"--steal, world sizes {sorted(world_sizes)}; {share:.0%} of the batches recorded twice; {injected} faults of "
        f"requests; through a proxy that counts: {dict(requests)}, {sent:,} bytes sent, {received:,} received; "
        f"{trials} with totals and bytes of an undisturbed run, 0 silent; slowest {slowest:.1f} s",
    )


def run_trials(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what `support.spot` says of each trial."""
    command = [sys.executable, "-m", "support.spot", json.dumps(config)]
    with subprocess.Popen(command, env=trial_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with contextlib.ExitStack() as stack:
            stack.callback(process.kill)  # if a trial fails; its ranks end by themselves
            number = 0
            for number, line in enumerate(process.stdout, 1):  # noqa: B007 -- counted
                yield json.loads(line)
            assert process.wait() == 0
            assert number == config["trials"]


def evaluate_undisturbed(root: Path, s3: S3Server, folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Return predictions and totals of a run in a folder that nothing happened to."""
    command = [sys.executable, "-m", "wds_real", "eval", str(root), "-m", "slow_model:slow_model", "-q",
               "-b", str(BATCH_SIZE), "-o", str(folder / "undisturbed")]  # fmt: skip
    environment = trial_environment(SLOW_MODEL_LOG=str(folder / "log"), SLOW_MODEL_SECONDS="0")
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return found_in(str(folder / "undisturbed"), s3, root)


def found_in(output: str, s3: S3Server, root: Path) -> tuple[bytes, dict[str, Any]]:
    """Return predictions and totals in an output; assert that its records give the same."""
    place = OutputPlace(output, s3.options if "://" in output else None)
    predictions = place.store.get("predictions.csv")
    totals = json.loads(place.store.get("result.json"))
    del totals["run"]
    result, merged = merge(place, open_dataset(root))
    assert merged.encode("csv") == predictions
    assert json.loads(json.dumps({**result.as_dict(), "run": None})) == {**totals, "run": None}
    return predictions, totals


def num_doubled(url: str, s3: S3Server) -> int:
    """Return how many batches are recorded more than once."""
    place = OutputPlace(url, s3.options)
    run = bytes.fromhex(RunKey(read_run(place)["identity"]).digest)[:16]
    records = OutputPlace(f"{url}/records", s3.options).store
    frames = [read_frames(records.get(name), run) for name in records.list()]
    found = Counter(record.batch for each in frames for record in each.records)
    assert set(found) == set(range(NUM_BATCHES))
    return sum(number > 1 for number in found.values())
