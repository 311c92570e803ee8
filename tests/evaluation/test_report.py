"""The whole of an evaluation by its command, and the page it writes, opened in a browser where there is one."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import FSQ_1_1, KL_1_1, ModelFiles, write_model, write_video
from vidtok.cli import main
from vidtok.evaluation.linear import BlockTransform
from vidtok.evaluation.results import Result
from vidtok.video import to_float

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder, name) for name in (FSQ_1_1, KL_1_1)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "0 <i>.mp4", 9, 64, 64)
    write_video(folder / "1.mp4", 6, 64, 64)
    (folder / "2.mp4").write_bytes(b"nothing")
    return folder


def option(files: ModelFiles) -> list[str]:
    return ["--model", f"{files.config}={files.checkpoint}"]


@pytest.fixture(scope="module")
def evaluated(
    models: dict[str, ModelFiles], videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder that an evaluation of two models and two baselines wrote, and what it printed."""
    import contextlib
    import io

    out = tmp_path_factory.mktemp("out") / "results"
    printed = io.StringIO()
    patch = pytest.MonkeyPatch()
    clips = [to_float(torch.randint(0, 256, (17, 32, 32, 3), dtype=torch.uint8))]
    patch.setattr(BlockTransform, "fit_synthetic", classmethod(lambda cls, shape: cls.fit(shape, clips)))
    patch.setattr("vidtok.metrics.lpips.find_weights", _none)
    with contextlib.redirect_stdout(printed), torch.no_grad():
        code = main(
            ["evaluate", str(videos), *option(models[FSQ_1_1]), *option(models[KL_1_1]), "--baseline", "h264",
             "--baseline", "pca", "--size", "64", "--out", str(out)]
        )  # fmt: skip
    patch.undo()
    assert code == 0
    return out, printed.getvalue()


def _none(*arguments: object) -> None:
    from vidtok.metrics.lpips import LPIPSWeightsError

    raise LPIPSWeightsError("LPIPS lacks VGG16; put it somewhere")


def test_models_and_baselines_are_measured_on_the_same_frames(evaluated: tuple[Path, str]) -> None:
    out, printed = evaluated
    results = {result.name: result for result in map(Result.read, out.glob("*.json"))}
    assert {FSQ_1_1, KL_1_1, "pca-8x8x8-5", "pca-4x8x8-4"} < set(results)
    codecs = [result for result in results.values() if result.kind == "codec"]
    assert {match for result in codecs for match in result.content["subject"]["matches"]} == {FSQ_1_1, KL_1_1}
    assert len(codecs) > 3
    assert len({result.content["data"]["sha256"] for result in results.values()}) == 1
    for result in codecs:
        for name in result.content["subject"]["matches"]:
            for video, other in zip(result.videos, results[name].videos, strict=True):
                met = video["bits"] == pytest.approx(other["bits"], rel=0.1)
                assert met or video["details"]["crf"] in (1, 51)
    off = [
        each.name for each in codecs
        if not 1 / 1.05 < each.bits_per_pixel / each.content["subject"]["target_bits_per_pixel"] < 1.05
    ]  # fmt: skip
    lines = printed.splitlines()
    assert sorted(off) == sorted(line.split(" is not at its rate: ")[0] for line in lines if "at its rate" in line)
    assert 0 < len(off) < len(codecs)
    assert lines[0].split() == ["bits/pixel", "PSNR", "SSIM", "LPIPS", "FVD", "flicker", "codes", "used"]
    assert len(lines) > len(results)
    assert "2 videos, 15 frames" in lines
    assert "LPIPS is not measured: LPIPS lacks VGG16; put it somewhere" in lines
    assert any(line.startswith("left out: ") and "2.mp4" in line for line in lines)
    assert f"report:  {out / 'report.html'}" in lines


