"""Sharing avatars on the Hugging Face Hub: the only package that imports huggingface_hub."""

from pathlib import Path

from talker.hub.client import Hub, HubAvatar
from talker.hub.names import check_repo_id, repo_id_of


def write_card(avatar_dir: Path) -> Path:
    """Write the model card of an avatar; see :func:`talker.model_card.write_card`."""
    from talker import model_card  # loads torch; importing this package must not

    return model_card.write_card(avatar_dir)


__all__ = ["Hub", "HubAvatar", "check_repo_id", "repo_id_of", "write_card"]
