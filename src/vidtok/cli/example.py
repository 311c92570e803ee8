"""`vidtok example`: a first reconstruction, with nothing given and nothing downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.options import DeviceOption

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer

_SMALL = 20_000_000
_FRAMES_OF_LARGE = 17

_UNTRAINED = """\
No trained weights are on this machine, so the model that was used is untrained: its weights are random. The left half
of the video is the clip, the right half is what random weights make of it: coloured noise. Its PSNR and SSIM say
nothing about the models of this package. For a real reconstruction, name a model, whose weights are then downloaded,
or give its checkpoint:
  vidtok reconstruct {clip} -o {output} --side-by-side --model vidtok_kl_causal_488_16chn_v1_1 [--checkpoint PATH]"""


def example(
    folder: Annotated[Path, typer.Option(help="Where to put the clip, the reconstruction and the model.")] = Path(
        "example"
    ),
    device: DeviceOption = None,
) -> None:
    """Make a short clip and reconstruct it, to see that everything works.

    Uses the first model whose weights are on this machine. If there are none, a small model with random weights is
    written and used, which shows that everything runs, but makes only coloured noise.
    """
    from vidtok.cli.report import progress_bar, summary
    from vidtok.device import choose_device
    from vidtok.errors import VideoError
    from vidtok.example import write_clip
    from vidtok.reconstruction import ReconstructionJob

    choose_device(device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoError(f"{folder} cannot be made: {error.strerror}; choose another folder with --folder") from error
    clip = write_clip(folder / "clip.mp4")
    model, trained = _any_model(folder, device)
    large = sum(weight.numel() for weight in model.parameters()) > _SMALL and model.device.type == "cpu"
    output = folder / "reconstructed.mp4"
    job = ReconstructionJob(clip, output, side_by_side=True, max_frames=_FRAMES_OF_LARGE if large else None)
    with progress_bar("reconstructing", job.frame_estimate) as progress:
        result = job.run(model, progress)
    typer.echo(summary(result, model))
    if not trained:
        typer.echo("\n" + _UNTRAINED.format(clip=clip, output=output))


def _any_model(folder: Path, device: str | None) -> tuple[Tokenizer, bool]:
    """The first model whose weights are at hand, else one with random weights; and whether it is trained."""
    import vidtok
    from vidtok.device import choose_device
    from vidtok.example import save_untrained
    from vidtok.zoo.registry import models, weights_at_hand

    place = choose_device(device)
    at_hand = next((name for name, entry in models().items() if weights_at_hand(entry)), None)
    if at_hand is not None:
        return vidtok.load(at_hand, device=place), True
    return vidtok.load(save_untrained(folder / "untrained"), device=place), False
