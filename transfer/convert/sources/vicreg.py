"""VICReg's model.pth (facebookresearch/vicreg, main_vicreg.py); its resnet50.pth is read as ``torchvision``."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix


class Vicreg(Source):
    """``model`` with ``module.backbone.*`` and ``module.projector.*`` (the expander), and no norm of the embeddings."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for an expander whose first layer has a bias, which Barlow Twins' has not."""
        found = _model(checkpoint)
        return has(found, "backbone.", "projector.0.bias") and not has(found, "bn.running_mean")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the backbone."""
        return split_by_prefix(_model(checkpoint), "backbone.", others={"projector.": "projector or classifier"})

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch."""
        return plain_values(checkpoint, "vicreg", epochs="epoch")


def _model(checkpoint: dict[str, Any]) -> dict[str, Any]:
    model = checkpoint.get("model")
    return dict(model) if isinstance(model, dict) else {}
