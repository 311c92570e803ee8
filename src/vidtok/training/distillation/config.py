"""The section `model.params.distill_config`: the decoder to train, and its losses beside the objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Annotated, Any

from vidtok.config.dialect import DISTILL, ENGINE
from vidtok.config.read import TEACHER
from vidtok.fields import Within, build, check, mapping_at

PLACE = f"{ENGINE}.{DISTILL}"
_Weight = Annotated[float, Within(0)]


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Weights of the losses against the teacher. Values out of range raise `ConfigError`.

    Each loss is counted for every value of a frame, as `logvar_per_clip` counts the error against the source.
    """

    teacher_weight: _Weight = 0.5
    """Weight of the logarithm of the squared error against the teacher's video."""
    feature_weight: _Weight = 0.1
    """Weight of the squared error of the teacher's features, stage by stage, as a share of their own square; a learned
    linear map brings the decoder's features to theirs."""
    place: InitVar[str] = PLACE

    def __post_init__(self, place: str) -> None:
        check(self, place)

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> DistillConfig:
        """The config in the sections `raw` of a configuration; its decoder is read by `read_config`."""
        section = mapping_at(raw["model"]["params"], DISTILL, ENGINE)
        return build(cls, {key: value for key, value in section.items() if key not in ("decoder", TEACHER)}, PLACE)
