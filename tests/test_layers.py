"""Who may import whom: the package's modules in reading order, and what each may know of the world outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wds_real

PACKAGE = Path(wds_real.__file__).parent

# A module imports only from modules above it. The write line and the read line never import each other.
SHARED = ("errors", "labels", "tar", "tar_walk", "jpeg", "json_fields", "manifest", "sample_index", "plan", "local",
          "aws", "retry", "location", "refusals", "retry_after", "downloads", "read_ahead",
          "client", "remote", "buffers", "store")  # fmt: skip
WRITE_LINE = ("source", "writer", "foreign")
READ_LINE = ("byte_cache", "reader", "resample", "jpeg_part", "decode", "dataset", "verification", "distributed",
             "batch", "pixel_cache", "loader")  # fmt: skip
EVALUATION = ("breakdown", "result", "prediction_files", "predictions", "scoring", "comparison", "ledger", "output",
              "metrics", "models", "device", "evaluation")  # fmt: skip
SURFACES = ("interop", "synthetic")
ORDER = (*SHARED, *WRITE_LINE, *READ_LINE, *EVALUATION, *SURFACES)

# Who alone may import what; None stands for the command line.
OWNERS: dict[str, set[str | None]] = {
    "torch.distributed": {"distributed"},
    "PIL": {"decode", "resample"},
    "obstore": {"store"},
    "boto3": {"aws"},
    "botocore": {"aws"},
    "simplejpeg": {"decode", "jpeg_part", "synthetic"},  # decodes, is compared with, makes pictures up
    "click": {None},
    "rich": {None},
    "webdataset": {"interop"},
    "braceexpand": {"foreign"},
    "torch": {
        "batch",
        "device",
        "distributed",
        "evaluation",
        "interop",
        "loader",
        "metrics",
        "models",
        "synthetic",
        None,
    },
}
WITHOUT_TORCH = (
    *SHARED, *WRITE_LINE, "byte_cache", "reader",
    "resample", "jpeg_part", "decode", "dataset", "verification", "pixel_cache",
    "breakdown", "result",
    "prediction_files", "predictions", "scoring", "comparison", "ledger", "output",
    "cli.main", "cli.index", "cli.pack", "cli.verify", "cli.info", "cli.score", "cli.compare", "cli.merge",
)  # fmt: skip


def modules() -> list[str]:
    return [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]


def imports(path: Path, *, typing_too: bool = False) -> set[str]:
    """Return the dotted names a file imports; those for type checkers only if wanted."""
    found = set[str]()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing_too:
            return
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{name.name}" for name in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def own_imports(module: str) -> set[str]:
    names = imports(PACKAGE / f"{module}.py")
    not_modules = {"__version__", "_jpeg", "_resample"}
    return {name.split(".")[1] for name in names if name.startswith("wds_real.")} - not_modules


def test_every_module_has_its_place() -> None:
    """The list above is the package: a new module says where it stands."""
    assert sorted(modules()) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_above(module: str) -> None:
    """Reading from top to bottom, nothing refers to what comes later."""
    assert own_imports(module) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [*WRITE_LINE, *READ_LINE])
def test_the_two_lines_do_not_know_each_other(module: str) -> None:
    """Nothing of the write line is needed to read, and the other way round."""
    other = READ_LINE if module in WRITE_LINE else WRITE_LINE
    assert own_imports(module).isdisjoint(other)


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_known_to_its_owners_only(library: str) -> None:
    """Each outside library is touched in one place, or in few."""
    users: set[str | None] = set()
    for path in PACKAGE.rglob("*.py"):
        if any(name == library or name.startswith(f"{library}.") for name in imports(path)):
            users.add(None if path.parent.name == "cli" else path.stem)
    assert users <= OWNERS[library]


def test_only_the_launch_and_the_clients_read_the_environment() -> None:
    """What a function does is in its arguments; launchers and AWS have variables of their own."""
    readers = {path.stem for path in PACKAGE.glob("*.py") if "os.environ" in path.read_text("utf-8")}
    assert readers <= {"distributed", "aws"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_light_modules_start_without_torch(module: str) -> None:
    """Packing, checking, scoring and --help do not wait for torch."""
    code = f"import sys, wds_real.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_has_outgrown_its_name(path: Path) -> None:
    """A module that passes 400 lines wants splitting along a seam that has a name."""
    assert len(path.read_text("utf-8").splitlines()) <= 400
