"""What people import: names, signatures and docstrings of the public interface."""

from __future__ import annotations

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
    """__all__ is what __getattr__ serves, in the order of ruff's isort-style sort, each name once."""
    assert set(wds_real.__all__) == set(wds_real._MODULE_OF)
    assert len(set(wds_real.__all__)) == len(wds_real.__all__)
    assert set(wds_real.__all__) <= set(dir(wds_real))


def test_unknown_names_are_attribute_errors() -> None:
    """A misspelt name says so, and tools that probe attributes get what they expect."""
    assert not hasattr(wds_real, "Loadre")
    with pytest.raises(AttributeError, match="no attribute 'Loadre'"):
        _ = wds_real.Loadre


@pytest.mark.parametrize("name", wds_real.__all__)
def test_a_name_is_what_its_module_defines_whatever_was_imported_before(name: str) -> None:
    """No public name is shadowed by a submodule of the same name, whichever is imported first."""
    module = wds_real._MODULE_OF[name]
    code = f"import {module} as m, wds_real, types; v = wds_real.{name}; assert v is m.{name}"
    code += "; assert not isinstance(v, types.ModuleType)"
    assert f"wds_real.{name}" != module
    namespace: dict[str, object] = {}
    exec(code, namespace)  # noqa: S102 -- our own text


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_and_typed(name: str) -> None:
    """Each has a docstring that ends its first line as a sentence, and each parameter has a type and no **kwargs."""
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
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD, parameter


def test_versions_agree() -> None:
    """The package, its metadata and the change log speak of one version."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert wds_real.__version__ == project["version"]
    assert f"## {wds_real.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_import_is_light() -> None:
    """`import wds_real` loads neither torch nor numpy nor Pillow."""
    code = "import sys, wds_real; sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
