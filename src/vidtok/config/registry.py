"""The models that have a name: the configuration, the place of the weights, and the published quality of each.

Quality as in the VidTok paper (arXiv 2412.13061) and its repository: 30 clips of MCL-JCV at 30 fps and 256 x 256,
version 1.0 on clips of 17 frames (16 if non-causal), version 1.1 on whole videos. VidTwin (arXiv 2412.17726): MCL-JCV
at 25 fps and 224 x 224, clips of 16 frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from vidtok.errors import ConfigError
from vidtok.text import near

HUB_REPO = "microsoft/VidTok"
VIDTWIN_HUB_REPO = "microsoft/vidtwin"

_Scores = tuple[float, float, float, float]
_Known = tuple[float | None, float | None, float | None, float | None]

# Name -> PSNR (dB), SSIM, LPIPS, FVD; None where none were published.
_PUBLISHED: dict[str, _Scores | None] = {
    "vidtok_kl_causal_488_4chn": (29.64, 0.852, 0.114, 194.2),
    "vidtok_kl_causal_488_8chn": (31.83, 0.897, 0.083, 109.3),
    "vidtok_kl_causal_488_16chn": (35.04, 0.942, 0.047, 78.9),
    "vidtok_kl_causal_288_8chn": (33.86, 0.928, 0.057, 80.7),
    "vidtok_kl_causal_444_4chn": (34.78, 0.941, 0.051, 87.2),
    "vidtok_kl_causal_41616_4chn": (25.05, 0.711, 0.228, 549.1),
    "vidtok_kl_noncausal_488_4chn": (30.60, 0.876, 0.098, 157.9),
    "vidtok_kl_noncausal_488_16chn": (36.13, 0.950, 0.044, 60.5),
    "vidtok_kl_noncausal_41616_4chn": (26.06, 0.751, 0.190, 423.2),
    "vidtok_kl_noncausal_41616_16chn": (30.69, 0.878, 0.095, 147.1),
    "vidtok_fsq_causal_488_262144": (29.82, 0.867, 0.106, 160.1),
    "vidtok_fsq_causal_488_32768": (29.16, 0.854, 0.117, 196.9),
    "vidtok_fsq_causal_488_4096": (28.36, 0.832, 0.133, 218.1),
    "vidtok_fsq_causal_41616_262144": (25.38, 0.738, 0.206, 430.1),
    "vidtok_fsq_noncausal_488_262144": (30.78, 0.889, 0.091, 132.1),
    "vidtok_fsq_noncausal_41616_262144": (26.37, 0.772, 0.171, 357.0),
    "vidtok_kl_causal_488_16chn_v1_1": (35.13, 0.941, 0.049, 87.4),
    "vidtok_kl_causal_41616_16chn_v1_1": (29.61, 0.854, 0.113, 162.7),
    "vidtok_kl_causal_288_8chn_v1_1": (34.59, 0.935, 0.051, 78.2),
    "vidtok_kl_causal_488_4chn_v1_1": None,
    "vidtok_fsq_causal_488_32768_v1_1": (29.39, 0.856, 0.114, 168.5),
    "vidtok_fsq_causal_888_32768_v1_1": (27.95, 0.817, 0.142, 293.2),
    "vidtok_fsq_causal_41616_262144_v1_1": None,
}


SHIPPED = ("vidtok_kl_causal_488_16chn_tiny", "vidtok_fsq_causal_488_32768_tiny")
"""Small models of version 1.1 whose weights come with this package; the first is the one to begin with."""

# The same for VidTwin.
_VIDTWIN: dict[str, _Known] = {"vidtwin_structure_7_7_8_dynamics_7_8": (28.14, None, None, None)}


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model that has a name: its configuration, weights and published quality."""

    name: str
    family: str
    """Its family: `vidtok` or `vidtwin`."""
    version: Literal["1.0", "1.1"]
    config: Path
    """The YAML file inside this package."""
    hub_repo: str | None
    """Repository on the Hugging Face Hub that holds the published weights; None: they come with this package."""
    hub_file: str | None
    """The weights' path inside `hub_repo`."""
    psnr: float | None = None
    """Published PSNR in dB, higher is better."""
    ssim: float | None = None
    """Published SSIM, higher is better."""
    lpips: float | None = None
    """Published LPIPS, lower is better."""
    fvd: float | None = None
    """Published FVD, lower is better."""


def package_folder() -> Path:
    """The folder of the installed package, which holds `configs/` and the weights that ship."""
    return Path(str(files("vidtok")))


@cache
def _models() -> dict[str, ModelEntry]:
    first = {name: _entry(name, scores) for name, scores in _PUBLISHED.items()}
    shipped = {name: _shipped_entry(name) for name in SHIPPED}
    return first | shipped | {name: _vidtwin_entry(name, scores) for name, scores in _VIDTWIN.items()}


def _entry(name: str, scores: _Scores | None) -> ModelEntry:
    later = name.endswith("_v1_1")
    psnr, ssim, lpips, fvd = scores or (None, None, None, None)
    folder = package_folder() / "configs"
    return ModelEntry(
        name=name,
        family="vidtok",
        version="1.1" if later else "1.0",
        config=(folder / "vidtok_v1_1" if later else folder) / f"{name}.yaml",
        hub_repo=HUB_REPO,
        hub_file=f"checkpoints/{'vidtok_v1_1/' if later else ''}{name}.ckpt",
        psnr=psnr,
        ssim=ssim,
        lpips=lpips,
        fvd=fvd,
    )


def _shipped_entry(name: str) -> ModelEntry:
    config = package_folder() / "configs" / f"{name}.yaml"
    return ModelEntry(name=name, family="vidtok", version="1.1", config=config, hub_repo=None, hub_file=None)


def _vidtwin_entry(name: str, scores: _Known) -> ModelEntry:
    psnr, ssim, lpips, fvd = scores
    return ModelEntry(
        name=name,
        family="vidtwin",
        version="1.0",
        config=package_folder() / "configs" / "vidtwin" / f"{name}.yaml",
        hub_repo=VIDTWIN_HUB_REPO,
        hub_file=f"checkpoints/{name}.ckpt",
        psnr=psnr,
        ssim=ssim,
        lpips=lpips,
        fvd=fvd,
    )


def models(family: str | None = None) -> dict[str, ModelEntry]:
    """All models, or all of `family`, that can be loaded by name, in the order of the published tables."""
    return {name: entry for name, entry in _models().items() if family in (None, entry.family)}


def entry(name: str) -> ModelEntry:
    """The model called `name`; an unknown name raises `ConfigError` with the names nearest to it."""
    known = _models()
    if name not in known:
        raise ConfigError(f"no model is called {name!r}{near(name, known)}; `vidtok models` lists all {len(known)}")
    return known[name]


def named_by_repo(source: str) -> str:
    """The name of the model in the published repository `source`; any other `source` is returned unchanged.

    Raises `ConfigError` if the repository holds several models.
    """
    names = [name for name, known in _models().items() if known.hub_repo == source]
    if len(names) > 1:
        raise ConfigError(f"{source} holds {len(names)} models; give the name of one, such as {names[0]}")
    return names[0] if names else source
