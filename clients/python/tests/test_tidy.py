"""The shape of the package, and that its tests show what clients/README.md promises."""

from __future__ import annotations

import ast
import builtins
import inspect
import pathlib
import re

import com_broker
from com_broker import AsyncClient

HERE = pathlib.Path(__file__).parent
PACKAGE = HERE.parent / "src" / "com_broker"
BEHAVIOURS = HERE.parent.parent / "README.md"

MODULE_LINES_MAX = 600
FACE_LINES_MAX = 450
"""The face of the client is mostly the documentation of its calls."""

Graph = dict[str, set[str]]


def imports(path: pathlib.Path) -> set[str]:
    """The modules of this package that one imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            if node.module is not None:
                names.add(node.module)
            else:
                names.update(alias.name for alias in node.names)
    return names


def circle(graph: Graph) -> list[str]:
    """Modules that import each other in a ring, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(graph.get(name, set())):
                found = visit(other, [*path, name])
                if found:
                    return found
            done.add(name)
        return []

    for name in sorted(graph):
        found = visit(name, [])
        if found:
            return found
    return []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_modules_import_each_other() -> None:
    graph = {path.stem: imports(path) for path in PACKAGE.glob("*.py")}
    assert "_link" in graph["_keeper"], "imports are not found"
    assert circle(graph) == []


def test_modules_are_short() -> None:
    lengths = {path.stem: len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py")}
    assert {name: n for name, n in lengths.items() if n > MODULE_LINES_MAX} == {}
    assert lengths["_async_client"] <= FACE_LINES_MAX


def test_what_has_no_sockets_imports_none() -> None:
    """`_ledger`, `_conversation` and what they stand on are values."""
    values = {"_ledger", "_conversation", "_dialect", "_frames", "_model", "_reconnect", "_url"}
    for name in values:
        text = (PACKAGE / f"{name}.py").read_text()
        imported = {
            alias.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not imported & {"asyncio", "socket", "ssl", "threading", "time"}, name
        assert imports(PACKAGE / f"{name}.py") <= values | {"_arguments", "errors"}, name


# -- behaviours ------------------------------------------------------------------------------------


def promised() -> dict[str, bool]:
    """The behaviours that clients/README.md lists, and whether Python has each."""
    listed = {}
    column = None
    for line in BEHAVIOURS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[:2] == ["name", "behaviour"]:
            column = cells.index("Python")
        elif not line.startswith("|"):
            column = None
        elif column is not None and (name := re.fullmatch(r"`([a-z-]+)`", cells[0])):
            assert name[1] not in listed, f"{name[1]} is listed twice"
            assert cells[column] in ("yes", "no"), line
            listed[name[1]] = cells[column] == "yes"
    return listed


def shown() -> dict[str, list[str]]:
    """The tests that show a behaviour, by its name, as their markers say."""
    tests: dict[str, list[str]] = {}
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for decorator in node.decorator_list:
                if ast.unparse(getattr(decorator, "func", decorator)) == "pytest.mark.behaviour":
                    assert isinstance(decorator, ast.Call), node.name
                    (name,) = decorator.args
                    assert isinstance(name, ast.Constant), node.name
                    tests.setdefault(str(name.value), []).append(f"{path.stem}.{node.name}")
    return tests


def test_every_behaviour_that_is_promised_has_a_test() -> None:
    listed, tests = promised(), shown()
    assert len(listed) > 30, "the list is not found"
    assert {name for name, has in listed.items() if has} - set(tests) == set()


def test_every_behaviour_that_a_test_names_is_promised() -> None:
    listed = promised()
    strangers = {name: tests for name, tests in shown().items() if not listed.get(name)}
    assert strangers == {}


def test_the_terms_are_those_of_the_package() -> None:
    terms: list[str] = []
    column = None
    for line in BEHAVIOURS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "term":
            column = cells.index("Python")
        elif not line.startswith("|"):
            column = None
        elif column is not None:
            terms += re.findall(r"`([A-Za-z_]+)", cells[column])
    options = inspect.signature(AsyncClient).parameters
    known = {*com_broker.__all__, *options, *dir(AsyncClient), *dir(builtins)}
    assert len(terms) > 10, "the terms are not found"
    assert set(terms) - known == set()
