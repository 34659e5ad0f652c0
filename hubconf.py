"""Entry point of torch.hub: torch.hub.load('<this repository>', 'linearity_iqa', checkpoint='checkpoints/NAME.pth')."""
dependencies = ['torch', 'torchvision', 'ignite', 'filelock', 'numpy', 'PIL', 'scipy', 'tqdm']


def linearity_iqa(checkpoint, device: str = 'cpu', **options):
    """Load a trained model, whose method `score` returns the quality of images in MOS units.

    Arguments and result are those of IQAmodel.load: the path of the checkpoint, or a published model (a folder, or
    hf-hub:USER/NAME), and for a checkpoint of the original package the options of its network and its preprocessing.
    """
    from IQAmodel import load  # the repository is on the path only while torch.hub calls this
    return load(checkpoint, device, **options)
