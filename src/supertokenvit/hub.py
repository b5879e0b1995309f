"""Trained models on the Hugging Face Hub."""

import os
import tempfile
from pathlib import Path

from .errors import UserError
from .model_folder import HUB, is_shipped, read_config, write_for_others


class HubError(UserError):
    """A model that could not be pushed."""


def push(run: str | os.PathLike, repository: str, *, private: bool = False, message: str | None = None) -> str:
    """Puts a trained model into a repository of the Hugging Face Hub, which is made if it is not there.

    What goes there is the model folder: weights, config.json and README.md, in which the data has its name without the
    folders around it. `hf-hub:OWNER/NAME` loads it from then on, here, in timm and in transformers. Who you are is what
    `hf auth login` or HF_TOKEN say.

    Args:
        run: Run folder, or the model folder in it.
        repository: OWNER/NAME.
        private: Make a new repository private.
        message: Of the commit.

    Returns:
        What loads it.

    Raises:
        HubError: The Hub refuses, or cannot be reached.
        RunFolderError: There is no model that this version can load.
    """
    from huggingface_hub import HfApi

    repository = repository.removeprefix(HUB)
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise HubError(f"{repository}: must be OWNER/NAME")
    folder, _ = read_config(run)
    if is_shipped(folder):
        raise HubError(f"{run}: comes with the package; push a model of yours")
    api, said = HfApi(), message or f"{folder.parent.name} by supertokenvit"
    with tempfile.TemporaryDirectory() as public:
        write_for_others(run, Path(public))
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=public, commit_message=said)
        except Exception as error:  # of the library, of its HTTP client, of the system
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise HubError(f"{repository}: cannot be pushed to the Hugging Face Hub ({reason})") from error
    return f"{HUB}{repository}"
