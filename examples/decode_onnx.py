"""Decode a token file with ONNX graphs: NumPy, onnxruntime and PyAV alone, without this package and PyTorch.

vidtok encode in.mp4 -o in.vtok --model MODEL --coding packed        # latents: --coding float16
vidtok export MODEL graphs --format onnx --part decode
python examples/decode_onnx.py in.vtok graphs out.mp4                # docs/export.md
"""

import json
import math
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnxruntime


def read(path):
    """The header of a token file, its number of frames, and its tokens (1, T', H', W') or latent (1, z, T', H', W')."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    header, at, chunks = json.loads(data[24 : 24 + length]), 24 + length, []
    total = 0
    latent = header["latent"]
    while data[at : at + 4] == b"CHNK":
        size, _, frames, shown, flags = struct.unpack_from("<IQIII", data, at + 4)
        payload = data[at + 36 + 8 * shown * (flags & 1) : at + 36 + size]
        shape = (frames, latent["height"], latent["width"])
        if latent["coding"] in ("float16", "float32"):
            values = np.frombuffer(payload, "<f" + latent["coding"][-2:].replace("16", "2").replace("32", "4"))
            chunks.append(values.astype(np.float32).reshape(1, latent["channels"], *shape))
        elif latent["coding"] == "packed" or flags & 2:
            bits = max(1, math.ceil(math.log2(math.prod(latent["levels"]))))
            packed = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")[: math.prod(shape) * bits]
            chunks.append((packed.reshape(-1, bits).astype(np.int64) @ (1 << np.arange(bits))).reshape(1, *shape))
        else:
            sys.exit(f"{path} is coded as {latent['coding']}; encode with --coding packed, float16 or float32")
        at, total = at + 36 + size, total + shown
    return header, total, np.concatenate(chunks, -3)


def decode(values, folder):
    """The video (1, 3, T, H, W) of all latent frames, piece by piece."""
    described = json.loads(Path(folder, "decode.json").read_text())
    state, at = {}, 0
    phases = ["first" if described["delay"] == 0 or values.shape[-3] > 1 else "single"]
    for phase in phases:
        graph = described["graphs"][phase]
        session = onnxruntime.InferenceSession(Path(folder, graph["file"]))
        while phase == "end" or at < values.shape[-3]:
            feed, asked = dict(state), [output["name"] for output in graph["outputs"]]
            if phase != "end":
                value = graph["inputs"][0]
                count = value["shape"][value["frames_axis"]]
                feed[value["name"]] = values[..., at : at + count, :, :].astype(value["dtype"])
                at += count
            results = dict(zip(asked, session.run(asked, feed), strict=True))
            state = {taken: results[given] for given, taken in graph["state"]}
            yield results["video"]
            if phase != "next":
                break
        if phase == "first":
            phases += ["next", "end"] if described["delay"] else ["next"]


def main(source, folder, output):
    header, left, values = read(source)
    video = header["video"]
    with av.open(output, "w") as container:
        stream = container.add_stream("libx264", Fraction(*video["fps"]), options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = video["width"], video["height"], "yuv420p"
        for piece in decode(values, folder):
            frames = ((piece[0].clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 3, 0)
            for frame in frames[:left, : video["height"], : video["width"]]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
            left -= len(frames[:left])
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(*sys.argv[1:])
