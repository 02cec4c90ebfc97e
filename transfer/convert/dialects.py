"""The dialects that checkpoints are written in, one row each.

A dialect is told by what a file holds, never by the file's name; when two claim a file the user is asked. A row says where the
wanted backbone is; what its tensors are called is the business of ``core/backbones``. Names are compared without wrappers
(``module.``, ``_orig_mod.``), and expressions are matched at the beginning of a name.

A further dialect is one row more in ``ROWS``, or, outside this checkout, a ``Dialect`` of your own:
``--source my_package.my_module:NAME``.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from core import checkpoint as ours

CONTAINERS = ("state_dict", "model", "model_state_dict")  # where training codes keep a network's tensors
HEAD, MOMENTUM, TWIN = "projector or classifier", "of the momentum networks", "the same tensors as backbone.*"
LIGHTNING = "pytorch-lightning_version"

# Parts that stand inside an encoder beside its stages; what is left after dropping them must be the backbone, exactly.
HEADS = ("fc.", "classifier.", "head.", "projection_head.", "projector.", "prototypes.", "last_linear.")


@dataclasses.dataclass(frozen=True)
class Mark:
    """One way to tell a dialect: each of ``names`` begins a tensor's name, none of ``never`` does.

    ``keys`` are entries of the file, each with the values that tell (none: any value); ``absent`` entries are not there.
    """

    names: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    keys: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dialect:
    """One layout of files.

    ``within``: where the tensors are, the first such entry of the file, or else the whole file. ``prefix``: what stands before
    the backbone's names, the first that is found. ``drops``: other tensors, with why they stay behind (``heads`` are those
    inside the backbone, ``rest`` is said of all others). ``alone``: only of files with one backbone; ``fallback``: only of
    files that no other dialect claims; ``yields_to``: dialects that read the same tensors from the same places, and name them
    better. ``pretrain``: our name of a value = its place in the file, under the ``method``; or a function of the file.
    ``note``: what the user should know; where it speaks of a ``{student}``, only if the file has one. ``refused``: names of
    what is never carried, with the reason.
    """

    name: str
    layout: str  # where it is documented
    marks: tuple[Mark, ...]
    prefix: tuple[str, ...] = ("",)
    within: tuple[str, ...] = CONTAINERS
    drops: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rest: str = "not of the query backbone"
    heads: tuple[str, ...] = HEADS
    alone: bool = False
    fallback: bool = False
    yields_to: tuple[str, ...] = ()
    method: str = ""
    pretrain: Mapping[str, str] | Callable[[Mapping[str, Any]], dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    note: str = ""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _our_run(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise a run of this project: method, branches, data, length and cost."""
    config, progress = checkpoint["config"], checkpoint.get("progress", {})
    branches = config.get("branches", {})
    return {
        "method": config.get("method", {}).get("name", "random"),
        "branches": sorted(branch["name"] for branch in branches.values()),
        **({"branch_settings": branches} if branches else {}),
        "dataset": config.get("data", {}).get("name"),
        "epochs": progress.get("epoch", 0),
        "steps": progress.get("step", 0),
        "batch_size": config.get("train", {}).get("batch_size"),
        "forwards_per_step": progress.get("forwards_per_step"),
    }


TEACHER = "the teacher is taken, as in DINO's evaluation; --source plain:{student} takes the student"
INSIDE = r"((?:state_dict|model)\.)?"
RELEASE = {"epochs": "epoch", "arch": "arch"}  # what facebookresearch's main_*.py store
OPENSELFSUP = {
    r"(encoder_q|online_net)\.0\.": TWIN,
    r"(encoder_q|online_net)\.": HEAD,
    r"(encoder_k|target_net)\.": MOMENTUM,
}
DENSE = r"(decode_head|rpn_head|roi_head|bbox_head|mask_head)\."
EXTRACTED = ("mmselfsup", "openselfsup", "densecl", "swav", "mmseg", "ours")  # bare names and their own mark

