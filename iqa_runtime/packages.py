"""Check, as soon as a script starts, that the packages that it imports are installed."""
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# modules that scripts import when they start; others are imported when they are used
NEEDED = ('torch', 'torchvision', 'ignite', 'numpy', 'scipy', 'pandas', 'h5py', 'PIL', 'filelock', 'tqdm')


def check_packages() -> None:
    """End the process with one line on stderr and status 2 if it is a script of ours and a package is not installed.

    Other programs that import the toolkit get Python's own ModuleNotFoundError.
    """
    script = getattr(sys.modules.get('__main__'), '__file__', None)
    if not script or ROOT not in Path(script).resolve().parents[:2]:
        return
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        print(f'{Path(script).name}: error: {sys.executable} lacks the packages {", ".join(missing)}: activate an '
              'environment that has them (source .venv/bin/activate, which make demo creates), or install them '
              f'(pip install -r {ROOT / "requirements.txt"})', file=sys.stderr)
        raise SystemExit(2)
