"""Who may import whom: the packages from the lowest to the highest, and what each may know of outside libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import wds_real

PACKAGE = Path(wds_real.__file__).parent

# A package, or a module beside the packages, imports only from those listed with it; imports for type checkers count.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "storage": {"errors"},
    "labels": {"errors", "storage"},
    "format": {"errors", "labels", "storage"},
    "image": {"errors"},
    "packing": {"errors", "labels", "storage", "format", "image"},
    "data": {"errors", "labels", "storage", "format", "image"},
    "scoring": {"errors", "labels", "storage", "format", "data"},
    "evaluation": {"errors", "labels", "storage", "image", "data", "scoring"},
    "explore": {"errors", "labels", "storage", "format", "image", "data", "scoring"},
    "interop": {"errors", "labels", "storage", "format", "data"},
    "synthetic": {"errors", "labels", "image"},
    "cli": {
        "errors",
        "labels",
        "storage",
        "format",
        "image",
        "packing",
        "data",
        "scoring",
        "evaluation",
        "explore",
        "interop",
        "synthetic",
    },
}
# Who alone may import an outside library: a package, or one module of it.
OWNERS: dict[str, set[str]] = {
    "PIL": {"image"},
    "simplejpeg": {"image", "synthetic"},  # the latter encodes
    "obstore": {"storage.obstore_client"},
    "boto3": {"storage.aws"},
    "botocore": {"storage.aws"},
    "braceexpand": {"packing.shard_spec"},
    "torch.distributed": {"data.distributed"},
    "torch": {"data", "evaluation", "interop", "synthetic", "cli"},
    "webdataset": {"interop.webdataset"},
    "click": {"cli"},
    "datasets": {"interop.huggingface"},
    "matplotlib": {"explore"},
    "rich": {"evaluation.progress.bar"},  # below cli, as `evaluate` shows its progress in Python too
}
WITHOUT_TORCH = ("errors", "labels", "storage", "format", "image", "packing", "scoring", "explore")
ALSO_WITHOUT_TORCH = (
    "data.catalogue", "data.dataset", "data.distributed", "data.launchers", "data.notebook", "data.pixel_cache",
    "data.plan", "data.reader", "evaluation.progress.bar", "interop.cards", "interop.exports",
    "cli.main", "cli.commands.compare", "cli.commands.diagnose", "cli.commands.explore", "cli.commands.merge",
    "cli.commands.reference", "cli.commands.report", "cli.commands.score",
    *(f"cli.commands.datasets.{name}" for name in ("card", "cat", "export", "index", "info")),
    *(f"cli.commands.datasets.{name}" for name in ("ls", "pack", "show", "verify")),
)  # fmt: skip
READS_THE_ENVIRONMENT = {
    "data.launchers", "storage.environment",  # launchers and AWS have variables of their own
    "evaluation.models.weights_only",  # sets torch's switch while weights are loaded
    "evaluation.models.pt2.compiled",  # sets the switch by which compiled programs check their inputs
}  # fmt: skip
MAX_ENTRIES, MAX_MODULES, MAX_LINES = 13, 16, 400


@cache
def modules() -> dict[str, Path]:
    """Return all modules by their dotted names below the package; packages by the name of their folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Return the dotted names a module imports anywhere, for type checkers too."""
    found = set[str]()
    for node in ast.walk(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{name.name}" for name in node.names)
    return frozenset(found)


@cache
def own_imports(module: str) -> frozenset[str]:
    """Return the modules of this package that a module imports."""
    found = set[str]()
    for name in imports(module):
        parts = name.split(".")
        if parts[0] == "wds_real":
            tried = [".".join(parts[1:length]) for length in range(len(parts), 0, -1)]
            found.add(next(name for name in tried if name in modules()))
    return frozenset(found - {module})


def package_of(module: str) -> str:
    return module.partition(".")[0]


LIGHT = [name for name in modules() if package_of(name) in WITHOUT_TORCH or name in ALSO_WITHOUT_TORCH]


def test_the_packages_are_those_of_the_table() -> None:
    """A new package, or module beside the packages, says in the table what it may import."""
    assert {package_of(name) for name in modules()} - {"", "__main__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_from_below(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a package imports is listed with it, and every package listed there stands above it in the table."""
    members = [name for name in modules() if package_of(name) == package]
    found = {package_of(other) for name in members for other in own_imports(name)} - {package, ""}
    with capsys.disabled():
        print(f"\n  {package:<11} {len(members):>2} modules, imports {', '.join(sorted(found)) or 'nothing'}", end="")  # noqa: T201
    assert found <= MAY_IMPORT[package]
    assert MAY_IMPORT[package] <= set(list(MAY_IMPORT)[: list(MAY_IMPORT).index(package)])


def test_writing_and_reading_do_not_know_each_other() -> None:
    """Nothing of `packing` is needed to read, and nothing of `data` to write."""
    assert "packing" not in MAY_IMPORT["data"]
    assert "data" not in MAY_IMPORT["packing"]


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Modules can be put into an order in which each imports only from those before it."""
    left = {name: set(own_imports(name)) for name in modules()}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_private_names_stay_in_their_module() -> None:
    """No module imports a name with an underscore from another one; the two compiled extensions are modules."""
    private = {
        name
        for module in modules()
        for name in imports(module)
        if name.startswith("wds_real.") and name.rpartition(".")[2].startswith("_") and not name.endswith("__version__")
    }
    assert private <= {"wds_real.image._jpeg", "wds_real.image._resample"}


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_known_to_its_owners_only(library: str) -> None:
    """Each outside library is imported in one place, or in few."""
    users = {name for name in modules() if any(f"{found}.".startswith(f"{library}.") for found in imports(name))}
    assert users
    assert {name for name in users if not {name, package_of(name)} & OWNERS[library]} == set()


def test_only_the_launch_and_the_clients_read_the_environment() -> None:
    """What a function does is in its arguments."""
    readers = {name for name, path in modules().items() if "os.environ" in path.read_text("utf-8")}
    assert {name for name in readers if package_of(name) != "cli"} <= READS_THE_ENVIRONMENT


def test_one_module_reads_the_variables_of_launchers() -> None:
    """Rank, world size and the address of rank 0 come from one place."""
    words = re.compile(r"""["'](RANK|WORLD_SIZE|MASTER_ADDR|SLURM_\w+|JOB_COMPLETION_INDEX|TORCHELASTIC_\w+)["']""")
    assert {name for name, path in modules().items() if words.search(path.read_text("utf-8"))} == {"data.launchers"}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_start_without_torch(module: str) -> None:
    """Packing, checking, scoring and --help do not wait for torch."""
    code = f"import sys, wds_real.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folders_can_be_taken_in_at_a_glance() -> None:
    """The listing of the package is its map: few entries, and no folder with more modules than one can keep in mind."""
    entries = {package_of(name) for name in modules()} - {"", "__main__"}
    assert len(entries) <= MAX_ENTRIES
    for folder in {path.parent for path in modules().values()}:
        assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= MAX_MODULES, folder


@pytest.mark.parametrize("module", modules())
def test_no_module_has_outgrown_its_name(module: str) -> None:
    """A module that passes 400 lines wants splitting along a seam that has a name."""
    assert len(modules()[module].read_text("utf-8").splitlines()) <= MAX_LINES
