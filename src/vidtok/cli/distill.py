"""`vidtok distill` and `vidtok preview`: light decoders for the latents of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidtok.cli.early import check_model
from vidtok.cli.options import model_names
from vidtok.cli.usage import COUNT
from vidtok.cli.verbosity import is_quiet

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": False}

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="The model whose latents are decoded: a name, a folder with a saved model or a run, OWNER/NAME.",
        autocompletion=model_names,
    ),
]
FolderOption = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The decoder's folder.")]


def distill(
    context: typer.Context,
    model: ModelArgument,
    output: FolderOption,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Videos to learn from, or token files of the model, for which its encoder is not loaded.",
            show_default="procedural clips",
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME|YAML", help="How to train: distill, on a CPU; distill_full, on a GPU.")
    ] = "distill",
    steps: Annotated[
        int | None, typer.Option(parser=COUNT, metavar="N", help="Steps to train.", show_default="as in the recipe")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The decoder's name.", show_default="MODEL-fast")] = None,
) -> None:
    """Train a fast decoder for a model's latents from the model's own decoder.

    The model itself stays as it is. `--decoder FOLDER` then takes the new decoder in other commands, and so does
    `vidtok.load(MODEL, decoder=FOLDER)`. The same command goes on with a run that was stopped, in FOLDER/run. Further
    arguments section.key=value replace values of the recipe, as for `vidtok train`.
    """
    check_model(model)

    from vidtok.errors import VidTokError

    others = [word for word in context.args if "=" not in word or word.startswith("-")]
    if others:
        raise VidTokError(f"{others[0]} is no option of `vidtok distill`; expected section.key=value; see --help")
    from vidtok.training.runs.entry import needing_lightning

    with needing_lightning():
        from vidtok.training.distillation.run import distilled

        folder = distilled(
            model, output, data=data, recipe=recipe, steps=steps, name=name, overrides=context.args, quiet=is_quiet()
        )
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    typer.echo(f"{folder}: a decoder for latents of {model}, {size:.1f} MB; use it with --decoder {folder}")


def preview(
    model: ModelArgument,
    output: FolderOption,
    clips: Annotated[int, typer.Option(parser=COUNT, metavar="N", help="Procedural clips to fit it on.")] = 16,
) -> None:
    """Fit the cheapest decoder of all, a linear projection of each latent position to its pixels.

    FOLDER is a decoder for `--decoder`. Its latent_rgb.json holds the projection to one colour a position, `factors`
    (channels x 3) and `bias` for RGB in -1..1, as samplers of other programs take it for progress pictures.
    """
    check_model(model)

    from vidtok.cli.progress import status
    from vidtok.training.distillation.preview import write_preview

    with status("fitting"):
        result = write_preview(model, output, clips=clips)
    typer.echo(
        f"{result.folder}: a linear preview of {model}, {result.psnr:.2f} dB on {result.clips} procedural clips that "
        f"it was not fitted on (the model: {result.full_psnr:.2f} dB)"
    )
