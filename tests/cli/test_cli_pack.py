"""``wds-real pack`` and ``info``: what they print about a packed data set, and about this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.commands import KEY, Ended

from wds_real.image.backends import describe

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.usefixtures("here")
def test_pack_reports_what_it_packed(run: Callable[..., Ended]) -> None:
    """Counts, digest and "partial" are on stdout, progress on stderr; verify and info print the same digest."""
    code, out, err = run("pack", "val.tar", "new", "--allow-partial", "--samples-per-shard", "50")
    assert code == 0
    assert "packed 120 images into 3 shards in new, partial: not the whole validation set" in out
    assert err.startswith("pack: reading val.tar\n")
    assert err.splitlines()[-1].startswith("pack: 100 %")
    digest = out.split()[-1]
    assert run("verify", "new").out.split()[-1] == digest
    facts = json.loads(run("info", "new", "--json").out)
    assert facts["digest"] == digest
    assert (facts["num_samples"], facts["num_shards"], facts["partial"]) == (120, 3, True)


@pytest.mark.usefixtures("here")
def test_pack_takes_other_real_labels(run: Callable[..., Ended]) -> None:
    """--real-json replaces the ReaL labels, and with them the digest, but nothing else."""
    Path("real.json").write_text(json.dumps([[number % 1000] for number in range(50_000)]))
    packed = run("pack", "val.tar", "new", "--allow-partial", "--real-json", "real.json", "--json")
    other, old = (json.loads(run("info", root, "--json").out) for root in ("new", "shards"))
    assert json.loads(packed.out)["digest"] == other["digest"] != old["digest"]
    assert (other["with_real_label"], other["source_digest"]) == (120, old["source_digest"])
    sample = json.loads(run("info", "new", KEY, "--json").out)[KEY]
    assert [label["index"] for label in sample["real_label"]] == [59]


@pytest.mark.usefixtures("here")
def test_info_of_an_image_names_its_labels(run: Callable[..., Ended]) -> None:
    """Image 1 has the original label sea snake and no ReaL label: labels that are off by one would show here."""
    code, out, _ = run("info", "shards", "ILSVRC2012_val_00000001.JPEG")
    assert code == 0
    assert "65 sea snake (n01751748)" in out
    assert re.search(r"real_label +none", out)


def test_info_of_the_machine_needs_no_data_set(run: Callable[..., Ended]) -> None:
    """Info --env prints decoders and versions, without a data set too."""
    code, out, err = run("info", "nowhere", "--env", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert {"torch", "numpy", "pillow"} <= facts["versions"].keys()
    assert {name: facts[name] for name in ("decode", "resize")} == {
        name: describe()[name] for name in ("decode", "resize")
    }
