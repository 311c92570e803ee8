"""Token files to arrays and back; writing and reading in one call."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.tokens.token_files import draw_values, make_header, write_file

from tiny import FSQ_1_1, FSQ_NONCAUSAL, KL_1_0, KL_NONCAUSAL, draw, leftovers, tiny_model
from vidtok import tokens
from vidtok.tokens import LATENT_CODINGS, TOKEN_CODINGS, TokenFileError, TokenWriter, export_file, import_file
from vidtok.video import to_float


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("coding", TOKEN_CODINGS + LATENT_CODINGS)
def test_there_and_back_is_the_same_file(coding: str, suffix: str, tmp_path: Path) -> None:
    header = make_header(coding)
    path, output = tmp_path / "a.vtok", tmp_path / f"a{suffix}"
    with TokenWriter(path, header) as writer:
        writer.write(draw_values(header, 11), [i**1.5 / 25 for i in range(41)])
        writer.finish(39)
    export_file(path, output)
    import_file(output, tmp_path / "b.vtok")
    assert (tmp_path / "b.vtok").read_bytes() == path.read_bytes()
    names = ["a.npy", "a.npy.json"] if suffix == ".npy" else ["a.safetensors"]
    assert leftovers(tmp_path) == [*names, "a.vtok", "b.vtok"]


def test_what_other_programs_see(tmp_path: Path) -> None:
    values = write_file(tmp_path / "a.vtok", make_header())[0]
    export_file(tmp_path / "a.vtok", tmp_path / "a.npy")
    array = np.load(tmp_path / "a.npy")
    assert array.dtype == np.int32
    assert (array == values.numpy()).all()
    side = json.loads((tmp_path / "a.npy.json").read_text())
    assert (side["frames"], side["times"], side["vidtok_header"]["model"]["name"]) == (41, None, "some model")
    latent = write_file(tmp_path / "b.vtok", make_header("bfloat16"))[0]
    export_file(tmp_path / "b.vtok", tmp_path / "b.safetensors")
    assert torch.equal(load_file(tmp_path / "b.safetensors")["latents"], latent.bfloat16())


def test_arrays_that_were_changed(tmp_path: Path) -> None:
    write_file(tmp_path / "a.vtok", make_header())
    export_file(tmp_path / "a.vtok", tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.load(tmp_path / "a.npy")[::-1].copy())
    import_file(tmp_path / "a.npy", tmp_path / "b.vtok")
    with tokens.read(tmp_path / "a.vtok") as before, tokens.read(tmp_path / "b.vtok") as after:
        assert torch.equal(after.read(), before.read().flip(1))


def test_what_cannot_be_exported_or_imported(tmp_path: Path) -> None:
    path = tmp_path / "a.vtok"
    write_file(path, make_header())
    for call in (lambda: export_file(path, tmp_path / "a.csv"), lambda: import_file(tmp_path / "a.csv", path)):
        with pytest.raises(TokenFileError, match=r"a.csv ends in '.csv'; expected one of .npy, .safetensors"):
            call()
    with pytest.raises(TokenFileError, match="no such folder"):
        export_file(path, tmp_path / "none" / "a.npy")
    with pytest.raises(TokenFileError, match=r"a.npy.json: no such file"):
        import_file(tmp_path / "a.npy", tmp_path / "b.vtok")
    export_file(path, tmp_path / "a.npy")
    export_file(path, tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", np.zeros((11, 3, 5)))
    with pytest.raises(TokenFileError, match=r"holds torch.float64 of shape \(11, 3, 5\); expected tokens of 3"):
        import_file(tmp_path / "a.npy", tmp_path / "b.vtok")
    for suffix in (".npy", ".safetensors"):
        (tmp_path / f"a{suffix}").write_bytes(b"junk")
        with pytest.raises(TokenFileError, match=f"a{suffix} is not what export_file wrote"):
            import_file(tmp_path / f"a{suffix}", tmp_path / "b.vtok")
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(TokenFileError, match="is not what export_file wrote"):
        import_file(tmp_path / "a.npy", tmp_path / "b.vtok")
    export_file(path, tmp_path / "a.npy")
    side = tmp_path / "a.npy.json"
    content = json.loads(side.read_text())
    content["vidtok_header"]["latent"]["coding"] = "morse"
    side.write_text(json.dumps(content))
    with pytest.raises(TokenFileError, match=r"a\.npy: .*morse"):
        import_file(tmp_path / "a.npy", tmp_path / "b.vtok")
    assert not (tmp_path / "b.vtok").exists()


def test_an_array_that_cannot_be_saved_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a.vtok", make_header())
    export_file(tmp_path / "a.vtok", tmp_path / "a.npy")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_file(tmp_path / "b.vtok", make_header("bfloat16"))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(TokenFileError, match="No space left"):
        export_file(tmp_path / "b.vtok", tmp_path / "a.npy")
    (tmp_path / "b.vtok").unlink()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", [KL_1_0, FSQ_1_1, KL_NONCAUSAL, FSQ_NONCAUSAL])
def test_a_decoded_file_is_what_the_model_makes_of_what_it_made(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    video = to_float(draw(18, 21, 35))
    z, log = model.encode(video, True, sample=False)
    discrete = "indices" in log
    path = tmp_path / "a.vtok"
    tokens.write(path, log.get("indices", z), model, size=(18, 21, 35), fps=24, coding=None if discrete else "float32")
    with tokens.read(path) as file:
        assert file.header.latent.coding == ("adaptive" if discrete else "float32")
        decoded = model.decode(file.read(), discrete, size=file.size)
    assert torch.equal(decoded, model.decode(z, size=(18, 21, 35)))


def test_how_values_are_stored_unless_said_otherwise(tmp_path: Path) -> None:
    assert tokens.default_coding(tiny_model(FSQ_1_1)) == "adaptive"
    assert tokens.default_coding(tiny_model(KL_1_0)) == "float16"
    assert tokens.default_coding(tiny_model(KL_1_0).bfloat16()) == "bfloat16"
    for name, coding, kind in ((KL_1_0, "packed", "a continuous latent"), (FSQ_1_1, "int8", "tokens")):
        with pytest.raises(TokenFileError, match=f"coding is '{coding}'; expected one of .*, as {name} makes {kind}"):
            tokens.write(tmp_path / "a", torch.zeros(1), tiny_model(name), size=(1, 8, 8), fps=1, coding=coding)
    with pytest.raises(TokenFileError, match=r"5 latent frames were written to .* for 99 frames; expected 14 to 17"):
        tokens.write(tmp_path / "a", torch.zeros(1, 4, 5, 1, 1), tiny_model(KL_1_0), size=(99, 8, 8), fps=1)
