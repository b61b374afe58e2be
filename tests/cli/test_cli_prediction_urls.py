"""Predictions and results at URLs: every command that reads them, on a real S3 server and on web servers."""

from __future__ import annotations

import importlib
import io
import json
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.commands import Ended, expect_one_line, messages, without_torch
from support.http_server import http_server

import wds_real
from wds_real.errors import MissingError, ModelError, UnavailableError
from wds_real.labels import bundled
from wds_real.scoring.run.output import write_failure, write_output
from wds_real.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.s3 import S3Server

    Run = Callable[..., Ended]

ORIGINAL = np.array(bundled().original)


def answers(*, wrong: int) -> wds_real.Predictions:
    """Return the original labels as predictions, every so many of them replaced."""
    top1 = ORIGINAL.copy()
    top1[::wrong] = (top1[::wrong] + 500) % 1000
    return wds_real.read_predictions(top1.tolist())


def npy(predictions: wds_real.Predictions) -> bytes:
    """Return a file of the classes alone, which is read faster than text."""
    file = io.BytesIO()
    np.save(file, predictions.classes[:, 0])
    return file.getvalue()


@dataclass(frozen=True)
class Bucket:
    """Results on an S3 server, below `url`: answers/good.csv, answers/{good,worse}.npy, runs/{good,worse,bad,half}."""

    url: str
    options: dict[str, str]

    @property
    def words(self) -> list[str]:
        """The options as words of a command."""
        return [word for name, value in self.options.items() for word in ("--storage-option", f"{name}={value}")]


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> Bucket:
    found = Bucket("s3://test/results", s3.options)
    for name, wrong in (("good", 20), ("worse", 10)):
        predictions = answers(wrong=wrong)
        s3.put("test", f"results/answers/{name}.npy", npy(predictions))
        s3.put("public", f"results/{name}.npy", npy(predictions))
        run = open_store(f"{found.url}/runs/{name}", storage_options=s3.options)
        write_output(run, wds_real.score(predictions), predictions, form="npz")
    s3.put("test", "results/answers/good.csv", answers(wrong=20).encode())
    write_failure(open_store(f"{found.url}/runs/bad", storage_options=s3.options), "bad", ModelError("did not load"))
    s3.put("test", "results/runs/half/run.json", b"{}")
    s3.put("test", "results/other/data.bin", b"")
    return found


def printed(ended: Ended) -> dict[str, Any]:
    assert (ended.code, ended.err) == (0, "")
    found: dict[str, Any] = json.loads(ended.out)
    return found


# --- every command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["answers/good.csv", "runs/good", "runs/good/", "runs/good/predictions.npz"])
def test_score_reads_a_file_and_a_run(run: Run, bucket: Bucket, place: str) -> None:
    """The counts are those of the same predictions in Python; the first line has the URL."""
    expected = wds_real.score(answers(wrong=20))
    ended = run("score", f"{bucket.url}/{place}", *bucket.words)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{bucket.url}/{place.rstrip('/')}: 50,000 predictions")
    found = printed(run("score", f"{bucket.url}/{place}", "--json", *bucket.words))
    assert found["accuracy"]["real_top1"]["correct"] == expected.real_top1.correct


def test_compare_reads_files_and_runs(run: Run, bucket: Bucket, tmp_path: Path) -> None:
    """At URLs and paths side by side; JSON names them."""
    (tmp_path / "worse.npy").write_bytes(npy(answers(wrong=10)))
    a, b = f"{bucket.url}/runs/good", tmp_path / "worse.npy"
    found = printed(run("compare", a, b, "--json", *bucket.words))
    assert found["files"] == {"a": a, "b": str(b)}
    ended = run("compare", a, f"{bucket.url}/answers/worse.npy", *bucket.words)
    assert (ended.code, ended.err) == (0, "")
    assert f"A {a}\nB {bucket.url}/answers/worse.npy" in ended.out


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_folder_of_many_models_is_listed(run: Run, bucket: Bucket, command: str) -> None:
    """Each run in it that has a result is taken; the report says which have none."""
    ended = run(command, f"{bucket.url}/runs", *bucket.words)
    assert ended.code == 0
    assert all(name in ended.out for name in ("good", "worse"))
    said = messages(ended.err)
    assert said == ([] if command == "compare" else [
        "not in the table: bad: did not load", "not in the table: half: not finished"])  # fmt: skip


