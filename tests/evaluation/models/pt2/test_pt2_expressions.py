"""The expressions of exported programs: arithmetic on sizes is accepted, and nothing that reaches further."""

from __future__ import annotations

import pytest

from wds_real.evaluation.models.pt2.expressions import is_arithmetic


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(3), Symbol('s0', positive=True, integer=True), Symbol('s53', positive=True, integer=True))",
        "Add(FloorDiv(Add(Symbol('s53', positive=True, integer=True), Integer(-1)), Integer(2)), Integer(1))",
        "Pow(Symbol('s0', integer=True), Integer(2))",
        "Float('0.5', precision=53)",
        "4*s65",
        "s0 <= 64",
        "true",
        "(1 + (((-1) + L['x'].size()[3]) // 2)) != 1",
        "L['args'][0].size()[2] <= 64 and L['x'].stride()[1] == 1",
        "math.trunc(L['x'].size()[0] / 2) == 3",
        "torch.sym_max(L['x'].size()[0], 3) < max(1, 2)",
    ],
)
def test_arithmetic_is_accepted(text: str) -> None:
    """Sizes as torch prints them, in SymPy's and in Python's form, are arithmetic."""
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('made', 'w')",
        "().__class__.__base__",
        "Add('open(1)', 1)",
        "Symbol('s0', **{})",
        "Symbol(name='x y')",
        "Symbol('a\"); open(1)#')",
        "Float('__import__(1)')",
        "L['x\"); open(1) #'].size()[0] == 1",
        "L['x'].size.__globals__",
        "math.__loader__",
        "torch.load('x')",
        "torch.sym_max.__globals__['x']",
        "(lambda: 0)()",
        "[s0 for s0 in (1, 2)]",
        "f'{s0}'",
        "(s0 := 1)",
        "9**9**9",
        "Pow(Integer(9), Integer(999999999))",
        "LShift(1, 999999999999)",
        "1 << 999999999999",
        str(2**64),
        "print",
        "max",
        "\uff4fpen(1)",
        "s0; s1",
        "",
        "(" * 5000,
        "1+" * 12_000 + "1",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """Other functions, attributes, strings, generators and results of any size are not arithmetic."""
    assert not is_arithmetic(text)
