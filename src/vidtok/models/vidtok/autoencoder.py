"""The VidTok autoencoder (Tang et al., arXiv 2412.13061): its networks, joined to meet the contract."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidtok.models.base import VideoModel
from vidtok.models.bottleneck import make_bottleneck
from vidtok.models.padding import Padding
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtok.networks import Decoder, Encoder, ResidualBlock
from vidtok.models.vidtok.receptive import first_exact_frame, unsettled_latents
from vidtok.models.vidtok.rescaling import rescale
from vidtok.models.vidtok.spatial import Attention


class VideoAutoencoder(VideoModel):
    """Encoder, bottleneck and decoder, as a checkpoint of the family holds them; clips of any size.

    Clips whose size does not fit are padded with copies of the last frame, row and column, and the decoded video is
    cropped. Models of version 1.1 can be padded with copies of the first frame instead (`padding`). A picture is a clip
    of one frame.

    Attributes:
        encoder, decoder, regularization: its parts; `encoder` and `decoder` may be replaced by compiled ones.
        use_tiling: with a causal model and without gradients, compute long clips in chunks of `t_chunk_enc` frames and
            `t_chunk_dec` latent frames. The result equals the whole clip's, and activations are small either way. This
            cuts time; `tiling` cuts space.
        use_overlap: accepted for the published snippets, without effect. Chunks need no overlap, since each goes on
            from the state that the one before has left.
    """

    sharded_blocks = (ResidualBlock, Attention)

    config: AutoencoderConfig
    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.regularization = make_bottleneck(config.bottleneck)
        self.use_tiling = False
        self.use_overlap = False
        self.t_chunk_enc = 16
        self.t_chunk_dec = max(1, self.t_chunk_enc // config.temporal_factor)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the layer that makes the video."""
        return next(p for name, p in self.decoder.conv_out.named_parameters() if name.endswith("weight"))

    @property
    def published_padding(self) -> Padding:
        return "front" if self.config.temporal_padding == "first_frame" else "end"

    @property
    def delay(self) -> int:
        return self.decoder.delay

    @property
    def encoder_look_back(self) -> int:
        return unsettled_latents(self.encoder)

    @property
    def decoder_look_back(self) -> int:
        return first_exact_frame(self.decoder, 1) - self.temporal_factor

    def decoder_stages(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.decoder.stages(self.latent(z))

    def _frames_at_a_time(self, *, encodes: bool) -> int | None:
        if not self.use_tiling or not self.is_causal or torch.is_grad_enabled():
            return None
        factor = self.temporal_factor
        return max(1, self.t_chunk_enc // factor) * factor if encodes else max(1, self.t_chunk_dec)

    def rescale(self, video: Tensor) -> None:
        rescale(self.encoder, video)
        rescale(self.decoder, self.encode(video, sample=False))