def test_running_again_measures_nothing_anew(
    evaluated: tuple[Path, str], models: dict[str, ModelFiles], videos: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, printed = evaluated
    monkeypatch.setattr("vidtok.metrics.lpips.find_weights", _none)
    monkeypatch.setattr("vidtok.evaluation.runner._Job._put_through", None)
    arguments = [*option(models[FSQ_1_1]), *option(models[KL_1_1]), "--size", "64", "--out", str(out)]
    # The one that cannot be read is tried again.
    readable = videos.parent / "meta.csv"
    readable.write_text("videos\n0 <i>.mp4\n1.mp4\n")
    assert main(["evaluate", str(videos), *arguments, "--meta", str(readable), "--no-report"]) == 0
    again = capsys.readouterr().out.splitlines()
    for line in printed.splitlines()[1:3]:
        assert re.sub(" +", " ", line) in [re.sub(" +", " ", other) for other in again]


def test_two_models_of_one_name_are_told_apart(
    models: dict[str, ModelFiles], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copy(models[KL_1_1].checkpoint, tmp_path / "step9.ckpt")
    arguments = [*option(models[KL_1_1]), *option(models[KL_1_1]), "--model", f"{models[KL_1_1].config}={other}"]
    done = main(
        ["evaluate", str(videos / "1.mp4"), *arguments, "--size", "32", "--out", str(tmp_path / "out"), "--no-report"]
    )
    assert done == 0
    printed = capsys.readouterr()
    names = [line.split("  ")[0] for line in printed.out.splitlines()[1:4]]
    assert names == [KL_1_1, f"{KL_1_1} #2", f"{KL_1_1}=step9"]
    assert not (tmp_path / "out" / "report.html").exists()
    assert printed.err.splitlines() == [f"{name}: 1 video" for name in names]


def test_compare(evaluated: tuple[Path, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, _ = evaluated
    assert main(["compare", str(out / f"{FSQ_1_1}.json"), str(out / f"{KL_1_1}.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"A  {FSQ_1_1}, ")
    assert lines[2] == "2 videos in both"
    rows = {line.split("  ")[0]: line for line in lines[6:-2]}
    assert {"PSNR (dB)", "SSIM", "flicker (levels of 255)"} == set(rows)
    assert "0.500  not significant" in rows["PSNR (dB)"]
    assert lines[3] == "not at the same rate: the bits alone may make the difference"
    assert lines[-1] == "With fewer than 6 videos no difference can be significant: measure more."
    content = json.loads((out / f"{KL_1_1}.json").read_text())
    content["videos"] = content["videos"][:1]
    content["videos"][0]["sha256"] = "0"
    (tmp_path / "one.json").write_text(json.dumps(content))
    assert main(["compare", str(out / f"{FSQ_1_1}.json"), str(tmp_path / "one.json")]) == 0
    text = capsys.readouterr().out
    assert "With fewer than 6 videos" not in text
    assert "not the same frames in 1 of them, such as 0 <i>.mp4: other settings, or other files" in text
    assert "One video says nothing about significance: measure more." in text
    assert main(["compare", str(tmp_path / "none.json"), str(tmp_path / "one.json")]) == 2
    assert "none.json: no such file" in capsys.readouterr().err


def test_codecs_alone_have_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "a.mp4", 5, 64, 64)
    assert main(["evaluate", str(tmp_path / "a.mp4"), "-b", "h264", "--size", "64", "-o", str(tmp_path / "out")]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()
    names = [Result.read(path).name for path in (tmp_path / "out").glob("*.json")]
    assert len(names) > 1
    assert all(name in printed and name in page for name in names)


def test_errors_of_the_command(
    models: dict[str, ModelFiles], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        assert main(["evaluate", *arguments, "--out", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    assert "there is nothing to measure; give at least one model or baseline" in run(str(videos))
    assert "there is no baseline 'vhs'; expected one of h264" in run(str(videos), "--baseline", "vhs")
    assert "error: --fps is -2; expected a rate from 0.00001" in run(str(videos), "--fps", "-2", "-b", "pca")
    assert "give their length too (--clip-frames" in run(str(videos), "--fill", *option(models[KL_1_1]))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"nothing")
    failed = run(str(tmp_path / "bad"), *option(models[KL_1_1]))
    assert f"the only video of {tmp_path / 'bad'} cannot be read:" in failed
    assert "is neither a video nor a picture" in failed
    missing = ["--model", f"{models[KL_1_1].config}={tmp_path / 'none.ckpt'}"]
    assert "none.ckpt does not exist" in run(str(videos), *missing)
    (tmp_path / "weights.pth").write_text("nothing")
    for network in ("--lpips", "--i3d"):
        given = run(str(videos), *option(models[KL_1_1]), network, str(tmp_path / "weights.pth"))
        assert re.search(r"weights\.pth cannot be read as weights \([^)]*[a-z]", given)
        assert "weights_only" not in given
    assert not (tmp_path / "out").exists()


def test_an_interruption_says_how_to_go_on(
    models: dict[str, ModelFiles], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vidtok.evaluation.runner._Job._put_through", stop)
    out = tmp_path / "out"
    assert main(["evaluate", str(videos), *option(models[KL_1_1]), "--out", str(out)]) == 130
    assert f"finished figures are kept in {out}, and the same command goes on from there" in capsys.readouterr().err


def test_the_page_needs_nothing_else(evaluated: tuple[Path, str]) -> None:
    page = (evaluated[0] / "report.html").read_text()
    assert "<script" not in page
    addresses = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^")\s]{1,40})', page)
    assert addresses
    assert all(address.startswith(("data:image/webp;base64,", "data:video/mp4;base64,")) for address in addresses)
    assert "0 &lt;i&gt;.mp4" in page
    assert "0 <i>.mp4" not in page
    for title in ("Figures", "Quality over rate", "PSNR over time", "Best and worst frames", "Codebook"):
        assert f">{title}</h2>" in page
    pictures = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    assert all(base64.b64decode(picture)[8:12] == b"WEBP" for picture in pictures)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is installed: see docs/evaluation.md for how to install one")
    with playwright.sync_playwright() as session:
        opened = session.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(width: int, scheme: str, browser: Any, evaluated: tuple[Path, str]) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.goto((evaluated[0] / "report.html").as_uri())
    assert page.title().startswith("Evaluation: ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg.chart").count() >= 5
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 64)")
    # What matters is that this browser decodes the clips: a codec that it lacks leaves them without a size.
    page.wait_for_function("[...document.querySelectorAll('video')].every(video => video.videoWidth === 192)")
    page.evaluate("document.querySelector('video').play()")
    page.wait_for_function("document.querySelector('video').currentTime > 0")
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert (red + green + blue > 600) == (scheme == "light")
    assert complaints == []
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('video')).display") == "none"
    context.close()


def test_models_are_ranked_within_a_rate(evaluated: tuple[Path, str]) -> None:
    from vidtok.evaluation.report import _Page, rate_groups
    from vidtok.metrics.table import METRICS

    content = json.loads((evaluated[0] / f"{KL_1_1}.json").read_text())

    def model(name: str, rate: float, psnr: float, videos: int = 2) -> Result:
        changed = json.loads(json.dumps(content))
        changed["subject"]["name"] = name
        changed["rate"]["bits_per_pixel"] = rate
        changed["overall"]["psnr"]["mean"] = psnr
        changed["timing"]["this_run"]["videos"] = videos
        return Result(changed)

    results = [model("a", 0.5, 30), model("b", 0.1, 20), model("c", 0.104, 21), model("d", 0.51, 29, videos=1)]
    assert [[result.name for result in group] for group in rate_groups(results)] == [["b", "c"], ["a", "d"]]
    page = _Page(results, {})
    assert [result.name for result in results if page.is_best(result, METRICS["psnr"])] == ["a", "c"]
    assert [heading for heading, _ in page.sections] == [
        "models at 0.1000 to 0.1040 bits per pixel", "models at 0.5000 to 0.5100 bits per pixel",
    ]  # fmt: skip
    alone = _Page([results[0], results[1]], {})
    assert not any(alone.is_best(result, metric) for result in alone.results for metric in METRICS.values())
    assert [page.is_earlier(result) for result in results] == [False, False, False, True]
    assert "d" not in [name for _, _, legend in page.speed_charts() for _, name in legend]


def test_the_page_shows_speed_memory_and_why_codecs_have_more(evaluated: tuple[Path, str]) -> None:
    page = (evaluated[0] / "report.html").read_text()
    assert ">Quality over time to compute</h2>" in page
    assert "seconds a frame, encoding and decoding" in page
    assert page.count("A codec has more decibels than a tokenizer at the same bits") == 1
    found = Result.read(evaluated[0] / f"{KL_1_1}.json").content["memory"]
    assert found["kind"] == "process"
    assert found["peak_bytes"] is None or found["peak_bytes"] > 1 << 26
