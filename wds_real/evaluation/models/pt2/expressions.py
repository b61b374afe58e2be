"""The expressions in a ``.pt2`` file, which torch evaluates as Python or SymPy text while it loads the file.

Sizes of tensors are SymPy expressions, such as ``Mul(Integer(3), Symbol('s0', integer=True))``; conditions on the input
are Python expressions, such as ``L['x'].size()[0] <= 64``. `is_arithmetic` accepts what such an expression needs, and
nothing through which text could reach other functions, modules or attributes.
"""

from __future__ import annotations

import ast
import re

__all__ = ["is_arithmetic"]

_MAX_LENGTH, _MAX_NUMBER, _MAX_EXPONENT = 20_000, 2**63, 8
_SYMBOL = re.compile(r"[a-z]+\d+")
_NAMES = {"L", "true", "false", "oo", "int_oo", "inf", "math", "torch"}
_SYMPY = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs", "And", "Or", "Not", "Piecewise",
    "ExprCondPair", "Equality", "Unequality", "LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan",
    "Eq", "Ne", "Le", "Lt", "Ge", "Gt", "ceiling", "floor", "sqrt",
}  # fmt: skip
_TORCH = {  # of torch.utils._sympy.functions; not the shifts, whose results may be of any size
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat",
    "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
}  # fmt: skip
_PYTHON = {"max", "min", "abs", "int", "float", "bool", "round"}
_FUNCTIONS = _SYMPY | _TORCH | _PYTHON
_POWERS = {"Pow", "PowByNatural", "FloatPow"}
_METHODS = {"size", "stride", "storage_offset"}
_MODULE_FUNCTIONS = {
    "math": {"trunc", "floor", "ceil", "sqrt", "isnan"},
    "torch": {"sym_float", "sym_int", "sym_max", "sym_min", "sym_not", "sym_ite", "_sym_sqrt"},
}
_PLAIN = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.UAdd, ast.USub, ast.Not, ast.BinOp, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.Tuple, ast.IfExp, ast.Load,
)  # fmt: skip


def is_arithmetic(text: str) -> bool:
    """Return whether evaluating `text` only computes with numbers and the sizes of inputs.

    >>> [is_arithmetic(text) for text in ("L['x'].size()[0] <= 64", "Mul(Integer(3), Symbol('s0', integer=True))")]
    [True, True]
    >>> [is_arithmetic(text) for text in ("open('x', 'w')", "().__class__", "Add('open(1)')", "9**9**9")]
    [False, False, False, False]
    """
    if len(text) > _MAX_LENGTH or not text.isascii():
        return False
    try:
        tree = ast.parse(text, mode="eval")
        return _allowed(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _allowed(node: ast.AST) -> bool:
    """Return whether a node of the expression and all below it may be evaluated."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool | int | float) and abs(node.value) <= _MAX_NUMBER
    if isinstance(node, ast.Name):
        return node.id in _NAMES or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Subscript):
        return _allowed(node.value) and (_is_identifier(node.slice) or _allowed(node.slice))
    if isinstance(node, ast.Call):
        return _call_allowed(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _is_small(node.right):
        return False
    return isinstance(node, _PLAIN) and all(map(_allowed, ast.iter_child_nodes(node)))


def _call_allowed(call: ast.Call) -> bool:
    """Return whether the function may be called with these arguments."""
    arguments, function = call.args, call.func
    if isinstance(function, ast.Attribute):
        of_module = isinstance(function.value, ast.Name) and function.value.id in _MODULE_FUNCTIONS
        if of_module and function.attr not in _MODULE_FUNCTIONS[ast.unparse(function.value)]:
            return False
        if not of_module and not (function.attr in _METHODS and _allowed(function.value)):
            return False
    elif not (isinstance(function, ast.Name) and function.id in _FUNCTIONS):
        return False
    elif function.id == "Symbol":
        arguments = arguments[1:] if arguments and _is_identifier(arguments[0]) else arguments
    elif function.id == "Float":
        arguments = arguments[1:] if arguments and _is_number(arguments[0]) else arguments
    elif function.id in _POWERS and not (len(arguments) == 2 and _is_small(arguments[1])):
        return False
    flags = all(isinstance(keyword.value, ast.Constant) and _allowed(keyword.value) for keyword in call.keywords)
    return flags and all(map(_allowed, arguments))


def _is_identifier(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()


def _is_number(node: ast.AST) -> bool:
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return re.fullmatch(r"-?\d{1,40}(\.\d{0,60})?(e[+-]?\d{1,4})?", text) is not None


def _is_small(node: ast.AST) -> bool:
    """Return whether an exponent is a number from -8 to 8, perhaps as ``Integer(2)``."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Integer" and len(node.args) == 1 and not node.keywords:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value <= _MAX_EXPONENT
