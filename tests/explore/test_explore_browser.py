"""The explorer page in headless Chromium: every view, its images, its keys, and everything that can go wrong."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from support.browser import chromium, go, opened
from support.explorer import made_predictions, ten_models, with_models
from support.http_server import http_server

from wds_real.data.dataset import open_dataset
from wds_real.explore.page.build import build_page
from wds_real.explore.page.content import Content
from wds_real.explore.page.server import SHARDS_PATH, Site, serve
from wds_real.labels import at_threshold, classes
from wds_real.scoring.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page
    from support.s3 import S3Server

    from wds_real.data.dataset import Dataset
    from wds_real.scoring.predictions import Predictions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IMAGES = ".picture img"
WIDTHS = {"desktop": 1280, "phone": 390}
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def dataset(packed: Path) -> Dataset:
    return open_dataset(packed)


@pytest.fixture(scope="module")
def content(dataset: Dataset) -> Content:
    """120 images in three shards, and two made-up models."""
    bare = Content.of_dataset(dataset)
    models = {f"model {seed}": made_predictions(bare, right=0.5 + seed / 10, seed=seed) for seed in (1, 2, 3)}
    return with_models(bare, models)


@pytest.fixture(scope="module")
def site(dataset: Dataset, content: Content) -> Iterator[str]:
    """The URL of a page with images, served as `--serve` does it."""
    sizes = {shard.name: shard.num_bytes for shard in dataset.manifest.shards}
    page = build_page(content, shards_url=SHARDS_PATH)
    with serve(Site(page, dataset.reader.shards, sizes), 0) as url:
        yield url


@pytest.fixture(scope="module")
def models() -> dict[str, Predictions]:
    """Ten models: the real ones where they are, else made-up ones."""
    folder = Path(os.environ.get("WDS_REAL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    return ten_models(Content.of_labels(), folder / "predictions")


@pytest.fixture(scope="module")
def large(models: dict[str, Predictions], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 50,000 rows and ten models, as a file."""
    path = tmp_path_factory.mktemp("large") / "index.html"
    path.write_bytes(build_page(with_models(Content.of_labels(), models)))
    return path


def views(content: Content) -> dict[str, str]:
    """Return an address of every view."""
    label, key = int(content.original_label[3]), content.keys[3]
    model = content.answers[-1].name.replace(" ", "%20")
    other = content.answers[0].name.replace(" ", "%20")
    return {
        "overview": "#/",
        "images": f"#/images?model={model}",
        "filtered": f"#/images?model={model}&outcome=wrong&kind=agrees&sort=missed",
        "image": f"#/image/{key}",
        "classes": f"#/classes?model={model}&sort=accuracy-up",
        "class": f"#/class/{label}",
        "pair": f"#/pair/{label}/{(label + 1) % 1000}",
        "models": "#/models",
        "model": f"#/model/{model}",
        "compare": f"#/compare?a={model}&b={other}",
        "missing": "#/image/none",
    }


def wait_for_images(page: Page) -> None:
    page.wait_for_function("() => !document.querySelector('.picture.waiting')")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_is_drawn(
    browser: Browser, site: str, content: Content, tmp_path: Path, width: str, theme: str
) -> None:
    """Each view has a heading, fits the width, and logs no error; its screenshot is kept where asked for."""
    folder = Path(os.environ.get("WDS_REAL_SCREENSHOTS", tmp_path))
    with opened(browser, site, width=WIDTHS[width], dark=theme == "dark") as (page, _):
        for name, route in views(content).items():
            go(page, route)
            wait_for_images(page)
            assert page.locator("h1").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
            assert page.locator(".picture.failed").count() == 0
            path = folder / f"{name}-{theme}-{width}.png"
            page.screenshot(path=path, full_page=name in ("overview", "image", "model", "compare"))
            assert path.stat().st_size > 5_000
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
            "rgb(20, 23, 28)" if theme == "dark" else "rgb(246, 247, 249)"
        )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Browser, site: str, content: Content, theme: str) -> None:
    """axe-core finds nothing serious or critical in any view, at both widths, nor in the dialogs."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found: list[str] = []
    for width in WIDTHS.values():
        with opened(browser, site, width=width, dark=theme == "dark", bypass=True) as (page, _):
            for name, route in views(content).items():
                go(page, route)
                wait_for_images(page)
                found += faults(axe, page, name)
            page.fill("#search", "1")
            found += faults(axe, page, "search")
            page.keyboard.press("Escape")
            for button in ("#open-shards", "[aria-label='Help and keys']"):
                page.click(button)
                found += faults(axe, page, button)
                page.keyboard.press("Escape")
    assert found == []


def faults(axe: Any, page: Page, where: str) -> list[str]:
    violations = axe.run(page).response["violations"]
    return [
        f"{where}: {fault['id']}: {node['html'][:200]}"
        for fault in violations
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]


def test_shown_numbers_are_those_of_score(browser: Browser, large: Path, models: dict[str, Predictions]) -> None:
    """The table of each model's view shows what `score` prints, at four thresholds set in the address."""
    with opened(browser, large.as_uri()) as (page, _):
        for permille in (300, 500, 800, 900):
            labels = at_threshold(permille / 1000)
            for name, predictions in models.items():
                go(page, f"#/model/{name}?t={permille / 1000}")
                result = score(predictions, labels=labels)
                values = [
                    result.original_top1,
                    result.original_top5,
                    result.original_top1_labelled,
                    result.real_top1,
                    result.real_top5,
                ]
                rows = page.locator("section").first.locator("tbody tr").all_inner_texts()
                expected = [[f"{a.correct:,} / {a.total:,}", f"{100 * a.value:.3f}"] for a in values if a is not None]
                assert [row.split("\t")[1:3] for row in rows] == expected
                text = page.locator("main").inner_text()
                assert f"{result.forgiven:,} forgiven, {result.newly_wrong:,} newly wrong" in text