def test_a_star_stands_for_names(run: Run, bucket: Bucket, tmp_path: Path) -> None:
    """The table of files that fit is that of the files by name."""
    by_star, by_name = tmp_path / "star.csv", tmp_path / "name.csv"
    assert run("report", f"{bucket.url}/answers/*.npy", "-o", by_star, *bucket.words).code == 0
    names = [f"{bucket.url}/answers/{name}.npy" for name in ("worse", "good")]
    assert run("report", *names, "-o", by_name, *bucket.words).code == 0
    assert by_star.read_text() == by_name.read_text()
    expect_one_line(run("report", f"{bucket.url}/answers/z*", *bucket.words), 1, "fits the pattern")


def test_report_reads_result_files(run: Run, bucket: Bucket) -> None:
    """The result beside its predictions gives the same row as the folder."""
    of_folder = run("report", f"{bucket.url}/runs/good", *bucket.words)
    assert run("report", f"{bucket.url}/runs/good/result.json", *bucket.words) == of_folder
    assert of_folder.out.splitlines()[1].split()[:2] == ["1", "good"]


def test_diagnose_reads_a_file_and_a_run(run: Run, bucket: Bucket) -> None:
    """The verdict is that of the predictions."""
    for place in ("answers/good.npy", "runs/good"):
        found = printed(run("diagnose", f"{bucket.url}/{place}", "--json", *bucket.words))
        assert found["verdict"] == "no known mistake of order or class numbers"


def test_a_suggested_command_can_be_run(run: Run, bucket: Bucket, s3: S3Server) -> None:
    """It has the URL and the options, apart from those that may hold a secret: these are in the environment."""
    file = io.BytesIO()
    np.save(file, ORIGINAL + 1)
    s3.put("test", "results/answers/from-1.npy", file.getvalue())
    place = f"{bucket.url}/answers/from-1.npy"
    command = printed(run("diagnose", place, "--json", *bucket.words))["command"]
    endpoint = f"--storage-option endpoint={bucket.options['endpoint']}"
    assert command.startswith(f"wds-real score {place} {endpoint} ")
    assert command.endswith(" --background first")
    assert not any(bucket.options[name] in command for name in ("access_key_id", "secret_access_key"))


def test_ls_and_show_choose_by_predictions(run: Run, bucket: Bucket, here: Path) -> None:
    """With the same options for ROOT and predictions, which may be on this machine or at URLs."""
    del here
    arguments = ["shards", "--where", "predicted != original", "--predictions", f"{bucket.url}/runs/good"]
    ended = run("ls", *arguments, *bucket.words)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.split() == [f"ILSVRC2012_val_{number:08d}" for number in range(1, 121, 20)]
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert run("show", *arguments, *bucket.words).out == "wrote examples.png, 6 images\n"


def test_explore_shows_predictions(run: Run, bucket: Bucket, tmp_path: Path) -> None:
    """Models have the names of their files and runs; no option is written into the page."""
    files = [f"{bucket.url}/runs/good", f"{bucket.url}/answers/worse.npy"]
    ended = run("explore", "--predictions", *files, "-o", tmp_path / "page", *bucket.words)
    assert (ended.code, ended.out) == (0, "")
    assert "2 models" in ended.err
    page = (tmp_path / "page" / "index.html").read_bytes()
    assert bucket.options["secret_access_key"].encode() not in page


def test_python_reads_urls(bucket: Bucket) -> None:
    """`score`, `read_predictions`, `compare` and `compare_many` take URLs and storage_options."""
    a, b, options = f"{bucket.url}/answers/good.npy", f"{bucket.url}/runs/worse", bucket.options
    assert wds_real.score(a, storage_options=options).real_top1 == wds_real.score(answers(wrong=20)).real_top1
    assert wds_real.read_predictions(b, storage_options=options).source == f"{b}/predictions.npz"
    of_two = wds_real.compare(a, b, storage_options=options)
    of_many = wds_real.compare_many({"a": a, "b": b}, storage_options=options)
    assert (of_two.only_a, of_two.only_b) == (of_many.pairs[0].only_a, of_many.pairs[0].only_b)


def test_reading_urls_needs_no_torch(bucket: Bucket) -> None:
    """A prediction file at a URL is scored without it."""
    assert without_torch("score", f"{bucket.url}/answers/good.npy", *bucket.words).code == 0


