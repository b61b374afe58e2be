"""Programs that carry code: refused in one line, and nothing of them is run. torch itself runs what is in them."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from wds_real import ModelError, load_model

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM, EXAMPLE = "models/model.json", "data/sample_inputs/model.pt"
CONSTANTS, WEIGHTS = "data/constants/model_constants_config.json", "data/weights/model_weights_config.json"
Records = dict[str, bytes]


class Small(torch.nn.Module):
    """A classifier with a weight and a dimension that torch describes by an expression."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(image.mean((2, 3)))
        return scores


class Touch:
    """Pickles as a call that makes the file `made` in the working folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("made"),)


def saved(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def in_program(change: Callable[[dict[str, Any]], object]) -> Callable[[Records], None]:
    """Return an edit of the records that changes the program's JSON."""

    def edit(records: Records) -> None:
        program = json.loads(records[PROGRAM])
        change(program)
        records[PROGRAM] = json.dumps(program).encode()

    return edit


def first_node(program: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = program["graph_module"]["graph"]["nodes"][0]
    return node


def tree(program: dict[str, Any], spec: object) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, spec])


def pickled_weight(records: Records) -> None:
    config = json.loads(records[WEIGHTS])
    name = config["config"]["head.weight"]["path_name"]
    config["config"]["head.weight"]["use_pickle"] = True
    records |= {WEIGHTS: json.dumps(config).encode(), f"data/weights/{name}": saved(Touch())}


def pickled_constant(name: str, content: bytes) -> Callable[[Records], None]:
    def edit(records: Records) -> None:
        config = json.loads(records[CONSTANTS])
        config["config"]["k"] = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        records |= {CONSTANTS: json.dumps(config).encode(), f"data/constants/{name}": content}

    return edit


