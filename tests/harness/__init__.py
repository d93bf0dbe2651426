"""Former name of `testkit`, kept until every test imports `testkit`."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Alias(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None):
        return ModuleSpec(name, self) if name.startswith("harness.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(spec.name.replace("harness", "testkit", 1))

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module of the present name has run."""


sys.meta_path.insert(0, _Alias())
