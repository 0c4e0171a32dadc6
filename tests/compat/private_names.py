"""Private names of other packages in a tree of Python files: where they are used, and which.

A name is private if it begins with one underscore, also as a part of a module's path. Found are

- imports from the packages, and attributes of anything that no file of the tree defines under this name;
- in classes that derive from a class of the packages, names that this class or its bases use too: methods that
  override one, and attributes of `self`, on purpose or by accident.
"""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("torch", "lightning", "hydra", "omegaconf", "wandb", "wandb_workspaces")
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}


class Use(NamedTuple):
    module: str
    line: int
    name: str


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def names_defined(trees: Iterable[ast.Module]) -> set[str]:
    """Names of functions and classes, of variables, and of attributes set on `self`."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif is_of_self(node) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def is_of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def is_of_self_or_super(node: ast.Attribute) -> bool:
    return is_of_self(node) or ast.unparse(node.value) == "super()"


def foreign_imports(module: str, tree: ast.Module) -> Iterator[Use]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        else:
            continue
        for path in paths:
            if path.split(".")[0] in PACKAGES and any(map(is_private, path.split("."))):
                yield Use(module, node.lineno, path)


def foreign_attributes(module: str, tree: ast.Module, own: set[str]) -> Iterator[Use]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own | NAMED_TUPLE:
            text = ast.unparse(node)
            if text != "os._exit":  # documented, and none of the packages'
                yield Use(module, node.lineno, text)


def inherited_names(module: str, tree: ast.Module) -> Iterator[Use]:
    """Private names that a class of the module shares with its bases in the packages."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in classes:
        cls = getattr(importlib.import_module(module), node.name, None)
        if not isinstance(cls, type):
            continue  # defined inside a function
        foreign = {name for base in cls.__mro__ if base.__module__.split(".")[0] in PACKAGES for name in names_of(base)}
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name in foreign:
                yield Use(module, inner.lineno, f"{node.name}.{inner.name}")
            elif isinstance(inner, ast.Attribute) and inner.attr in foreign and is_of_self_or_super(inner):
                yield Use(module, inner.lineno, f"{node.name}: {ast.unparse(inner)}")


@cache
def names_of(cls: type) -> frozenset[str]:
    """Private names of a class: its own attributes, and those that its methods set on `self`."""
    names = set(filter(is_private, vars(cls)))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # made in C: it has no source
        return frozenset(names)
    return frozenset(names | {n.attr for n in ast.walk(tree) if is_of_self(n) and is_private(n.attr)})


def foreign_private_names(folder: Path) -> list[Use]:
    """All uses in the package in `folder`, in order of modules and lines."""
    trees = {module_of(path, folder): ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}
    own = names_defined(trees.values())
    found: set[Use] = set()
    for module, tree in trees.items():
        found.update(foreign_imports(module, tree), foreign_attributes(module, tree, own))
        found.update(inherited_names(module, tree))
    return sorted(found)


def module_of(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
