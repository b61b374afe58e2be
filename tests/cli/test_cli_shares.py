"""``wds-real eval`` with independent ranks, and with an output in an object store; ``wds-real merge`` of both."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import MODEL, Ended, expect_one_line, messages

from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.s3 import S3Server

pytestmark = pytest.mark.usefixtures("here")
NUMBERS = itertools.count()
EVAL = ("eval", "shards", "-m", MODEL, "-b", "20", "-q")  # 6 batches


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)


def options(s3: S3Server, name: str) -> list[str]:
    return [word for key, value in s3.options.items() for word in (name, f"{key}={value}")]


def test_ranks_of_an_array_leave_what_one_process_leaves(run: Callable[..., Ended]) -> None:
    """Each ends with 0; all but the last say what is missing; the last prints the result as any evaluation does."""
    run(*EVAL, "-o", "one")
    for rank in (2, 0):
        ended = run(*EVAL, "-o", "run", "--rank", str(rank), "--world-size", "3")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(
            f"rank {rank} of 3 did 2 batches; {4 if rank else 2} of 6 are not recorded yet, of "
        )
    merged = run("merge", "run")
    expect_one_line(merged, 3, "run: saw 80 of 120 samples (40 missing, 0 doubled)")
    ended = run(*EVAL, "-o", "run", "--rank", "1", "--world-size", "3")
    assert ended.code == 0
    assert "120 expected, 120 seen once, 0 missing, 0 twice, 3 ranks" in ended.out
    assert Path("run/predictions.csv").read_bytes() == Path("one/predictions.csv").read_bytes()
    again = run("merge", "run")
    assert again.code == 0
    assert "120 expected, 120 seen once" in again.out


def test_what_is_missing_as_json(run: Callable[..., Ended]) -> None:
    """One object: what is missing, or else the result."""
    found = json.loads(run(*EVAL, "-o", "run", "--rank", "0", "--world-size", "2", "--json").out)
    assert found == {
        "rank": 0, "world_size": 2, "batches": 6, "batches_done": 3, "batches_missing": [3, 4, 5],
    }  # fmt: skip
    found = json.loads(run(*EVAL, "-o", "run", "--rank", "1", "--world-size", "2", "--json").out)
    assert found["coverage"]["seen_once"] == 120


def test_each_independent_rank_speaks_for_itself(run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rank a launcher gave it; a rank of ranks that work together is silent but for rank 0."""
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    ended = run(*EVAL, "-o", "run", "--independent")
    assert ended.code == 0
    assert ended.out.startswith("rank 3 of 4 did 2 batches; 4 of 6 are not recorded yet, of ranks 0, 1, 2")
    ended = run("eval", "shards", "-m", MODEL, "-b", "21", "-q", "-o", "run", "--independent")
    assert ended.code == 1
    (line,) = messages(ended.err)
    assert line.startswith("rank 3: error: run: holds the records of another run: batch_size was 20, is 21.")


def test_a_rank_may_take_the_batches_of_others(run: Callable[..., Ended]) -> None:
    """--steal: the result is there although most ranks never started."""
    ended = run(*EVAL, "-o", "run", "--rank", "5", "--world-size", "40", "--steal")
    assert ended.code == 0
    assert "120 expected, 120 seen once, 0 missing, 0 twice, 1 rank" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--rank", "7", "--world-size", "4"], 2, "--rank is 7, expected 0 <= rank < 4"),
        (["--rank", "1"], 2, "--world-size is not given"),
        (["--rank", "-1", "--world-size", "4"], 2, "--rank"),
        (["--rank", "0", "--world-size", "0"], 2, "--world-size"),
        (["--independent"], 2, "no launcher set one. Give --rank and --world-size"),
        (["--steal"], 2, "--steal is for independent ranks"),
        (["--rank", "0", "--world-size", "2", "-m", MODEL], 2, "independent ranks evaluate one model"),
        (["--output-option", "region=x"], 2, "--output-option is for URLs; run is a folder"),
        (["--output-option", "region"], 2, "expected NAME=VALUE"),
        (["--save-every", "-1"], 2, "--save-every"),
    ],
)
def test_wrong_use_is_one_line(run: Callable[..., Ended], arguments: list[str], code: int, says: str) -> None:
    """Nothing is written."""
    ended = run(*EVAL, "-o", "run", *arguments)
    assert ended.code == code
    assert says in messages(ended.err)[-1]
    assert not Path("run").exists()