# --- refusals of a real server ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "place", "changed", "words"),
    [
        ("score", "answers/none.csv", {}, ["answers/none.csv: no such file. Check the URL."]),
        ("score", "answers/none", {}, ["is not the --output of a finished", "ends in one of .csv"]),
        ("score", "answers/good.xlsx", {}, ["is not the --output of a finished", "ends in one of .csv"]),
        ("score", "runs/half", {}, ["the run in this folder is not finished", "`wds-real merge`"]),
        ("report", "other", {}, ["other/result.json: no such file", "is not the --output of a finished"]),
        ("report", "other/data.bin", {}, ["is not the --output of a finished"]),
        ("score", "answers/good.csv", {"secret_access_key": "hidden"}, ["secret key does not belong", "403 Sig"]),
        ("report", "runs", {"access_key_id": "hidden"}, ["does not know the access key", "403 InvalidAccessKeyId"]),
        ("diagnose", "answers/good.csv", {"skip_signature": "true"}, ["access denied. Check the credentials"]),
        ("compare", "runs", {"regoin": "hidden"}, ["regoin: no such storage option. Did you mean region"]),
    ],
)
def test_a_refusal_is_one_line(
    run: Run, bucket: Bucket, command: str, place: str, changed: dict[str, str], words: list[str]
) -> None:
    """Exit code 1, the URL, what is wrong and what to do; never a secret."""
    options = Bucket(bucket.url, {**bucket.options, **changed})
    ended = run(command, f"{bucket.url}/{place}", *options.words)
    expect_one_line(ended, 1, f"{bucket.url}/{place.split('/', maxsplit=1)[0]}", *words)
    assert "hidden" not in ended.err
    assert bucket.options["secret_access_key"] not in ended.err


@pytest.mark.parametrize("command", ["score", "compare", "report", "diagnose"])
def test_an_unknown_bucket_is_said(run: Run, bucket: Bucket, command: str) -> None:
    """Not that a file is missing."""
    place = "s3://nowhere/runs/predictions.csv"
    more = [place] if command == "compare" else []
    expect_one_line(run(command, place, *more, *bucket.words), 1, place, "there is no such bucket", "404 NoSuchBucket")


def test_an_empty_prefix_holds_no_results(run: Run, bucket: Bucket) -> None:
    """A whole bucket without results at its top is refused too."""
    expect_one_line(run("score", "s3://public", *bucket.words), 1, "s3://public: is not the --output of a finished")
    expect_one_line(run("report", f"{bucket.url}/nothing", *bucket.words), 1, "nothing/result.json: no such file")


def test_a_public_bucket_needs_no_credentials(run: Run, bucket: Bucket) -> None:
    """With skip_signature, as for shards."""
    words = ["--storage-option", "skip_signature=true", "--storage-option", f"endpoint={bucket.options['endpoint']}"]
    assert run("score", "s3://public/results/good.npy", *words).code == 0
    assert run("report", "s3://public/results/*.npy", *words).code == 0


def test_errors_in_python_have_their_types(bucket: Bucket) -> None:
    """So that a caller can tell what is missing from what may work later."""
    with pytest.raises(MissingError):
        wds_real.score(f"{bucket.url}/answers/none.csv", storage_options=bucket.options)
    with pytest.raises(UnavailableError):
        wds_real.score(f"{bucket.url}/answers/good.csv", storage_options={**bucket.options, "access_key_id": "x"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "a.csv"],
        ["compare", "a.csv", "b.csv"],
        ["report", "a.csv"],
        ["diagnose", "a.csv"],
        ["explore", "--predictions", "a.csv", "-o", "page"],
        ["ls", "shards", "--predictions", "a.csv"],
    ],
)
def test_options_without_a_url_are_refused(run: Run, arguments: list[str]) -> None:
    """Nothing would use them."""
    ended = run(*arguments, "--storage-option", "region=hidden")
    expect_one_line(ended, 2, "--storage-option is for URLs, but no URL is given")


# --- web servers and signed URLs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve: run/{result.json,predictions.npz} and "my answers.npy"."""
    folder = tmp_path_factory.mktemp("site")
    predictions = answers(wrong=20)
    write_output(open_store(folder / "run"), wds_real.score(predictions), predictions, form="npz")
    (folder / "my answers.npy").write_bytes(npy(predictions))
    (folder / "page.html").write_text("<html>")
    return folder


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("place", ["my%20answers.npy", "my%20answers.npy?sig=a.b/c", "run", "run/predictions.npz"])
def test_a_plain_web_server_is_read(run: Run, site: Path, place: str, *, ranges: bool) -> None:
    """By names, with or without byte ranges; the query is sent and not shown."""
    with http_server(site, ranges=ranges) as web:
        ended = run("score", f"{web.endpoint}/{place}")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"{web.endpoint}/{place.partition('?')[0]}: 50,000 predictions")
        assert "sig=" in place or not any("?" in request.target for request in web.requests)


