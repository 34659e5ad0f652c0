"""The command linearity-iqa of an installed toolkit: each subcommand runs a script, as `python main.py` does."""
import re
import runpy
import sys
from importlib.metadata import PackageNotFoundError, version

from iqa_runtime.errors import command, pick
from iqa_runtime.packages import ROOT

# name -> (module of the script, description)
SUBCOMMANDS = {
    'train': ('main', 'train a network, or list the networks'),
    'test': ('test_dataset', 'test a trained network on a data set'),
    'score': ('test_demo', 'score images, or fit scores to ratings'),
    'predict-all': ('iqa_scoring.predict_all', 'score images with every checkpoint in a folder'),
    'ensemble': ('iqa_scoring.ensemble', 'combine the predictions of several models'),
    'export': ('iqa_scoring.export', 'write a trained network as ONNX or for torch.export'),
    'publish': ('iqa_scoring.publish', 'publish a trained network as a folder, or on the Hugging Face Hub'),
    'clean': ('iqa_training.clean', 'list and remove states, locks and caches'),
    'train-ranker': ('iqa_training.train_ranker', "train the ranker of ASNA's loss"),
    'info': ('data.make_info', 'make the info file of a published data set'),
    'check': ('data.check', 'check all images and scores of a data set'),
    'demo': ('data.make_demo', 'draw the demo data set'),
    'check-results': ('iqa_studies.check', 'recompute the numbers of results, and check their splits'),
    'study': ('iqa_studies.run', 'train, test and compare several settings on several splits and data sets'),
    'compare': ('results_in_the_paper.compare', 'compare models by their predictions'),
    'gmad': ('iqa_scoring.gmad', 'show people the images on which two models contradict each other'),
    'reproduce': ('results_in_the_paper.reproduce', 'reproduce figures and tables'),
}


def listed() -> str:
    """Return the help text of the command: a line for each subcommand."""
    lines = '\n'.join(f'  {name:14}{about}' for name, (_, about) in SUBCOMMANDS.items())
    return ('linearity-iqa COMMAND [options], or --version\n\n'
            f'{lines}\n\n`linearity-iqa COMMAND --help` shows the options.')


def version_here() -> str:
    """Return the version of the toolkit: of the installed package, or of the repository."""
    try:
        return version('linearity-iqa')
    except PackageNotFoundError:
        return re.search(r'^version = "(.+)"', (ROOT / 'pyproject.toml').read_text(), re.M)[1]


@command
def main(argv: list[str] | None = None) -> None:
    """Run a subcommand with its arguments."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help', 'help'):
        print(listed())
        return
    if name == '--version':
        print(f'linearity-iqa {version_here()}')
        return
    module, _ = SUBCOMMANDS[pick(SUBCOMMANDS, name, 'command')]
    sys.argv = [f'linearity-iqa {name}', *words]
    runpy.run_module(f'linearity_iqa.{module}', run_name='__main__')


if __name__ == '__main__':
    main()