ROWS = (
    Dialect(
        "barlow_twins",
        "facebookresearch/barlowtwins, main.py: checkpoint.pth; its resnet50.pth is read as torchvision",
        (Mark((r"backbone\.", r"projector\.", r"bn\.running_mean")),),
        (r"backbone\.",),
        drops={r"projector\.": HEAD, r"bn\.": "norm of the embeddings"},
        method="barlow_twins",
        pretrain={"epochs": "epoch"},
    ),
    Dialect(
        "byol",
        "lucidrains/byol-pytorch (online_encoder.net.*, under learner. in its Lightning example); "
        "sthalles/PyTorch-BYOL, trainer.py (online_network_state_dict with encoder.* and projetion.*, spelt "
        "so); yaox12/BYOL-PyTorch, model/byol_model.py",
        (
            Mark(
                (r"(.*\.)?online_(network_state_dict|network|encoder|net|model|backbone)\.",),
                never=(r"((state_dict|model)\.)?backbone\.",),  # OpenSelfSup's
            ),
        ),
        (r"(.*\.)?online_(network_state_dict|network|encoder|net|model|backbone)\.",),
        within=(),
        drops={r"(.*\.)?target_": MOMENTUM, r"(.*\.)?online_predictor": HEAD},
        heads=("projector.", "projetion.", "projection.", "predictor.", "fc.", "net.fc.", "encoder.fc."),
        method="byol",
        pretrain={"epochs": "epoch", "steps": "global_step"},
    ),
    Dialect(
        "densecl",
        "WXinlong/DenseCL, openselfsup/models/densecl.py, tools/extract_backbone_weights.py",
        (Mark(keys={"author": ("DenseCL",)}), Mark((r"queue2", r"backbone\."))),
        (r"backbone\.", ""),
        drops=OPENSELFSUP,
        method="densecl",
    ),
    Dialect(
        "detectron2",
        "facebookresearch/detectron2, tools/convert-torchvision-to-d2.py; a detector's backbone is under "
        "backbone. (C4, whose res5 is under roi_heads.) or backbone.bottom_up. (FPN)",
        (
            Mark((r"(backbone\.(bottom_up\.)?)?(stem\.conv1\.(weight|norm\.)|res2\.0\.)",)),
            Mark((r"(res_)?conv1_(w|b|bn_s)\n|res2_0_branch2a_w\n",)),
        ),
        (r"(backbone\.(bottom_up\.)?|roi_heads\.(?=res5\.\d))?(?=stem\.|res[2-5]\.)",),
        within=("model", *CONTAINERS),
        rest="not of the bottom-up network",
        heads=("res5.norm.",),
        refused={
            r"(res_)?conv1_(w|b|bn_s)\n|res2_0_branch2a_w\n": (
                "it is a Caffe2 network (MSRA's R-50.pkl): BGR, stride in the 1x1 convolution, norms folded in; no "
                "network here computes the same"
            )
        },
    ),
    Dialect(
        "dino",
        "facebookresearch/dino, main_dino.py; dino_resnet50_pretrain.pth is read as torchvision",
        (Mark((rf"{INSIDE}student\.(backbone|encoder)\.", rf"{INSIDE}teacher\.(backbone|encoder)\.")),),
        (rf"{INSIDE}teacher\.(backbone|encoder)\.",),
        within=(),
        drops={rf"{INSIDE}student\.": "of the student", rf"{INSIDE}teacher\.head\.": HEAD},
        method="dino",
        pretrain={"epochs": "epoch"},
        note=TEACHER,
    ),
    Dialect(
        "huggingface",
        "huggingface/transformers, modeling_resnet.py, modeling_convnext.py; without the first word in a bare model",
        (
            Mark(
                (
                    r"((resnet|convnext)\.)?(embedder\.embedder|embeddings\.patch_embeddings)\.",
                    r"((resnet|convnext)\.)?encoder\.stages\.0\.",
                )
            ),
        ),
        (r"(resnet|convnext)\.", ""),
        drops={r"classifier\.": HEAD},
        heads=("classifier.",),
    ),
    Dialect(
        "lightly",
        "lightly-ai/lightly, examples/pytorch*: heads are projection_head and prediction_head, momentum "
        "copies end in _momentum, DINO's networks are student_backbone and teacher_backbone. An export of "
        "lightly-train (docs.lightly.ai/train/stable/export.html) is a bare network and read as torchvision",
        (
            Mark(
                (
                    r"backbone\.",
                    r"(projection_head|prediction_head|student_head|projection_head_momentum|backbone_momentum)\.",
                )
            ),
            Mark((r"student_backbone\.", r"student_head\.")),
        ),
        (r"backbone\.", r"teacher_backbone\.", r"student_backbone\."),
        drops={
            r"(backbone|projection_head)_momentum\.": MOMENTUM,
            r"(projection_head|prediction_head|student_head|teacher_head)": HEAD,
            r"student_backbone\.": "of the student",
        },
        method="lightly",
        pretrain={"epochs": "epoch", "steps": "global_step"},
        note=TEACHER,
    ),
    Dialect(
        "mmseg",
        "open-mmlab/mmsegmentation: trained networks (backbone.*, decode_head.*, auxiliary_head.*), and files "
        "of tools/convert_to_mmseg.py",
        (
            Mark((r"decode_head\.", r"backbone\.")),
            Mark((r"conv1\.|downsample_layers\.0\.0\.",), keys={"meta": ()}, absent=("author",)),
        ),
        (r"backbone\.", ""),
        drops={r"(decode|auxiliary)_head\.": "head of the segmentation network"},
        heads=("fc.",),
    ),
    Dialect(
        "mmselfsup",
        "open-mmlab/mmselfsup, tools/model_converters/extract_backbone_weights.py (author: MMSelfSup, bare "
        "names); MMEngine's checkpoints of mmselfsup and mmpretrain (meta, state_dict with backbone.*, "
        "neck.*, head.*, target_net.*, encoder_k.*)",
        (
            Mark(keys={"author": ("MMSelfSup", "MMPretrain")}),
            Mark((r"backbone\.",), (DENSE, r"(encoder_q|online_net)\.0\."), keys={"meta": ()}),
        ),
        (r"backbone\.", ""),
        drops={r"(target_net|encoder_k)\.": MOMENTUM, r"(neck|head)\.": HEAD},
        method="mmselfsup",
        pretrain={"epochs": "meta.epoch", "steps": "meta.iter"},
    ),
    Dialect(
        "moco",
        "facebookresearch/moco (v1, v2), main_moco.py, detection/convert-pretrain-to-detectron2.py; the same "
        "keys in kirill-vish/MixMask, main_moco_mixmask.py, and szq0214/Un-Mix, which are forks of it",
        (Mark((r"encoder_q\.",), (r"backbone\.",)),),  # OpenSelfSup keeps a backbone beside it
        (r"encoder_q\.",),
        method="moco",
        pretrain=RELEASE,
    ),
    Dialect(
        "moco_v3",
        "facebookresearch/moco-v3, main_moco.py, moco/builder.py, CONVERT.md",
        (Mark((r"base_encoder\.", r"momentum_encoder\.")),),
        (r"base_encoder\.",),
        method="moco_v3",
        pretrain=RELEASE,
    ),
    Dialect(
        "openselfsup",
        "open-mmlab/OpenSelfSup, openselfsup/models/moco.py, byol.py, tools/extract_backbone_weights.py; "
        "mmselfsup before 1.0: encoder_q = nn.Sequential(backbone, neck), so that every tensor of the "
        "backbone is there under backbone.* and encoder_q.0.* (online_net.0.*)",
        (
            Mark(never=(r"queue2",), keys={"author": ("OpenSelfSup",)}),
            Mark((r"backbone\.", r"(encoder_q|online_net)\.0\."), (r"queue2",)),
        ),
        (r"backbone\.", ""),
        drops=OPENSELFSUP,
    ),
    Dialect(
        "ours",
        "core/checkpoint.py of this project: whole runs and backbone files",
        (Mark(keys={"format": (ours.RUN, ours.BACKBONE)}),),
        (ours.QUERY_BACKBONE.replace(".", r"\."), ""),
        within=("backbone", "method"),
        drops={r".*\.auxiliary\.": "batch norm of mixed views"},
        pretrain=_our_run,
    ),
    Dialect(
        "pixpro",
        "zdaxie/PixPro, main_pretrain.py, contrast/models/PixPro.py, transfer/detection/convert_pretrain_to_d2.py",
        (Mark((r"encoder\.", r"encoder_k\.", r"projector\.", r"projector_k\.")),),
        (r"encoder\.",),
        drops={r"(encoder|projector)_k\.": MOMENTUM, r"(projector|value_transform|predictor)\.": HEAD},
        method="pixpro",
        pretrain={"epochs": "epoch"},
    ),
    Dialect(
        "plain", "any nesting of mappings and prefixes with one backbone in it", (Mark(),), within=(), fallback=True
    ),
    Dialect(
        "simclr",
        "sthalles/SimCLR, simclr.py, models/resnet_simclr.py (backbone.*, whose fc.0 and fc.2 are the "
        "projector); Spijkervet/SimCLR, simclr/simclr.py (encoder.* and projector.*, no container)",
        (
            Mark((r"backbone\.fc\.0\.",), (r"(predictor|encoder_[kq])\.",), absent=(LIGHTNING,)),
            Mark((r"encoder\.", r"projector\."), (r"(predictor|encoder_[kq])\.",), absent=(LIGHTNING,)),
        ),
        (r"backbone\.", r"encoder\."),
        drops={r"projector\.": HEAD},
        method="simclr",
        pretrain=RELEASE,
    ),
    Dialect(
        "simsiam",
        "facebookresearch/simsiam, main_simsiam.py, simsiam/builder.py, main_lincls.py",
        (Mark((r"encoder\.", r"predictor\."), (r"(projector|encoder_k)\.",)),),
        (r"encoder\.",),
        method="simsiam",
        pretrain=RELEASE,
    ),
    Dialect(
        "solo_learn",
        "vturrisi/solo-learn, solo/methods/base.py: backbone.* (encoder.* in older releases), projector.*, "
        "classifier.*",
        (Mark((r"(classifier|projector)\.", r"(backbone|encoder)\."), keys={LIGHTNING: ()}),),
        (r"backbone\.", r"encoder\."),
        drops={r"momentum_": MOMENTUM, r"(classifier|projector|predictor)\.": HEAD},
        yields_to=("solo_learn_dino",),
        method="solo_learn",
        pretrain={"method": "hyper_parameters.method", "epochs": "epoch", "steps": "global_step"},
    ),
    Dialect(
        "solo_learn_dino",
        "vturrisi/solo-learn, solo/methods/dino.py: backbone.* and head.* are the student's, momentum_* the teacher's",
        (Mark((r"backbone\.", r"head\.", r"momentum_backbone\.", r"momentum_head\."), keys={LIGHTNING: ()}),),
        (r"momentum_backbone\.",),
        drops={r"backbone\.": "of the student", r"(momentum_)?(head|classifier)\.": HEAD},
        method="dino",
        pretrain={"epochs": "epoch", "steps": "global_step"},
        note="the teacher (momentum_backbone) is taken, as in DINO's evaluation; --source solo_learn takes the student, which "
        "solo-learn's own evaluation does",
    ),
    Dialect(
        "swav",
        "facebookresearch/swav, main_swav.py, main_deepclusterv2.py, src/resnet50.py",
        (Mark((r"(conv1|layer1)\.", r"(projection_head|prototypes)\.")),),
        heads=("projection_head.", "prototypes.", "fc."),
        method="swav",
        pretrain={"epochs": "epoch"},
    ),
    Dialect(
        "timm",
        "huggingface/pytorch-image-models, timm/models/resnet.py and convnext.py "
        "(timm.create_model(...).state_dict()); its resnets have torchvision's names and are read so",
        (
            Mark((r"conv1\.", r"layer1\.")),
            Mark((r"stages\.0\.blocks\.0\.conv_dw\.|conv_stem\.|stem\.conv\.|features\.conv0\.",)),
            Mark(
                (r"(backbone\.(bottom_up\.)?)?network\.",)
            ),  # written by this project for Detectron2 and MMSegmentation
        ),
        (r"(?:backbone\.(?:bottom_up\.)?)?network\.", ""),
        alone=True,
        yields_to=("torchvision", *EXTRACTED),
    ),
    Dialect(
        "torchvision",
        "pytorch/vision, torchvision/models/resnet.py and convnext.py, bare or in a container; weights that "
        "were extracted already are the same: Barlow Twins', VICReg's and DINO's resnet50.pth, exports of "
        "lightly-train",
        (Mark((r"conv1\.weight|layer1\.|features\.1\.0\.block\.",), (r"conv1\.0\.",)),),  # torchvision has no deep stem
        alone=True,
        yields_to=EXTRACTED,
    ),
    Dialect(
        "vicreg",
        "facebookresearch/vicreg, main_vicreg.py: model.pth, whose expander's first layer has a bias, which "
        "Barlow Twins' has not; its resnet50.pth is read as torchvision",
        (Mark((r"backbone\.", r"projector\.0\.bias"), (r"bn\.running_mean",), keys={"model": ()}),),
        (r"backbone\.",),
        within=("model",),
        drops={r"projector\.": HEAD},
        method="vicreg",
        pretrain={"epochs": "epoch"},
    ),
    Dialect(
        "vissl",
        "facebookresearch/vissl, extra_scripts/convert_vissl_to_torchvision.py; the trunk alone is read as well",
        (Mark((r"(trunk\.)?_feature_blocks\.",)),),
        (r"(trunk\.)?_feature_blocks\.",),
        within=("classy_state_dict.base_model.model", *CONTAINERS),
        drops={r"heads\.": HEAD},
        method="vissl",
    ),
)
FORMER = {"mmsegmentation": "mmseg"}  # words that dialects and targets had
DIALECTS = {row.name: row for row in ROWS}
