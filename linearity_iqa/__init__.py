"""The toolkit as one package: `from linearity_iqa.IQAmodel import load`, in a clone and where it is installed.

`pip install .` puts the files of a clone, as they are, into the folder `toolkit` of this package. They import each
other by the names that they have in a clone. This package therefore appends their folder to the path: modules of your
own, such as `main` or `data`, come first, and the scripts are found as linearity_iqa.main, linearity_iqa.data ... only.
"""
import re
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
TOOLKIT = HERE / 'toolkit' if (HERE / 'toolkit').is_dir() else HERE.parent
SHARED = re.compile(r'linearity_iqa\.(IQA\w+|iqa_\w+|modified_ignite_engine)\b')  # what the files import of each other


class OneCopy(SourceFileLoader):
    """Loads linearity_iqa.IQAmodel as the module IQAmodel, so that no class and no table exists twice."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(module.__name__.partition('.')[2])


class Finder:
    """Finds the shared modules of the toolkit under the name of this package."""

    @staticmethod
    def find_spec(name: str, path: list[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return how to import a shared module; None for any other."""
        found = PathFinder.find_spec(name, path, target) if SHARED.match(name) else None
        if found is not None:
            found.loader = OneCopy(name, found.origin)
        return found


__path__.append(str(TOOLKIT))
if str(TOOLKIT) not in sys.path:
    sys.path.append(str(TOOLKIT))
sys.meta_path.insert(0, Finder)
