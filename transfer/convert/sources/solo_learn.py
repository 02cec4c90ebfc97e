"""solo-learn's Lightning checkpoints (vturrisi/solo-learn, solo/methods/base.py; docs: "Offline linear evaluation")."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state

LIGHTNING = "pytorch-lightning_version"
OTHERS = {
    "momentum_": "of the momentum networks",
    "classifier.": "projector or classifier",
    "projector.": "projector or classifier",
    "predictor.": "projector or classifier",
}


class SoloLearn(Source):
    """``state_dict`` with ``backbone.*`` (``encoder.*`` in older releases), ``projector.*``, ``classifier.*``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for Lightning's version, a backbone and solo-learn's online classifier or projector."""
        found = state(checkpoint)
        own = has(found, "classifier.") or has(found, "projector.")
        return LIGHTNING in checkpoint and own and (has(found, "backbone.") or has(found, "encoder."))

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the backbone, not the momentum one."""
        found = state(checkpoint)
        return split_by_prefix(found, "backbone." if has(found, "backbone.") else "encoder.", others=OTHERS)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the method's name when the settings are plain, the epoch and the step."""
        settings = checkpoint.get("hyper_parameters")
        method = settings.get("method", "solo_learn") if isinstance(settings, dict) else "solo_learn"
        return plain_values(checkpoint, str(method), epochs="epoch", steps="global_step")
