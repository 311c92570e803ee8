"""`vidtok evaluate`: models and baselines measured side by side on a folder of videos."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_exists, check_model
from vidtok.cli.options import (
    DeviceOption,
    DType,
    DTypeOption,
    FpsOption,
    HeightOption,
    SizeOption,
    WidthOption,
    frame_size,
    load_model,
    model_names,
)
from vidtok.cli.usage import COUNT, SECONDS, SEED, WORKERS
from vidtok.cli.verbosity import hint
from vidtok.errors import VideoError
from vidtok.metrics.table import METRICS
from vidtok.text import counted

if TYPE_CHECKING:
    from vidtok.evaluation.evaluate import Evaluation, ModelMaker
    from vidtok.evaluation.results import Result

DataArgument = Annotated[
    Path, typer.Argument(help="A folder with videos below it, one video, or a list of them (.txt, .csv).")
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|YAML|FOLDER|HUB[=CHECKPOINT]|diffusers:FOLDER_OR_REPO[:SUBFOLDER]",
        autocompletion=model_names,
        help="A model, as for `vidtok encode`, with =CHECKPOINT for other weights, or an autoencoder of diffusers; may "
        "be repeated.",
    ),
]
DecodersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--decoder",
        metavar="full|fast|FOLDER",
        help="A decoder for the models, as for `vidtok decode`; repeated, each model is measured with each.",
        show_default="full",
    ),
]
BaselinesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        "-b",
        metavar="h264|h265|av1|h264-444|h265-444|pca",
        help="A codec at the models' bit rates and around them, or the linear block transform with as many values "
        "as each model; may be repeated.",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="A folder for results, report and the figures of finished videos.")
]
MetaOption = Annotated[
    Path | None,
    typer.Option(
        help="A CSV file whose column `videos` names files of DATA, or a text file of paths.", show_default="all"
    ),
]
StartOption = Annotated[
    float, typer.Option(parser=SECONDS, metavar="SECONDS", help="Seconds into each video to start at.")
]
MaxFramesOption = Annotated[
    int | None,
    typer.Option(parser=COUNT, metavar="N", help="Stop after this many frames of each video.", show_default="all"),
]
ClipFramesOption = Annotated[
    int | None,
    typer.Option(
        parser=COUNT,
        metavar="N",
        help="Cut videos into independent clips of this many frames, one more for causal models.",
        show_default="whole where possible",
    ),
]
FillOption = Annotated[
    bool, typer.Option("--fill", help="Repeat the last frame until the last clip is full, as published.")
]
SampleOption = Annotated[
    bool, typer.Option("--sample", help="Let KL models sample the posterior, as published, instead of taking its mode.")
]
SeedOption = Annotated[int, typer.Option(parser=SEED, metavar="N", help="Seed of the sampling noise.")]
TruncatedOption = Annotated[
    bool, typer.Option("--allow-truncated", help="Use the part of damaged videos that can be decoded.")
]
LPIPSOption = Annotated[
    Path | None, typer.Option(help="A file or folder with LPIPS's weights.", show_default="the usual places")
]
I3DOption = Annotated[
    Path | None, typer.Option(help="A file with I3D's weights, for FVD.", show_default="the usual places")
]
WorkersOption = Annotated[
    int,
    typer.Option(parser=WORKERS, metavar="N", help="Videos to read ahead, and to measure behind the model."),
]
ReportOption = Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")]


def evaluate(
    data: DataArgument,
    model: ModelsOption = None,
    decoder: DecodersOption = None,
    baseline: BaselinesOption = None,
    out: OutOption = Path("results"),
    meta: MetaOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    size: SizeOption = None,
    fps: FpsOption = None,
    start: StartOption = 0.0,
    max_frames: MaxFramesOption = None,
    clip_frames: ClipFramesOption = None,
    fill: FillOption = False,
    sample: SampleOption = False,
    seed: SeedOption = 42,
    allow_truncated: TruncatedOption = False,
    lpips: LPIPSOption = None,
    i3d: I3DOption = None,
    device: DeviceOption = None,
    dtype: DTypeOption = DType.float32,
    workers: WorkersOption = 2,
    report: ReportOption = True,
) -> None:
    """Measure models and baselines on the same frames: PSNR, SSIM, LPIPS, FVD, flicker, bits per pixel, codebook use.

    Writes OUT/NAME.json for each and OUT/report.html, one page with tables, plots, pictures and clips. The same command
    continues a run that was stopped; with more models, only the new ones are measured. Videos that cannot be read and
    metrics whose weights are missing are listed and left out.
    """
    height, width = frame_size(height, width, size)
    check_exists(data, "a folder with videos below it, one video, or a list of them", VideoError)
    from vidtok.zoo.diffusers_format import PREFIX

    own = [each for each in model or [] if not each.startswith(PREFIX)]
    for each in own:
        check_model(*_split(each))

    from vidtok.device import choose_device
    from vidtok.evaluation.evaluate import evaluate as measured
    from vidtok.evaluation.options import EvaluationOptions

    options = EvaluationOptions(
        height=height, width=width, fps=fps, start=start, max_frames=max_frames, clip_frames=clip_frames, fill=fill,
        allow_truncated=allow_truncated, sample=sample, seed=seed,
    )  # fmt: skip
    makers = [
        _maker(each, name, device, dtype)
        for each in model or []
        for name in (decoder or ["full"] if each in own else ["full"])
    ]
    try:
        evaluation = measured(
            data, makers, out,
            baselines=list(dict.fromkeys(baseline or [])), options=options, meta=meta, lpips=lpips, i3d=i3d,
            device=choose_device(device), workers=workers, report=report, announce=_announce,
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"stopped; finished figures are kept in {out}, and the same command goes on from there", err=True)
        raise
    typer.echo(_text(evaluation))


def _announce(title: str, videos: int) -> AbstractContextManager[Callable[[float], None]]:
    """Progress while `title` is measured; where stderr is no terminal, it begins with a line."""
    from vidtok.cli.progress import progress_bar

    if not sys.stderr.isatty():
        hint(f"{title}: {counted(videos, 'video')}")
    return progress_bar(title, videos, "videos", both=True)


def _split(text: str) -> tuple[str, Path | None]:
    """The model and the checkpoint of `--model TEXT`; a path may hold an equals sign itself."""
    source, _, weights = (text, "", "") if Path(text).exists() else text.partition("=")
    return source, Path(weights) if weights else None


def _maker(text: str, decoder: str, device: str | None, dtype: DType) -> ModelMaker:
    """A function that loads the model of `--model TEXT` with the decoder of `--decoder`."""
    from vidtok.device import choose_device
    from vidtok.evaluation.autoencoders import AutoencoderSubject
    from vidtok.evaluation.subjects import LatentSubject, ModelSubject
    from vidtok.interop.autoencoders import load_autoencoder
    from vidtok.models.decoders.base import own_decoder
    from vidtok.zoo.diffusers_format import PREFIX

    if text.startswith(PREFIX):
        return lambda: AutoencoderSubject(load_autoencoder(text, device=choose_device(device), dtype=dtype.torch))

    source, checkpoint = _split(text)

    def make() -> LatentSubject:
        model = load_model(source, checkpoint, device, dtype, decoder=decoder)
        own = checkpoint is not None and checkpoint.stem != model.name
        name = f"{model.name}={checkpoint.stem}" if checkpoint and own else model.name
        return ModelSubject(model, name if own_decoder(model) is None else f"{name}+{model.decoder_name}")

    return make


def _text(evaluation: Evaluation) -> str:
    rows = [("", "bits/pixel", *(metric.label for metric in METRICS.values()), "codes used")]
    rows += [_row(result) for result in evaluation.results]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    first = evaluation.results[0].content
    lines += ["", f"{counted(first['data']['videos'], 'video')}, {counted(first['data']['frames'], 'frame')}"]
    missing = evaluation.results[0].unavailable()
    lines += [f"{label} is not measured: {reason}" for label, reason in missing.items()]
    lines += [line for result in evaluation.results for line in _off_rate(result)]
    lines += [f"left out: {each['reason']}" for each in first["data"]["unreadable"]]
    lines += [f"results: {evaluation.files[0].parent}/*.json"]
    if evaluation.report is not None:
        lines.append(f"report:  {evaluation.report}")
    return "\n".join(line.rstrip() for line in lines)


def _off_rate(result: Result) -> list[str]:
    """A line if a codec did not reach the rate that it was asked for."""
    from vidtok.evaluation.comparison import SAME_RATE

    target = result.content["subject"].get("target_bits_per_pixel")
    if target is None or 1 / SAME_RATE <= result.bits_per_pixel / target <= SAME_RATE:
        return []
    why = "does not come closer on these videos"
    return [f"{result.name} is not at its rate: {result.bits_per_pixel:.4f} bits per pixel, the codec {why}"]


def _row(result: Result) -> tuple[str, ...]:
    means = ((metric, result.mean(metric.name)) for metric in METRICS.values())
    cells = ["-" if mean is None else metric.text(mean) for metric, mean in means]
    codebook = result.content["codebook"]
    used = "" if codebook is None else f"{codebook['used']:,} of {codebook['size']:,}"
    return (result.name, f"{result.bits_per_pixel:.4f}", *cells, used)
