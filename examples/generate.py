"""A tiny next-token model on token files: train it, sample from it, decode the samples (docs/generation.md).

    python examples/generate.py TOKENS OUT --model MODEL

TOKENS is a folder of token files of one frame size, as `vidtok encode` writes them for a folder of videos.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vidtok
from vidtok import sequence, tokens
from vidtok.video import VideoWriter, to_uint8


class NextToken(nn.Module):
    """A causal transformer over tokens in raster order by frame, each token the digits of its channels."""

    def __init__(self, levels: tuple[int, ...], size: tuple[int, int, int], width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.levels, self.size = levels, size
        self.digits = nn.ModuleList(nn.Embedding(level, width) for level in levels)
        self.begin = nn.Parameter(torch.zeros(width))
        self.places = nn.ParameterList(nn.Parameter(0.02 * torch.randn(count, width)) for count in size)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.heads = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, level)) for level in levels)

    def context(self, tokens: Tensor) -> Tensor:
        """(B, N) tokens -> (B, N + 1, width): what is known before each of the tokens, and before the next one."""
        split = sequence.digits(tokens, self.levels)
        seen = sum(embed(split[..., i]) for i, embed in enumerate(self.digits))
        x = torch.cat([self.begin.expand(len(tokens), 1, -1), seen], 1)[:, : self.size[0] * self.size[1] * self.size[2]]
        t, y, x_ = (
            place.view(*[-1 if i == j else 1 for j in range(3)], x.shape[2]) for i, place in enumerate(self.places)
        )
        x = x + (t + y + x_).flatten(0, 2)[: x.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layers(x, mask=mask, is_causal=True)

    def loss(self, tokens: Tensor) -> Tensor:
        """Nats per token; each digit is predicted from the context and the token's digits before it."""
        split, h = sequence.digits(tokens, self.levels), self.context(tokens)
        total = h.new_zeros(())
        for i, (embed, head) in enumerate(zip(self.digits, self.heads, strict=True)):
            total = total + F.cross_entropy(head(h).flatten(0, 1), split[..., i].flatten())
            h = h + embed(split[..., i])
        return total

    @torch.no_grad()
    def sample(self, start: Tensor, temperature: float) -> Tensor:
        """The sequences `start` (B, N >= 0), continued to whole videos."""
        while start.shape[1] < self.size[0] * self.size[1] * self.size[2]:
            h, drawn = self.context(start)[:, -1], []
            for embed, head in zip(self.digits, self.heads, strict=True):
                drawn.append(torch.multinomial((head(h) / temperature).softmax(-1), 1)[:, 0])
                h = h + embed(drawn[-1])
            start = torch.cat([start, sequence.from_digits(torch.stack(drawn, -1), self.levels)[:, None]], 1)
        return start


def read_windows(folder: Path, length: int) -> tuple[Tensor, Tensor]:
    """Windows of `length` latent frames, (N, T', H', W'), of all token files below `folder`: to train on, and unseen.

    Of each file, the last tenth is unseen. A window may begin anywhere but at a file's first latent frame, which stands
    for one frame of video alone.
    """
    seen, unseen = [], []
    for path in sorted(folder.rglob("*.vtok")):
        with tokens.read(path) as file:
            video = file.read()[0, 1:]
        last = max(length, len(video) - max(length, len(video) // 10))
        seen += [video[at : at + length] for at in range(last - length + 1)]
        unseen += [video[at : at + length] for at in range(last, len(video) - length + 1)]
    if not unseen or len({window.shape for window in seen}) > 1:
        raise SystemExit(
            f"{folder}: expected token files of one frame size, each of at least {2 * length + 1} latent frames"
        )
    return torch.stack(seen), torch.stack(unseen)


def train(model: NextToken, data: Tensor, unseen: Tensor, steps: int, batch: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    started = time.perf_counter()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = model.loss(data[torch.randint(len(data), (batch,))])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 10) == 0:
            model.eval()
            with torch.no_grad():
                later = model.loss(unseen[:64]).item() / 0.6931
            model.train()
            bits, seconds = loss.item() / 0.6931, time.perf_counter() - started
            print(f"step {step}: {bits:.2f} bits a token, {later:.2f} on unseen frames, {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tokens", type=Path, help="folder of token files")
    parser.add_argument("out", type=Path, help="folder for the samples")
    parser.add_argument("--model", default="vidtok_fsq_causal_488_32768_tiny", help="the tokenizer that made the files")
    parser.add_argument("--frames", type=int, default=3, help="latent frames of a window")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0.9)
    options = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = vidtok.load(options.model)
    windows = read_windows(options.tokens, options.frames)
    seen, unseen = (sequence.flatten(part) for part in windows)
    size = (windows[0].shape[1], windows[0].shape[2], windows[0].shape[3])
    model = NextToken(tokenizer.config.bottleneck.levels, size)
    print(f"{len(seen)} windows of {seen.shape[1]} tokens, {sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, seen, unseen, options.steps, options.batch)
    model.eval()
    chosen = unseen[torch.linspace(0, len(unseen) - 1, 4).long()]
    continued = model.sample(chosen[:, : size[1] * size[2]], options.temperature)
    drawn = model.sample(chosen[:, :0], options.temperature)
    rows = sequence.unflatten(torch.cat([chosen, continued, drawn]), size[1:])
    with torch.no_grad():
        decoded = [to_uint8(tokenizer.decode(row[None], decode_from_indices=True)) for row in rows]
    options.out.mkdir(parents=True, exist_ok=True)
    for number, video in enumerate(decoded):
        with VideoWriter(options.out / f"{number}.mp4", 8) as writer:
            writer.write(video)
    strips = [torch.cat(list(torch.from_numpy(video[:: max(1, len(video) // 4)])), 1) for video in decoded]
    columns = [torch.cat(strips[at : at + 4], 0) for at in (0, 4, 8)]
    with VideoWriter(options.out / "sheet.png", 1) as writer:
        writer.write(torch.cat(columns, 1)[None].numpy())
    print(f"{options.out}/sheet.png: unseen frames; their first latent frame, continued; samples from nothing")


if __name__ == "__main__":
    main()
