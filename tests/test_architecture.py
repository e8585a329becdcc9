"""The arrows between the parts of the package, read from the source, and what `import infoloss` loads."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import infoloss as il

SOURCE = Path(il.__file__).parent
MODULES = {
    ".".join(("infoloss", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
# the order in which the heart is read: each imports only those before it
HEART = (
    "compatibility",
    "visibility",
    "statistics",
    "views",
    "kernels",
    "batch",
    "rows",
    "direct",
    "row_blocks",
    "terms",
    "catalogue",
    "losses",
    "expression",
    "criterion",
    "linear",
)
LIBRARY = {*HEART, "infoloss"}
MAY_IMPORT = {
    "named": set(),
    "data": {"named"},
    "models": {"named", "kernels", "visibility"},
    "information": LIBRARY,
    "evaluation": LIBRARY | {"information"},
    "conformance": LIBRARY,
    "heads": LIBRARY,
    "training": LIBRARY | {"data", "models", "evaluation", "heads"},
    "incremental": LIBRARY | {"data", "models", "evaluation", "heads", "training"},
    "study": LIBRARY
    | {"named", "data", "models", "information", "evaluation", "heads", "training", "incremental"},
}
"""Parts of the house outside the heart. What is not named here (cli, integrations) is imported by nobody."""

# lazy doors of the package itself: `il.compare` and `il.LossClassifier` are found there when asked for
DOORS = {"study", "training"}


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement that can run, inside functions too."""
    for node in body:
        if is_type_checking(node):
            continue
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from statements([child])
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                yield from statements(child.body)


def imported(module: str, path: Path, *, top_level: bool = False) -> set[str]:
    """Full names of what a module imports, the modules of this package resolved as far as they exist."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in tree.body if top_level else statements(tree.body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*parents, *([source] if source else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                found.add(full if full in MODULES else source)
    return found


def part(module: str) -> str:
    """statistics, kernels, study, …; the package itself is "infoloss"."""
    names = module.split(".")
    return names[1] if len(names) > 1 else names[0]


IMPORTS = {module: imported(module, path) for module, path in MODULES.items()}
INTERNAL = {
    module: {name for name in names if name.split(".")[0] == "infoloss"} for module, names in IMPORTS.items()
}


def test_the_reader_of_imports_sees_imports() -> None:
    """Were the source read wrongly, every test below would pass."""
    assert {"infoloss.statistics", "infoloss.views"} <= INTERNAL["infoloss.terms"]
    assert "torch" in IMPORTS["infoloss.terms"]
    assert sum(len(names) for names in INTERNAL.values()) > 50


def test_every_part_has_its_place() -> None:
    known = {*HEART, *MAY_IMPORT, "infoloss", "cli", "integrations", "__main__"}
    assert {part(module) for module in MODULES} <= known


@pytest.mark.parametrize("name", HEART)
def test_the_heart_is_read_in_order(name: str) -> None:
    earlier = {*HEART[: HEART.index(name)], name}
    for module, names in INTERNAL.items():
        if part(module) == name:
            assert {part(other) for other in names} <= earlier, module


def test_kernels_know_no_loss() -> None:
    for module, names in INTERNAL.items():
        if part(module) == "kernels":
            assert {part(other) for other in names} <= {"visibility", "statistics", "views", "kernels"}, (
                module
            )


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_arrows_point_one_way(name: str) -> None:
    for module, names in INTERNAL.items():
        if part(module) == name:
            assert {part(other) for other in names} <= MAY_IMPORT[name] | {name}, module


def test_nobody_imports_the_command_line_or_the_integrations() -> None:
    for module, names in INTERNAL.items():
        outside = {part(other) for other in names} & {"cli", "integrations"} - {part(module)}
        assert not outside or module == "infoloss.__main__", module


def test_the_package_itself_loads_the_heart_only() -> None:
    loaded = imported("infoloss", MODULES["infoloss"], top_level=True)
    assert {part(name) for name in loaded if name.startswith("infoloss")} <= {*HEART}
    assert {part(name) for name in INTERNAL["infoloss"]} <= {*HEART, *DOORS}


def reachable(module: str) -> set[str]:
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        for name in INTERNAL.get(ahead.pop(), set()) - seen:
            seen.add(name)
            # the package itself is a door to everything, opened by name
            if name != "infoloss":
                ahead.append(name)
    return seen


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if name.startswith(("infoloss.study.inference", "infoloss.study.report"))],
)
def test_inference_and_report_never_train(module: str) -> None:
    assert {part(name) for name in reachable(module)} & {"training", "models"} == set()


def test_modules_do_not_import_each_other_in_circles() -> None:
    top = {module: imported(module, path, top_level=True) & set(MODULES) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join([*trail, module])
        if module not in done:
            for other in sorted(top[module] - {module}):
                visit(other, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_no_pickle_is_ever_loaded() -> None:
    for module, path in MODULES.items():
        assert not IMPORTS[module] & {"pickle", "joblib", "dill", "cloudpickle", "shelve"}, module
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text, module
        assert "allow_pickle=True" not in text, module


# What an import costs


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Modules that `import infoloss` adds to those of torch and numpy, in a fresh interpreter."""
    script = (
        "import sys, json, numpy, torch; before = set(sys.modules); import infoloss;"
        "print(json.dumps({'before': sorted(before), 'added': sorted(set(sys.modules) - before)}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)  # type: ignore[no-any-return]


def test_import_loads_no_optional_package(loaded: dict[str, list[str]]) -> None:
    foreign = {name.split(".")[0] for name in loaded["added"]} - set(sys.stdlib_module_names) - {"infoloss"}
    assert foreign == set()


def test_import_loads_the_heart_only(loaded: dict[str, list[str]]) -> None:
    ours = {name for name in loaded["added"] if name.split(".")[0] == "infoloss"}
    assert {part(name) for name in ours} == LIBRARY


def test_import_adds_few_modules(loaded: dict[str, list[str]]) -> None:
    """What it costs beyond torch, counted: the heart, and hardly a module of the standard library."""
    assert len([name for name in loaded["added"] if not name.startswith("infoloss")]) < 25


# One path per object


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name not in ("infoloss.cli", "infoloss.__main__")]
)
def test_all_names_what_exists(module: str) -> None:
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    assert len(names) == len(set(names))
    for name in names:
        assert getattr(loaded, name, None) is not None, name


def test_the_package_exports_the_catalogue() -> None:
    assert set(il.catalogue) <= set(il.__all__)
    for name in il.catalogue:
        assert getattr(il, name).__name__ == name
        assert getattr(il, name).__module__ == "infoloss.losses"
    assert (SOURCE / "py.typed").exists()
