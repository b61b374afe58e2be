"""The public interface: its names, signatures and docstrings, and its type-checked use in tests/typing/api.py."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wds_real

REPOSITORY = Path(__file__).parent.parent
PUBLIC = [name for name in wds_real.__all__ if callable(getattr(wds_real, name))]


def test_all_is_sorted_and_complete() -> None:
    """__all__ has the names that __getattr__ serves, once each: constants, then classes, then functions."""
    names = wds_real.__all__
    assert set(names) == set(wds_real._MODULE_OF)
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert set(names) <= set(dir(wds_real))


def test_type_checkers_see_the_same_modules() -> None:
    """The imports under TYPE_CHECKING are those of the table, which is sorted by module."""
    tree = ast.parse(Path(wds_real.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {name.name: node.module for node in imports for name in node.names} == wds_real._MODULE_OF
    assert list(wds_real._HOME) == sorted(wds_real._HOME)


def test_unknown_names_are_attribute_errors() -> None:
    """An unknown name raises AttributeError, which hasattr and other tools rely on."""
    assert not hasattr(wds_real, "Loadre")
    with pytest.raises(AttributeError, match="no attribute 'Loadre'"):
        _ = wds_real.Loadre


@pytest.mark.parametrize("name", wds_real.__all__)
def test_a_public_name_is_never_a_submodule(name: str) -> None:
    """A public name is the object its module defines, also if that module was imported first."""
    module = wds_real._MODULE_OF[name]
    code = f"import {module} as m, wds_real, types; v = wds_real.{name}; assert v is m.{name}"
    code += "; assert not isinstance(v, types.ModuleType)"
    assert f"wds_real.{name}" != module
    namespace: dict[str, object] = {}
    exec(code, namespace)  # noqa: S102 -- text from above


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_and_typed(name: str) -> None:
    """The first line of each docstring is a sentence; all parameters have types, **kwargs those of each key."""
    thing = getattr(wds_real, name)
    documentation = inspect.getdoc(thing)
    assert documentation
    assert documentation.splitlines()[0].endswith((".", "?"))
    if inspect.isclass(thing) and issubclass(thing, (Exception, dict)):
        return
    if getattr(thing, "_is_protocol", False):
        return
    for parameter in inspect.signature(thing).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        is_untyped = parameter.kind is inspect.Parameter.VAR_KEYWORD and "Unpack[" not in str(parameter.annotation)
        assert not is_untyped, parameter


@pytest.mark.parametrize("module", ["wds_real", "wds_real.interop", "wds_real.labels", "wds_real.synthetic"])
def test_every_public_name_is_used_in_the_type_checked_example(module: str) -> None:
    """tests/typing/api.py, which mypy checks, uses every public name as an attribute of its module."""
    tree = ast.parse((REPOSITORY / "tests" / "typing" / "api.py").read_text("utf-8"))
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    prefix = module.rpartition(".")[2]
    assert [name for name in importlib.import_module(module).__all__ if f"{prefix}.{name}" not in used] == []


def test_versions_agree() -> None:
    """The package, its metadata and the change log have the same version."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert wds_real.__version__ == project["version"]
    assert f"## {wds_real.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_import_is_light() -> None:
    """`import wds_real` loads neither torch nor numpy nor Pillow."""
    code = "import sys, wds_real; sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_type_checkers_find_the_package_from_elsewhere(tmp_path: Path) -> None:
    """An installation, also an editable one, is found by mypy in another folder, with its types."""
    (tmp_path / "use.py").write_text(
        "import torch\nimport wds_real\n\n"
        "ds = wds_real.open_dataset('shards')\n"
        "reveal_type(ds[0]['original_label'])\n"
        "reveal_type(torch.utils.data.DataLoader(ds, batch_size=None))\n",
        "utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--strict", "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert 'Revealed type is "int"' in done.stdout
    assert "DataLoader[TypedDict(" in done.stdout
