"""The HTML of a page: one file, one script, a policy that allows nothing else; and the bundle of its modules."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.explorer import PAGE_TESTS, made_predictions, node, with_models

from wds_real.data.dataset import open_dataset
from wds_real.errors import StoreError
from wds_real.explore.page import bundle as bundle_module
from wds_real.explore.page.build import build_page, check_shards_url
from wds_real.explore.page.bundle import BundleError, bundle, read_page_file
from wds_real.explore.page.content import Content

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1_500_000


@pytest.fixture(scope="module")
def content(packed: Path) -> Content:
    return Content.of_dataset(open_dataset(packed))


def policy_of(page: bytes) -> dict[str, str]:
    found = re.search(rb'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    rules = html.unescape(found[1].decode()).split("; ")
    return {name: values for name, _, values in (rule.partition(" ") for rule in rules)}


def test_the_page_without_data_is_small(content: Content) -> None:
    """Code, style and markup stay far below 1.5 MB."""
    page = build_page(content)
    without = re.sub(rb'(id="data">)[^<]*', rb"\1", page)
    assert 50_000 < len(without) < MAX_BYTES


def test_the_policy_allows_the_one_script_and_style_by_digest(content: Content) -> None:
    """Nothing is loaded from anywhere; the digests are of what stands in the page."""
    page = build_page(content)
    policy = policy_of(page)
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'none'"
    for name, tag in (("script-src", rb"<script>(.*?)</script>"), ("style-src", rb"<style>(.*?)</style>")):
        parts = re.findall(tag, page, re.DOTALL)
        assert len(parts) == 1
        digest = base64.b64encode(hashlib.sha256(parts[0]).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"
    assert "unsafe" not in " ".join(policy.values())
    assert re.findall(rb'(?:src|href)="(?!data:,)', page) == []


@pytest.mark.parametrize(
    ("url", "shown", "connect"),
    [
        ("https://host:8443/a/b/", "https://host:8443/a/b", "https://host:8443"),
        ("HTTP://127.0.0.1:9000/bucket", "HTTP://127.0.0.1:9000/bucket", "http://127.0.0.1:9000"),
        ("../shards", "../shards", "'self'"),
        ("./", ".", "'self'"),
        ('a"><script>', "a&quot;&gt;&lt;script&gt;", "'self'"),
    ],
)
def test_requests_go_to_the_place_of_the_shards_only(content: Content, url: str, shown: str, connect: str) -> None:
    """The policy names the origin of the shards, and the page has their place, escaped."""
    page = build_page(content, shards_url=url)
    assert policy_of(page)["connect-src"] == connect
    assert f'<meta name="shards" content="{shown}">'.encode() in page


@pytest.mark.parametrize(
    "url", ["ftp://host/a", "s3://bucket/a", "https:///a", "https://h;script-src *", "https://h:0/a", "https://[x/"]
)
def test_what_browsers_cannot_read_is_refused(url: str) -> None:
    """Other schemes, and characters that would end a rule of the policy, are refused."""
    with pytest.raises(StoreError, match="a browser cannot read shards there"):
        check_shards_url(url)


@pytest.mark.parametrize(
    "url", ["https://me:secret@host/a", "https://host/a?X-Amz-Signature=secret", "https://host/a#secret"]
)
def test_secrets_do_not_get_into_a_page(url: str) -> None:
    """A URL with a password or a query is refused, and the message does not repeat it."""
    with pytest.raises(StoreError, match="holds a user name, a password or a query") as raised:
        check_shards_url(url)
    assert "secret" not in str(raised.value).replace("#secret", "")


def test_no_name_is_in_the_html(content: Content) -> None:
    """Names of models and images are inside the compressed data only."""
    page = build_page(with_models(content, {"</script><b>name": made_predictions(content, right=0.5, seed=1)}))
    assert b"<b>name" not in page
    assert content.keys[0].encode() not in page


def test_all_modules_are_in_the_script_once() -> None:
    """The bundle has each module of the page behind those that it imports, and no import is left."""
    script = bundle("app.js")
    names = re.findall(r"^const (module_\w+) = ", script, re.MULTILINE)
    folder = PAGE_TESTS.parents[2] / "wds_real" / "explore" / "page" / "web"
    files = {"module_" + re.sub(r"\W", "_", path.relative_to(folder).as_posix()[:-3]) for path in folder.rglob("*.js")}
    assert set(names) == files
    assert len(names) == len(files)
    for number, name in enumerate(names):
        assert not any(
            f" = {later};" in script.split(f"const {name} = ")[1].split("\n})();")[0] for later in names[number:]
        )
    assert re.search(r"^(import|export) ", script, re.MULTILINE) is None
    assert "</script" not in script


def test_the_script_parses(tmp_path: Path) -> None:
    """Node finds no error of syntax in the bundle."""
    path = tmp_path / "page.js"
    path.write_text(bundle("app.js"))
    done = subprocess.run([node(), "--check", str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.js": 'import x from "./b.js";\n', "b.js": ""}, "is a form that the bundle does not know"),
        ({"a.js": "export default 1;\n"}, "is a form that the bundle does not know"),
        ({"a.js": "export let x = 1;\n"}, "is a form that the bundle does not know"),
        ({"a.js": 'import { x } from "./b.js";\n', "b.js": "const x = 1;\n"}, "b.js does not export x"),
        (
            {"a.js": 'import { x } from "./b.js";\n', "b.js": 'import { y } from "./a.js";\nexport const x = 1;\n'},
            "imports itself",
        ),
    ],
)
def test_other_forms_of_modules_are_refused(
    files: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle knows few forms of import and export, and does not let another one through."""
    monkeypatch.setattr(bundle_module, "read_page_file", files.__getitem__)
    with pytest.raises(BundleError, match=message):
        bundle("a.js")