def test_independent_ranks_need_an_output(run: Callable[..., Ended]) -> None:
    """They meet nowhere else."""
    ended = run(*EVAL, "--rank", "0", "--world-size", "2")
    assert ended.code == 2
    assert "independent ranks need --output" in messages(ended.err)[-1]


def test_an_output_in_an_object_store(
    run: Callable[..., Ended], s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The same bytes as in a folder; a second start does nothing again, and merge writes it anew."""
    url = f"s3://test/shares-{next(NUMBERS)}"
    run(*EVAL, "-o", "one")
    ended = run(*EVAL, "-o", url, *options(s3, "--output-option"))
    assert ended.code == 0
    assert f"wrote {url}/result.json and {url}/predictions.csv" in ended.out
    store = open_store(url, storage_options=s3.options)
    assert store.get("predictions.csv") == Path("one/predictions.csv").read_bytes()
    names = open_store(f"{url}/records", storage_options=s3.options).list()
    assert len(names) == 1
    again = run("eval", "shards", "-m", MODEL, "-b", "20", "-o", url, *options(s3, "--output-option"))
    assert again.code == 0
    assert f"resuming: 6 of 6 batches are recorded in {url}" in caplog.messages
    assert open_store(f"{url}/records", storage_options=s3.options).list() == names
    store.delete("predictions.csv")
    merged = run("merge", url, *options(s3, "--output-option"))
    assert merged.code == 0
    assert f"wrote {url}/result.json and {url}/predictions.csv" in merged.out
    assert (
        open_store(url, storage_options=s3.options).get("predictions.csv") == Path("one/predictions.csv").read_bytes()
    )


def test_two_runs_in_one_place_of_an_object_store(run: Callable[..., Ended], s3: S3Server) -> None:
    """The second is refused, and writes nothing."""
    url = f"s3://test/shares-{next(NUMBERS)}"
    assert run(*EVAL, "-o", url, *options(s3, "--output-option")).code == 0
    names = open_store(url, storage_options=s3.options).list()
    ended = run("eval", "shards", "-m", MODEL, "-b", "21", "-q", "-o", url, *options(s3, "--output-option"))
    expect_one_line(ended, 1, f"{url}: holds the records of another run: batch_size was 20, is 21")
    assert open_store(url, storage_options=s3.options).list() == names


def test_an_output_that_may_only_be_read(run: Callable[..., Ended], s3: S3Server) -> None:
    """The write of run.json is denied before the model is run; the option that is named is the output's."""
    anonymous = ["--output-option", f"endpoint={s3.endpoint}", "--output-option", "skip_signature=true"]
    ended = run(*EVAL, "-o", "s3://public/denied", *anonymous)
    expect_one_line(ended, 1, "s3://public/denied/run.json: ")
    ended = run(*EVAL, "-o", "s3://public/denied")
    expect_one_line(ended, 1, "--output s3://public/denied: no credentials were found")
    assert "--storage-option" not in ended.err
    ended = run("merge", "s3://public/denied")
    expect_one_line(ended, 1, "error: s3://public/denied")
    assert "--output-option" in ended.err
    assert "--storage-option" not in ended.err


def test_the_options_of_the_data_set_are_those_of_an_output_of_the_same_kind(
    run: Callable[..., Ended], s3: S3Server
) -> None:
    """Secrets for one kind of store are not sent to another kind."""
    url = f"s3://test/shares-{next(NUMBERS)}"
    assert run("pack", "val.tar", f"{url}/set", "--allow-partial", *options(s3, "--storage-option")).code == 0
    ended = run(
        "eval", f"{url}/set", "-m", MODEL, "-b", "20", "-q", "-o", f"{url}/run", *options(s3, "--storage-option")
    )
    assert ended.code == 0
    merged = run("merge", f"{url}/run", *options(s3, "--storage-option"))
    assert merged.code == 0


def test_several_models_in_an_object_store(run: Callable[..., Ended], s3: S3Server) -> None:
    """Each has a place of its own."""
    url = f"s3://test/shares-{next(NUMBERS)}"
    Path("others.py").write_text(
        "from wds_real.synthetic import known_answer_model as one, known_answer_model as two\n"
    )
    ended = run(
        "eval", "shards", "-m", "others:one", "-m", "others:two", "-b", "20", "-q", "-o", url, "--json",
        *options(s3, "--output-option"),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    folders = [each["folder"] for each in json.loads(ended.out)]
    assert len(set(folders)) == 2
    for folder in folders:
        assert folder.startswith(f"{url}/")
        assert "result.json" in open_store(folder, storage_options=s3.options).list()
