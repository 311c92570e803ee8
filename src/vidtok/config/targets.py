"""What the `target:` values of published YAML mean. They look like import paths; here they are names in a table.

Nothing is ever imported by a name that a file gives: a target that is not in `TARGETS` is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vidtok.errors import ConfigError
from vidtok.models.vidtok.config import TemporalPadding
from vidtok.text import near

Role = Literal[
    "model", "encoder", "decoder", "qformer", "regularizer", "objective", "optimizer", "data module", "dataset",
    "strategy", "callback",
]  # fmt: skip
Variant = Literal["causal 1.0", "causal 1.1", "non-causal"]


@dataclass(frozen=True)
class Target:
    """One published name: the part that it may fill and what it means there."""

    role: Role
    variants: tuple[Variant, ...] = ()
    """Of a model, an encoder or a decoder of the first family: the variants that it belongs to."""
    family: str = "vidtok"
    """Of a model, an encoder, a decoder or a Q-Former: the family that it belongs to."""
    kind: str = ""
    """Of other parts: which one, as a short name (`kl`, `fsq`, `adam`, `ddp`, ...)."""


VARIANT_PADDING: dict[Variant, TemporalPadding] = {
    "causal 1.0": "zeros",
    "causal 1.1": "first_frame",
    "non-causal": "both_sides",
}

_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")

TARGETS: dict[str, Target] = {
    "vidtok.models.autoencoder.AutoencodingEngine": Target("model", ("causal 1.0", "non-causal")),
    "vidtok.models.autoencoder_v1_1.AutoencodingEngine": Target("model", ("causal 1.1",)),
    "vidtok.modules.model_3dcausal.EncoderCausal3DPadding": Target("encoder", ("causal 1.0",)),
    "vidtok.modules.model_3dcausal.DecoderCausal3DPadding": Target("decoder", ("causal 1.0",)),
    "vidtok.modules.model_3dcausal_v1_1.EncoderCausal3DPadding": Target("encoder", ("causal 1.1",)),
    "vidtok.modules.model_3dcausal_v1_1.DecoderCausal3DPadding": Target("decoder", ("causal 1.1",)),
    "vidtok.modules.model_3dnoncausal.Encoder3D": Target("encoder", ("non-causal",)),
    "vidtok.modules.model_3dnoncausal.Decoder3D": Target("decoder", ("non-causal",)),
    "vidtwin.models.vidtwin_ae.VidAutoEncoderQformerCompactSymVidVAE": Target("model", family="vidtwin"),
    "vidtwin.modules.st_transformer.STTEncoder": Target("encoder", family="vidtwin"),
    "vidtwin.modules.st_transformer.STTDecoder": Target("decoder", family="vidtwin"),
    "vidtwin.modules.qformer.MyQformerInterface": Target("qformer", family="vidtwin"),
    "vidtok.modules.regularizers.DiagonalGaussianRegularizer": Target("regularizer", kind="kl"),
    "vidtok.modules.regularizers.FSQRegularizer": Target("regularizer", kind="fsq"),
    "vidtok.modules.losses.GeneralLPIPSWithDiscriminator": Target("objective", kind="lpips_with_discriminator"),
    "torch.nn.Identity": Target("objective", kind="none"),
    "torch.optim.Adam": Target("optimizer", kind="adam"),
    "torch.optim.AdamW": Target("optimizer", kind="adamw"),
    "vidtok.training.muon.Muon": Target("optimizer", kind="muon"),
    "vidtok.data.datamodule.DataModuleFromConfig": Target("data module", kind="from_config"),
    "vidtok.data.vidtok.VidTokDataset": Target("dataset", kind="videos"),
    "vidtok.data.synthetic.SyntheticClips": Target("dataset", kind="synthetic"),
    "vidtok.modules.logger.ImageVideoLogger": Target("callback", kind="image_logger"),
    **{f"{p}.strategies.DDPStrategy": Target("strategy", kind="ddp") for p in _LIGHTNING},
    **{f"{p}.strategies.FSDPStrategy": Target("strategy", kind="fsdp") for p in _LIGHTNING},
    **{f"{p}.callbacks.ModelCheckpoint": Target("callback", kind="model_checkpoint") for p in _LIGHTNING},
    **{f"{p}.callbacks.LearningRateMonitor": Target("callback", kind="learning_rate_monitor") for p in _LIGHTNING},
}


def look_up(section: Mapping[str, object], role: Role, place: str) -> Target:
    """The target of `section`, which stands at `place` and must fill `role`; `ConfigError` if it is absent or unfit."""
    fitting = [name for name, target in TARGETS.items() if target.role == role]
    name = section.get("target")
    if name is None:
        raise ConfigError(f"{place}.target is missing; expected one of {', '.join(fitting)}")
    target = TARGETS.get(name) if isinstance(name, str) else None
    if target is None:
        raise ConfigError(
            f"{place}.target is {name!r}, which is not known{near(name, fitting)}; "
            f"expected one of {', '.join(fitting)} (targets are looked up in a table and never imported)"
        )
    if target.role != role:
        raise ConfigError(
            f"{place}.target is {name}, a name for the {target.role}; the {role} is one of {', '.join(fitting)}"
        )
    return target