def test_a_bundle_behaves_as_its_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Modules see only what they import, and run once."""
    files = {
        "a.js": 'import { f, K } from "./d/b.js";\nimport { C } from "./c.js";\nconst own = 1;\n'
        "console.log(f(), K, new C().x, own);\n",
        "d/b.js": 'import { C } from "../c.js";\nconst own = 2;\nexport const K = own;\nexport async function g() {}\n'
        "export function f() { return new C().x + own; }\n",
        "c.js": "let made = 0;\nexport class C { x = ++made; }\n",
    }  # fmt: skip
    monkeypatch.setattr(bundle_module, "read_page_file", files.__getitem__)
    path = tmp_path / "a.js"
    path.write_text(bundle("a.js"))
    done = subprocess.run([node(), str(path)], check=False, capture_output=True, text=True)
    assert done.stdout == "3 2 2 1\n", done.stderr


def test_the_modules_pass_their_own_tests() -> None:
    """`node --test` on the tests of the page's code."""
    tests = sorted(map(str, PAGE_TESTS.glob("*.test.mjs")))
    assert len(tests) == 3
    done = subprocess.run([node(), "--test", *tests], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.slow
def test_the_modules_have_the_types_that_they_say() -> None:
    """TypeScript checks the types in the comments of the page's code, as strictly as it can."""
    compiler = PAGE_TESTS / "node_modules" / ".bin" / "tsc"
    if shutil.which("node") is None or not compiler.exists():
        pytest.skip("TypeScript is not installed: npm ci --prefix tests/explore/page")
    done = subprocess.run([str(compiler), "--project", str(PAGE_TESTS)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_text_files_of_the_page_are_plain() -> None:
    """The style has no address of another place, and the sources have no control characters."""
    for place in ("style.css", "views.css", "index.html", "app.js"):
        text = read_page_file(place)
        assert "url(" not in text
        assert re.search(r"[\x00-\x08\x0b-\x1f]", text) is None