def test_the_threshold_recomputes_everything(browser: Browser, large: Path) -> None:
    """Moving the slider changes the counts at once and, a moment later, the address; the button goes back."""
    with opened(browser, large.as_uri()) as (page, _):
        before = page.locator(".lead").inner_text()
        assert "46,837" in before
        page.locator("#threshold").fill("0.5")
        assert "at rater threshold 0.5" in page.locator(".lead").inner_text()
        page.wait_for_function("() => location.hash.includes('t=0.5')")
        page.click("#threshold-reset")
        assert page.locator(".lead").inner_text() == before
        page.keyboard.press("]")
        assert "at rater threshold 0.81" in page.locator(".lead").inner_text()
        assert page.locator(".bars a").first.get_attribute("href") == "#/images?kind=agrees&t=0.81"


def test_the_address_holds_the_state(browser: Browser, large: Path) -> None:
    """Filters set by hand are in the address; opened anew, it shows the same images; back returns to the place."""
    with opened(browser, large.as_uri() + "#/images") as (page, _):
        page.select_option("#filter-kind", "differs")
        page.select_option("#filter-labels", "1")
        page.select_option("#filter-sort", "missed")
        found = page.locator(".found").inner_text()
        assert found == "3,678 images of 50,000"
        address, first = page.url, page.locator(".card").first.get_attribute("href")
        page.evaluate("scrollTo(0, 5000)")
        page.wait_for_function("() => history.state?.y === 5000")
        page.locator(".card").nth(20).click()
        page.wait_for_selector("h1.key")
        page.go_back()
        page.wait_for_function("() => Math.abs(scrollY - 5000) < 2")
    with opened(browser, address) as (page, _):
        assert page.locator(".found").inner_text() == found
        assert page.locator(".card").first.get_attribute("href") == first
        page.click(".chip >> nth=0")
        assert page.locator(".found").inner_text() == "39,394 images of 50,000"


def test_keys_move_through_the_page(browser: Browser, site: str, content: Content) -> None:
    """The page works without a mouse: search, the grid, an image and its neighbours, the help."""
    with opened(browser, site + "#/images") as (page, _):
        page.keyboard.press("/")
        page.keyboard.type(content.keys[7][-5:])
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_selector("h1.key")
        assert page.locator("h1").inner_text() == content.keys[7]
        assert page.evaluate("document.activeElement.tagName") == "H1"
        page.keyboard.press("ArrowRight")
        page.wait_for_function("key => document.querySelector('h1').textContent === key", arg=content.keys[8])
        go(page, "#/images")
        page.locator(".card").first.focus()
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.getAttribute('href')") == f"#/image/{content.keys[-1]}"
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.getAttribute('href')") == f"#/image/{content.keys[7]}"
        page.keyboard.press("Enter")
        page.wait_for_selector("h1.key")
        page.keyboard.press("?")
        assert page.locator("dialog[open] h2").inner_text() == "Help"


