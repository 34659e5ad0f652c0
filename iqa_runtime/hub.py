"""Fetch and upload models on the Hugging Face Hub, by names such as hf-hub:USER/NAME or hf-hub:USER/NAME@REVISION.

The client is the package huggingface_hub, which is imported only for such names. It keeps what it has fetched, and
reads HF_HUB_OFFLINE, HF_HOME, HF_TOKEN and its other variables itself.
"""
import importlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from iqa_runtime.errors import UserError, needed

PREFIX = 'hf-hub:'
NAME = re.compile(r'hf-hub:(?P<model>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w-][\w./-]*))?', re.ASCII)
PATIENCE = 5  # seconds until the hub answers
Result = TypeVar('Result')


def on_hub(name: str | os.PathLike) -> bool:
    """Return whether a name is that of a model on the hub."""
    return os.fspath(name).startswith(PREFIX)


def parts_of(name: str | os.PathLike) -> tuple[str, str | None]:
    """Return the model, 'USER/NAME', and its revision: a branch, a tag or a commit; None: the main branch.

    Raises UserError if the name has another form.
    """
    found = NAME.fullmatch(os.fspath(name))
    if not found:
        raise UserError(f'{os.fspath(name)}: expected {PREFIX}USER/NAME or {PREFIX}USER/NAME@REVISION')
    return found['model'], found['revision']


def client_for(name: str | os.PathLike) -> tuple[ModuleType, str, str | None]:
    """Return the hub's client, and the parts of a name (see `parts_of`); UserError if the client is not installed."""
    return needed('huggingface_hub', 'huggingface_hub', os.fspath(name)), *parts_of(name)


def fetched(name: str | os.PathLike, patterns: Sequence[str]) -> Path:
    """Return the local folder of a model's files that match the patterns; they are downloaded unless they are cached.

    If the hub cannot be reached, or HF_HUB_OFFLINE is set, the cached files are used. Raises UserError if there are
    none, or if the hub has no such model.
    """
    client, model, revision = client_for(name)
    return Path(_asking(name, 'cannot be fetched', lambda: client.snapshot_download(
        repo_id=model, revision=revision, allow_patterns=list(patterns))))


def upload(folder: Path, name: str, message: str) -> str:
    """Upload a folder as a model, which is created if it does not exist; return the address of the commit.

    Raises UserError if the user is not logged in, or may not write there.
    """
    client, model, revision = client_for(name)

    def send() -> str:
        hub = client.HfApi()
        hub.create_repo(repo_id=model, exist_ok=True)
        if revision:
            hub.create_branch(repo_id=model, branch=revision, exist_ok=True)
        return str(hub.upload_folder(repo_id=model, revision=revision, folder_path=str(folder),
                                     commit_message=message))
    return _asking(name, 'cannot be uploaded', send)


@contextmanager
def cached_if_unreachable() -> Iterator[None]:
    """Let the hub's client use only what it has cached within the context, if the hub does not answer at once.

    Otherwise it asks five times for each file, which takes about 46 s on a machine without internet.
    """
    try:
        client = importlib.import_module('huggingface_hub')
        constants, session = client.constants, client.utils.get_session()
    except (ImportError, AttributeError):  # not installed, or one that has neither: it does as it likes
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(lambda: session.head(constants.ENDPOINT, timeout=PATIENCE))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except Exception:  # of the HTTP library, which is not the same in all versions of the client
        return False
    return True


def _asking(name: str | os.PathLike, failed: str, ask: Callable[[], Result]) -> Result:
    """Return what the hub's client returns; UserError with the reason if it fails, whatever it raises."""
    try:
        return ask()
    except Exception as error:  # the client raises those of its HTTP library, of the system, and many of its own
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'{os.fspath(name)} {failed}: {reason[:300]}') from None