def test_a_run_at_a_web_server_is_compared(run: Run, site: Path) -> None:
    """Without a listing, its files are found by their names."""
    with http_server(site) as web:
        url = f"{web.endpoint}/run?sig=hidden"
        ended = run("compare", url, f"{web.endpoint}/my%20answers.npy?sig=hidden", "--json")
        assert printed(ended)["files"] == {"a": f"{web.endpoint}/run", "b": f"{web.endpoint}/my%20answers.npy"}
        assert all(request.target.endswith("?sig=hidden") for request in web.requests)
        expect_one_line(run("report", f"{web.endpoint}/*.csv"), 1, "a web server has no listing. Name the files")
        expect_one_line(run("score", f"{web.endpoint}/page.html"), 1, "is not the --output of a finished")
        expect_one_line(run("score", f"{web.endpoint}/none.csv?sig=hidden"), 1, "none.csv: no such file")


def test_diagnose_reads_a_file_once(run: Run, tmp_path: Path) -> None:
    """Also one whose predictions are no class numbers."""
    lines = (f"ILSVRC2012_val_{at:08d}.JPEG,tench" for at in range(1, 1001))
    (tmp_path / "named.csv").write_text("file_name,prediction\n" + "\n".join(lines))
    with http_server(tmp_path) as web:
        assert run("diagnose", f"{web.endpoint}/named.csv").code == 0
        size = (tmp_path / "named.csv").stat().st_size
        assert [request.headers["range"] for request in web.requests] == ["bytes=0-0", f"bytes=0-{size - 1}"]


def test_a_user_of_a_web_server_is_named_in_the_url(run: Run, site: Path) -> None:
    """Password and token are not shown, neither in the output nor in an error."""
    with http_server(site, user="me", password="hidden") as web:  # noqa: S106 -- a test's
        url = f"{web.endpoint}/my%20answers.npy"
        ended = run("score", url.replace("://", "://me:hidden@"))
        assert ended.code == 0
        assert "hidden" not in ended.out
        ended = run("score", url.replace("://", "://me:hiddem@"))
        expect_one_line(ended, 1, f"{web.endpoint}/my answers.npy: look up: the server requires credentials")
        assert "hidde" not in ended.err


@pytest.fixture
def signed(s3: S3Server, bucket: Bucket) -> Iterator[Callable[[str, int], str]]:
    """A function that signs a URL of an object for reading, for so many seconds."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    del bucket
    client = boto3.client(
        "s3", endpoint_url=s3.endpoint, region_name="us-east-1",
        aws_access_key_id=s3.access_key, aws_secret_access_key=s3.secret_key,
        config=importlib.import_module("botocore.config").Config(signature_version="s3v4"),
    )  # fmt: skip
    yield lambda key, seconds: client.generate_presigned_url(
        "get_object", Params={"Bucket": "test", "Key": key}, ExpiresIn=seconds
    )
    client.close()


def test_a_signed_url_is_read(run: Run, signed: Callable[[str, int], str]) -> None:
    """The kind of file is in the path; the signature is sent with each request and never shown."""
    url = signed("results/answers/good.npy", 600)
    ended = run("score", url)
    assert (ended.code, ended.err) == (0, "")
    for secret in urllib.parse.parse_qs(url.partition("?")[2])["X-Amz-Signature"]:
        assert secret not in ended.out


def test_an_expired_url_is_said(run: Run, signed: Callable[[str, int], str]) -> None:
    """By the server's own word."""
    url = signed("results/answers/good.npy", 1)
    time.sleep(2.5)
    expect_one_line(run("score", url), 1, "good.npy: look up: the signed URL, or the SAS token, has expired")


@pytest.mark.parametrize("change", ["another file", "cut", "changed"])
def test_a_signed_url_for_something_else_is_refused(run: Run, signed: Callable[[str, int], str], change: str) -> None:
    """One line that says what a signed URL is for; no part of the signature."""
    url = signed("results/answers/good.npy", 600)
    wrong = {
        "another file": url.replace("good.npy", "worse.npy"),
        "cut": url.partition("&")[0],  # as a shell cuts it at & without quotes
        "changed": url.replace("X-Amz-Expires=600", "X-Amz-Expires=60000"),
    }[change]
    ended = run("score", wrong)
    expect_one_line(ended, 1, "signed URL")
    assert "X-Amz" not in ended.err