def test_images_are_read_from_chosen_files(browser: Browser, content: Content, packed: Path, tmp_path: Path) -> None:
    """A page on the disk asks for the shards and shows the images of those that are chosen, or says what is wrong."""
    path = tmp_path / "index.html"
    path.write_bytes(build_page(content, shards_url="../packed"))
    shards = sorted(packed.glob("*.tar"))
    short = tmp_path / shards[1].name
    short.write_bytes(shards[1].read_bytes()[:-512])
    with opened(browser, path.as_uri() + "#/images") as (page, _):
        assert shards[0].name in page.locator(".notice").inner_text()
        page.click("text=Choose shards…")
        page.set_input_files("#shard-files", [short])
        assert "The file is damaged or of another data set" in page.locator(".notice.error").inner_text()
        page.click("text=Choose again…")
        page.set_input_files("#shard-files", shards[:1])
        page.wait_for_selector(IMAGES)
        wait_for_images(page)
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        page.keyboard.press("End")
        go(page, f"#/image/{content.keys[-1]}")
        assert "not among the chosen files" in page.locator(".picture.failed").inner_text()


@pytest.fixture
def copied(packed: Path, content: Content, tmp_path: Path) -> Path:
    """A folder with a page and, beside it, its shards, to be served."""
    folder = tmp_path / "web"
    shutil.copytree(packed, folder / "data")
    (folder / "index.html").write_bytes(build_page(content, shards_url="data"))
    return folder


def test_a_server_without_ranges_is_used_and_said(browser: Browser, copied: Path) -> None:
    """Images are shown also if the response to a range is the whole shard, and the page says why it is slow."""
    with http_server(copied, ranges=False) as server:
        with opened(browser, f"{server.endpoint}/index.html#/images") as (page, _):
            page.wait_for_selector(IMAGES)
            wait_for_images(page)
            assert page.locator(".picture.failed").count() == 0
            assert "ignores requests for a part of a file" in page.locator(".notice.warning").inner_text()
        whole = [request for request in server.requests if request.path.endswith(".tar")]
        assert len(whole) == len({request.path for request in whole})


def test_missing_cors_is_explained_and_set_cors_works(browser: Browser, copied: Path, content: Content) -> None:
    """Shards on another server need its permission: without it the page says what to set, with it they are shown."""
    for extra in ({}, {"Access-Control-Allow-Origin": "*"}):
        with http_server(copied, extra=extra) as shards, http_server(copied) as own:
            (copied / "index.html").write_bytes(build_page(content, shards_url=f"{shards.endpoint}/data"))
            with opened(browser, f"{own.endpoint}/index.html#/images", checked=bool(extra)) as (page, _):
                if extra:
                    page.wait_for_selector(IMAGES)
                    continue
                page.wait_for_selector(".notice.error")
                said = page.locator(".notice.error").inner_text()
                assert f"Access-Control-Allow-Origin: {own.endpoint}" in said
                assert 'AllowedHeaders ["Range"]' in said
                page.wait_for_function("() => document.querySelectorAll('.picture.failed').length > 5")
            failed = [request for request in shards.requests if request.method == "GET"]
            assert len(failed) <= 6  # no request for each image


def test_missing_and_damaged_shards_are_told(
    browser: Browser, copied: Path, content: Content, dataset: Dataset
) -> None:
    """A shard that is not there, and changed bytes in another, are named on their images; the others are shown."""
    index, names = dataset.index, [shard.name for shard in dataset.manifest.shards]
    (copied / "data" / names[2]).unlink()
    path = copied / "data" / names[1]
    data = bytearray(path.read_bytes())
    row = int((index.shard == 1).argmax())
    data[int(index.offset[row]) + 50] ^= 1
    path.write_bytes(data)
    with http_server(copied) as server, opened(browser, f"{server.endpoint}/index.html", checked=False) as (page, _):
        for place, text in ((0, None), (row, "checksum is"), (len(index) - 1, f"{names[2]} is not at")):
            go(page, f"#/image/{content.keys[place]}")
            if text is None:
                page.wait_for_selector(IMAGES)
            else:
                page.wait_for_selector(".picture.failed")
                assert text in page.locator(".picture.failed").inner_text()


HOSTILE = (
    '<img src=x onerror="window.hacked=1">',
    "</script><script>window.hacked=1</script>",
    '"><svg onload=window.hacked=1>',
    "javascript:window.hacked=1",
    "\u202egnp.\u200b../../etc/passwd",
    "{{script}}",
)


