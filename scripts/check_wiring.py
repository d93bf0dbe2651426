"""Check that no attribute is assigned from outside its object in packages where constructors do the wiring.

An object that another module changes after construction has state that its own module does not know of. Accepted
are `self.x = …`, attributes of an object that the same function has just constructed, and, of a local variable,
attributes that the module's own classes have.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("server/liveavatar_gateway/sessions", "server/liveavatar_gateway/upstream")
"""Folders that are checked by default."""

_OWN = frozenset({"self", "cls"})


def _targets(statement: ast.stmt) -> Iterator[ast.expr]:
    match statement:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            for target in targets:
                yield from _flat(target)
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            yield from _flat(target)
        case ast.For(target=target) | ast.AsyncFor(target=target):
            yield from _flat(target)
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if item.optional_vars is not None:
                    yield from _flat(item.optional_vars)
        case ast.Expr(
            value=ast.Call(
                func=ast.Name(id="setattr" | "delattr") | ast.Attribute(attr="__setattr__" | "__delattr__"),
                args=[target, *_],
            )
        ):
            yield ast.Attribute(value=target, attr="…", lineno=statement.lineno)


def _flat(target: ast.expr) -> Iterator[ast.expr]:
    """Yield the single targets of an assignment."""
    match target:
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from _flat(element)
        case ast.Starred(value=value):
            yield from _flat(value)
        case (
            ast.Subscript(value=ast.Attribute(value=owner, attr="__dict__"))
            | ast.Subscript(value=ast.Call(func=ast.Name(id="vars"), args=[owner]))
        ):
            yield ast.Attribute(value=owner, attr="…", lineno=target.lineno)
        case _:
            yield target


def patches(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the target of each assignment to an attribute of somebody else."""
    tree = ast.parse(source)
    own = set(_attributes(tree))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            continue
        made: set[str] = set()
        for node in _own_statements(function):
            if isinstance(node, ast.Assign) and _constructs(node.value):
                made |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            for target in _targets(node):
                if not isinstance(target, ast.Attribute):
                    continue
                base = target.value
                if isinstance(base, ast.Name) and (base.id in _OWN or base.id in made or target.attr in own):
                    continue
                yield node.lineno, ast.unparse(target)


def _constructs(value: ast.expr) -> bool:
    """Return True for a call of a class, going by its name."""
    match value:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name.lstrip("_")[:1].isupper()
    return False


def _attributes(tree: ast.Module) -> Iterator[str]:
    """Yield the attributes that classes of the module have: annotated ones, and those set through `self`."""
    for class_ in ast.walk(tree):
        if not isinstance(class_, ast.ClassDef):
            continue
        for node in ast.walk(class_):
            match node:
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    yield name
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    yield name


def _own_statements(function: ast.AST) -> Iterator[ast.stmt]:
    """Yield a function's statements in order, without those of functions and classes inside it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from _own_statements(child)


def main(arguments: list[str] | None = None) -> int:
    """Print the assignments from outside and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders; default: sessions/ and upstream/")
    options = parser.parse_args(arguments)
    found = []
    for path in options.paths or [ROOT / package for package in PACKAGES]:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found += [
                f"{file}:{line}: {target} is assigned from outside" for line, target in patches(file.read_text())
            ]
    print("\n".join(found) or "wiring: clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