TOUCH = "__import__('pathlib').Path('made').touch()"
ENUMERATION = {"__enum__": True, "fqn": "makes_a_file:E", "name": "A"}
# Each makes the file `made` if torch loads it: the test asserts that too.
RUN_BY_TORCH: dict[str, Callable[[Records], None]] = {
    "example": lambda records: records.update({EXAMPLE: saved(((torch.zeros(2, 3, 8, 8), Touch()), {}))}),
    "weight": pickled_weight,
    "all weights": lambda records: records.update({"data/weights/model.pt": saved({"head.weight": Touch()})}),
    "constant": pickled_constant("tensor_0", saved(Touch())),
    "object": pickled_constant("opaque_obj_0", pickle.dumps(Touch())),
    "size": in_program(
        lambda program: program["graph_module"]["graph"]["tensor_values"]["image"]["sizes"].__setitem__(
            0, {"as_expr": {"expr_str": TOUCH, "hint": None}}
        )
    ),
    "enumeration": in_program(
        lambda program: tree(
            program, {"type": "builtins.dict", "context": json.dumps([ENUMERATION]), "children_spec": []}
        )
    ),
    "condition": in_program(lambda program: program["guards_code"].append(f"{TOUCH} is None")),
}
# torch does not get as far in this form, or what it runs is native code: refused by what they say.
ALSO_REFUSED: dict[str, Callable[[Records], None]] = {
    "native code": lambda records: records.update({"data/aotinductor/model/model.so": b"\x7fELF"}),
    "unknown record": lambda records: records.update({"data/more/thing": b""}),
    "other program": lambda records: records.update({"models/other.json": records[PROGRAM]}),
    "script object": pickled_constant("custom_obj_0", b""),
    "function": in_program(lambda program: first_node(program).update(target="torch.ops.load_library")),
    "attribute": in_program(lambda program: first_node(program).update(target="_operator.attrgetter")),
    "module": in_program(lambda program: first_node(program).update(target="torch.hub.load")),
    "dunder": in_program(lambda program: first_node(program).update(target="torch.ops.aten.__class__.__init__")),
    "reads a file": in_program(lambda program: first_node(program).update(target="torch.ops.aten.from_file.default")),
    "extension": in_program(lambda program: first_node(program).update(target="#mine:operator")),
    "name": in_program(lambda program: first_node(program).update(name="x: __import__('os')")),
    "argument": in_program(
        lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(forward_arg_names=["x=1"])
    ),
    "parameter": in_program(
        lambda program: program["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
            parameter_name='head"] + open(1) + ["'
        )
    ),
    "type of input": in_program(lambda program: tree(program, {"type": "os.path", "context": "null"})),
}


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    """The records of a program that is as it should be, with the working folder for what they would make."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("makes_a_file.py").write_text("import enum, pathlib\npathlib.Path('made').touch()\nE = enum.Enum('E', 'A')\n")
    sizes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(Small(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=sizes), "whole.pt2")
    with Path("whole.pt2").open("rb") as file:
        reader = PT2ArchiveReader(file)
        names = [name for name in reader.get_file_names() if name.startswith(("data/", "models/", "archive_"))]
        return {name: reader.read_bytes(name) for name in names}


def write(records: Records) -> str:
    with PT2ArchiveWriter("model.pt2") as writer:
        for name, content in records.items():
            writer.write_bytes(name, content)
    return "model.pt2"


def test_what_torch_wrote_is_accepted(records: Records) -> None:
    """The same records, written again, load and compute."""
    module: Any = load_model(write(records)).module
    assert module(torch.zeros(5, 3, 8, 8)).shape == (5, 1000)


def changed(attack: Callable[[Records], None], records: Records) -> None:
    """Change the records, where this torch writes those that the attack is about."""
    try:
        attack(records)
    except KeyError as missing:
        if not torch.__version__.startswith("2.8."):
            raise
        pytest.skip(f"torch 2.8 writes all weights as one pickle, and no {missing}")


@pytest.mark.parametrize("attack", RUN_BY_TORCH.values(), ids=RUN_BY_TORCH)
def test_code_in_a_program_is_refused_and_not_run(attack: Callable[[Records], None], records: Records) -> None:
    """A file that makes another one when torch loads it is refused in one line before, and makes none."""
    changed(attack, records)
    path = write(records)
    with pytest.raises(ModelError, match=r"^model\.pt2: refused, as it holds .* could run any code") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert not Path("made").exists()
    with contextlib.suppress(Exception):  # torch may fail on it later: the file is made by then
        torch.export.load(path).module()(torch.zeros(2, 3, 8, 8))
    assert Path("made").exists()


@pytest.mark.parametrize("attack", ALSO_REFUSED.values(), ids=ALSO_REFUSED)
def test_what_torch_does_not_write_is_refused(attack: Callable[[Records], None], records: Records) -> None:
    """Native code, operators that are none, names that would end a line of generated code: one line each."""
    changed(attack, records)
    with pytest.raises(ModelError, match=r"^model\.pt2: ") as caught:
        load_model(write(records))
    assert "\n" not in str(caught.value)


def test_a_second_archive_in_the_older_form_is_refused(records: Records) -> None:
    """Where reading fails, torch takes the file for one of the older form, whose pickles it trusts."""
    path = write(records)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "8.20")
        archive.writestr("serialized_example_inputs.pt", saved(Touch()))
    with pytest.raises(ModelError, match=r"saved by torch 2\.7 or older"):
        load_model(path)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"null", b"{", b"\xff", b"[" * 100_000])
def test_a_program_that_is_other_json_is_refused(content: bytes, records: Records) -> None:
    """JSON of another form, or none, is a ModelError."""
    records[PROGRAM] = content
    with pytest.raises(ModelError, match=r"^model\.pt2: "):
        load_model(write(records))


@pytest.mark.parametrize(("kind", "advice"), [("TorchScript program", "name it .pt"), ("weights", "my_models:make")])
def test_other_files_of_torch_are_named(kind: str, advice: str, tmp_path: Path) -> None:
    """A checkpoint, or a program of another kind, is not run, and is named with what to do."""
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Touch()))
        if kind != "weights":
            archive.writestr("model/code/__torch__.py", "")
    with pytest.raises(ModelError, match=f"not a program saved by torch.export.save. It .*{kind}.*{advice}"):
        load_model(str(path))