def test_hostile_names_are_inert(
    browser: Browser, content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of images, models, files, shards and classes that hold code are shown as text and run nothing."""
    infos = [
        replace(info, lemmas=f"{HOSTILE[place % 6]} {place}", definition=HOSTILE[place % 6])
        for place, info in enumerate(classes())
    ]
    monkeypatch.setattr("wds_real.explore.page.encoding.classes", lambda: infos)
    keys = tuple(f"{HOSTILE[place % 6]}{place}" for place in range(len(content.keys)))
    assert content.places is not None
    shards = tuple(replace(shard, name=f"{HOSTILE[place]}.tar") for place, shard in enumerate(content.places.shards))
    answers = tuple(
        replace(model, name=HOSTILE[place], source=HOSTILE[place], notes=(HOSTILE[place],))
        for place, model in enumerate(content.answers)
    )
    hostile = replace(
        content,
        keys=keys,
        answers=answers,
        title=HOSTILE[0],
        digest=HOSTILE[1],
        places=replace(content.places, shards=shards),
    )
    path = tmp_path / "index.html"
    path.write_bytes(build_page(hostile, shards_url="x"))
    routes = [
        "#/",
        "#/images",
        "#/classes",
        "#/models",
        "#/compare",
        "#/class/3",
        "#/pair/3/4",
        "#/image/<img src=x onerror=window.hacked=1>",
    ]
    with opened(browser, path.as_uri()) as (page, _):
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        for place, model in enumerate(answers):
            routes.append(f"#/model/{quote(model.name, safe='')}")
            routes.append(f"#/image/{quote(keys[place], safe='')}")
        routes += [f"#/images?q={quote(text)}&model={quote(text)}&class={quote(text)}" for text in HOSTILE]
        for route in routes:
            go(page, route)
            assert page.locator("h1").count() == 1
            assert page.evaluate("window.hacked") is None
            assert page.locator("main script, main svg[onload], main img[onerror], a[href^='javascript']").count() == 0
        go(page, f"#/image/{quote(keys[4], safe='')}")
        assert "\\u202egnp.\\u200b" in page.locator("h1").inner_text()
        page.fill("#search", "<img")
        assert page.locator("#hits li").count() > 1
        assert page.evaluate("window.hacked") is None


def test_a_bucket_is_read_by_ranges(
    browser: Browser,
    s3: S3Server,
    packed: Path,
    content: Content,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Images come from a public bucket of a real S3 server, a request for a range each."""
    for path in sorted(packed.glob("*.tar")):
        s3.put("public", f"explore/{path.name}", path.read_bytes())
    path = tmp_path / "index.html"
    path.write_bytes(build_page(content, shards_url=f"{s3.endpoint}/public/explore"))
    with http_server(tmp_path) as server, opened(browser, f"{server.endpoint}/index.html#/images") as (page, _):
        page.wait_for_selector(IMAGES)
        wait_for_images(page)
        assert page.locator(".picture.failed").count() == 0
        assert page.locator(".notice").count() == 0
        first = page.evaluate(FIRST_IMAGE)
        record_property("counts", f"explorer page: first image from a bucket {first:.0f} ms after the page was ready")


def test_speed_is_measured(browser: Browser, large: Path, record_property: Callable[[str, object], None]) -> None:
    """How long 50,000 rows of ten models take to load, to filter and at another threshold; frames while scrolling."""
    ready: list[float] = []
    threshold: list[float] = []
    filtered: list[float] = []
    frames: list[float] = []
    for _ in range(3):
        with opened(browser, large.as_uri()) as (page, _):
            ready.append(page.evaluate("performance.getEntriesByName('ready')[0].startTime"))
            threshold += [page.evaluate(TIMED, ["#threshold", value, "input"]) for value in ("0.4", "0.9", "0.6")]
            go(page, "#/images")
            filtered += [page.evaluate(TIMED, ["#filter-kind", kind, "change"]) for kind in ("differs", "several")]
            go(page, "#/images")
            frames.append(page.evaluate(FRAMES))
    found = f"ready {_range(ready)} ms, threshold {_range(threshold)} ms, filter {_range(filtered)} ms"
    record_property("counts", f"explorer page, 50,000 rows of 10 models: {found}, scrolling {_range(frames)} frames/s")
    assert min(ready + threshold + filtered + frames) > 0


def _range(values: list[float]) -> str:
    return f"{min(values):.0f}-{max(values):.0f}"


# Time from an event to the next frame on the screen.
TIMED = """([selector, value, type]) => new Promise(done => {
  const element = document.querySelector(selector);
  const start = performance.now();
  element.value = value;
  element.dispatchEvent(new Event(type, { bubbles: true }));
  const changed = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  if (type === "change") addEventListener("hashchange", changed, { once: true }); else changed();
})"""
FIRST_IMAGE = """() => Math.min(...performance.getEntriesByType("resource")
  .filter(({ name }) => name.includes(".tar")).map(({ responseEnd }) => responseEnd))
  - performance.getEntriesByName("ready")[0].startTime"""
FRAMES = """() => new Promise(done => {
  let frames = 0;
  const start = performance.now();
  const step = () => {
    frames += 1;
    scrollBy(0, 120);
    const passed = performance.now() - start;
    if (passed < 2000) requestAnimationFrame(step); else done(1000 * frames / passed);
  };
  requestAnimationFrame(step);
})"""
