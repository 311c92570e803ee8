"""Reads many damaged checkpoints and saved models: `python -m tests.zoo.fuzzing COUNT SEED FOLDER`.

Checkpoints of `torch.save`, stored and deflated, are changed as files, or in their pickle and records, packed up again
with right checksums; safetensors and config.json as files. Reading and loading may give an error of ours or weights,
and nothing else. Prints, as JSON, how often which happened, the longest time and the most memory.
"""

from __future__ import annotations

import io
import json
import random
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fuzz import Figures, mutated
from vidtok.errors import CheckpointError, VidTokError
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.zoo.checkpoint import load_state, read_checkpoint, read_content
from vidtok.zoo.folder import read_folder, save_folder
from vidtok.zoo.int8 import quantized


def small() -> nn.Module:
    """Weights of a few kinds."""
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Conv1d(3, 2, 3))
    return model.requires_grad_(False)


def samples(folder: Path) -> list[tuple[str, bytes]]:
    """Files to change, by their suffix."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = small().state_dict()
    contents = [
        state,
        {"state_dict": state, "epoch": 3, "loops": {"a": [1, (2.5, None)]}, "optimizer_states": [{"state": {0: {}}}]},
        {"state_dict": quantized(state)},
        {name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in state.items()},
    ]
    found = []
    for content in contents:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        found.append((".ckpt", buffer.getvalue()))
    save_file(state, folder / "sample.safetensors")
    found.append((".safetensors", (folder / "sample.safetensors").read_bytes()))
    save_folder(folder / "sample", AutoencoderConfig(z_channels=4), {}, "sample")
    found.append((".json", (folder / "sample" / "config.json").read_bytes()))
    return found


def repacked(content: bytes, draw: random.Random) -> bytes:
    """An archive with changes in its pickle and records, and checksums that are right."""
    buffer = io.BytesIO()
    packed = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", packed) as new:
        for info in old.infolist():
            record, name = old.read(info), info.filename
            if name.endswith("data.pkl") or draw.random() < 0.05:
                record = mutated(record, draw)
            if draw.random() < 0.02:
                name = name[: draw.randrange(len(name))] or "x"
            if draw.random() < 0.01:
                record = bytes(draw.choice([1, 1 << 10, 1 << 24]))
            new.writestr(name, record)
    return buffer.getvalue()


def outcome(path: Path) -> str:
    """What reading the file at `path` gives, and giving it to a model."""
    if path.suffix == ".json":
        try:
            read_folder(path.parent)
            return "read"
        except VidTokError as error:
            return checked(error)
    try:
        state = read_checkpoint(path)
        load_state(small(), state, str(path))
        kind = "read"
    except CheckpointError as error:
        kind = checked(error)
    if path.suffix == ".ckpt":
        try:
            read_content(path)
        except CheckpointError as error:
            checked(error)
    return kind


def checked(error: VidTokError) -> str:
    """The error is one line, and not a long one."""
    assert "\n" not in str(error), str(error)
    assert len(str(error)) < 1200, str(error)
    return "refused"


def main(count: int, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    known = samples(folder)
    model = folder / "sample"
    (model / "model.safetensors").write_bytes(b"")
    for suffix, content in known:
        path = model / "config.json" if suffix == ".json" else folder / f"fuzzed{suffix}"
        path.write_bytes(content)
        assert outcome(path) == "read", suffix
    figures = Figures(folder)
    for _ in range(count):
        suffix, content = draw.choice(known)
        path = model / "config.json" if suffix == ".json" else folder / f"fuzzed{suffix}"
        if suffix == ".json" and draw.random() < 0.5:
            values = json.loads(content)
            values[draw.choice(list(values))] = draw.choice(
                [None, [], {}, "x" * 5000, 10**30, -1, 1e308, True, [[[]]], ["vidtok"], {"kind": ["kl"]}, [10**9] * 99]
            )
            path.write_text(json.dumps(values))
        elif suffix == ".ckpt" and draw.random() < 0.7:
            path.write_bytes(repacked(content, draw))
        else:
            path.write_bytes(mutated(content, draw))
        figures.take(lambda path=path: outcome(path), path)  # type: ignore[misc]
    figures.show()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
