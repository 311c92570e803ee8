"""The Lightning module: a model and its objective, optimised in turn.

A batch makes one optimisation of the generator (encoder, decoder, logvar) and, if the objective is adversarial, one of
the discriminator, on the same reconstruction. Lightning's `global_step` counts both, as the published configurations
do.

    video -> model -> reconstruction -> objective 0 -> gradients -> clip -> generator's step
                            |                                                 |
                            +---------> objective 1 -> gradients -> clip -> discriminator's step
"""

from __future__ import annotations

import contextlib
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from vidtok.errors import TrainingError
from vidtok.metrics.image import SSIM_SMALLEST_SIDE, psnr, ssim
from vidtok.models.base import VideoModel
from vidtok.models.bottleneck import RegLog
from vidtok.training.config import TrainingConfig
from vidtok.training.ema import MovingAverages
from vidtok.training.guide import TransformGuide
from vidtok.training.objective.losses import Log, Objective
from vidtok.training.optimization import clip_gradients, make_optimizer
from vidtok.training.published_runs import Holding, is_published, taken_over
from vidtok.training.sharding import average_gradients, reshard, shard, synchronize

PUBLISHED_NAMES = {
    "train/aeloss": "train/total_loss",
    "train/discloss": "train/disc_loss",
    "train/rec_loss_step": "train/rec_loss",
    "lr_abs": "lr/generator",
}
"""Names of scalars in runs of the original, logged beside this package's own."""
_STEPS_PER_BATCH = 2
"""Steps that the objective counts for a batch, whether or not there is a discriminator."""

SECTIONS = ("forward", "generator's objective", "backward", "discriminator", "optimizers")
"""Parts of a training step, by their names in the trainer's profiler."""


class TrainingModule(LightningModule):
    """Trains `model` on `objective`.

    Its state dict has the names of a published checkpoint: the model's, such as `encoder.*` and `decoder.*`, `loss.*`
    and, with `ema_decay`, `model_ema.*`. Batches are mappings with `video` (B, 3, T, H, W), float, -1..1, and
    `name`, the files of the B clips.

    All randomness of a batch follows from `seed`, the rank and the number of batches done, so a resumed run goes on as
    one that was never interrupted.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(
        self,
        model: VideoModel,
        objective: Objective,
        settings: TrainingConfig,
        *,
        learning_rate: float | None = None,
        accumulate: int = 1,
        clip_norm: float | None = 20.0,
        seed: int = 23,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # The model's parts are registered here under their published names, so the model itself must not be.
        self.__dict__["model"] = model
        for name, child in model.named_children():
            self.add_module(name, child)
        self.loss = objective
        model.regularization.want([name for name, weight in objective.config.regularization_weights.items() if weight])
        self.settings = settings
        self.learning_rate = settings.base_learning_rate if learning_rate is None else learning_rate
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.seed = seed
        self.model_ema: MovingAverages | None = None
        fixed = {"fix_encoder": settings.fix_encoder, "fix_decoder": settings.fix_decoder}
        model.note_frozen([name for name, is_fixed in fixed.items() if is_fixed])
        for part in self._frozen_parts():
            part.requires_grad_(False)
        if not objective.config.is_adversarial:
            objective.discriminator.requires_grad_(False)
        self._make_averages()
        self._guide = TransformGuide.fit(model.config, model.regularization) if settings.guide_steps else None
        if settings.compile_model:
            if objective.config.is_adversarial:
                self._leave_last_layer_eager()
            # for the one shape that training has; a network for all shapes is slower, where it compiles at all
            self.encoder.compile(dynamic=False)
            self.decoder.compile(dynamic=False)
        self._accumulated = 0
        self._codes_used: dict[str, Tensor] = {}

    @property
    def model(self) -> VideoModel:
        """The model that is trained; it knows nothing of its training."""
        return cast(VideoModel, self.__dict__["model"])

    @property
    def validation_metrics(self) -> list[str]:
        """The names under which validation logs its figures, such as `val/rec_loss`."""
        names = ["rec_loss", "nll_loss", "total_loss", "logvar", "psnr", "ssim"]
        if self.model.regularization.discrete:
            names += ["codebook_use", "codebook_perplexity"]
        elif "kl_loss" in self.loss.config.regularization_weights:
            names.append("kl_loss")
        if self.loss.config.perceptual_weight:
            names.append("p_loss")
        if self.loss.config.is_adversarial:
            names += ["g_loss", "disc_loss", "logits_real", "logits_fake"]
        splits = ["val"] if self.model_ema is None else ["val", "val_ema"]
        return [f"{split}/{name}" for split in splits for name in names]

    @property
    def batches_done(self) -> int:
        """Optimisations of the generator so far."""
        return int(self.global_step) // (2 if self.loss.config.is_adversarial else 1)

    @property
    def is_mid_accumulation(self) -> bool:
        """True if gradients are held that no step has used yet."""
        return self._accumulated > 0

    def configure_model(self) -> None:
        """Shard the model if the strategy asks for it."""
        mesh = self.device_mesh
        if mesh is None or isinstance(self.encoder, FSDPModule):
            return
        for part in (self.encoder, self.decoder):
            shard(part, mesh["data_parallel"], self.model.sharded_blocks, keep=self.model.last_layer)
        self._make_averages()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        rate = self.learning_rate
        generator = [*(p for _, p in self._trained_weights()), *self.loss.generator_parameters()]
        optimizers = [make_optimizer(generator, self.settings, rate * self.settings.lr_g_factor)]
        if self.loss.config.is_adversarial:
            optimizers.append(make_optimizer(self.loss.discriminator_parameters(), self.settings, rate))
        return optimizers

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Brings a checkpoint of the original implementation into this module's form."""
        checkpoint.update(self.resumable(checkpoint, "the checkpoint"))

    def resumable(self, content: dict[str, Any], source: str) -> dict[str, Any]:
        """The content of a run's checkpoint, read from `source`, in this module's form.

        Raises `CheckpointError` if it is of a run of the original that this module cannot go on with.
        """
        if not is_published(content):
            return content
        trained = [[*(name for name, _ in self._trained_weights())]]
        if self.loss.generator_parameters():
            trained[0].append("loss.logvar")
        if self.loss.config.is_adversarial:
            trained.append([name for name, _ in self.named_parameters() if name.startswith("loss.discriminator.")])
        names = frozenset(name for name, _ in self.named_parameters())
        own = Holding(self.state_dict(), names, trained, self.model.derived, self.settings.optimizer)
        return taken_over(content, own, source)

    def train(self, mode: bool = True) -> TrainingModule:
        """Set the training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def forward(self, video: Tensor) -> Tensor:
        """The reconstruction of `video` (B, 3, T, H, W), from the posterior's mode where there is one."""
        reconstruction: Tensor = self.model(video, sample=False)[1]
        return reconstruction

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """One batch: gradients of both parts, and every `accumulate` batches their steps.

        The trainer's profiler is told of the sections named in `SECTIONS`.
        """
        video, timed = batch["video"], cast(Any, self.trainer).profiler.profile
        self._seed_batch()
        step = self.batches_done
        is_last = self._accumulated + 1 >= self.accumulate
        guide = self._guide if step < self.settings.guide_steps else None
        with timed("forward"):
            if guide is None:
                reconstruction, reg_log = self._reconstructed(batch, step)
            else:
                moments = self.model.moments(video)
                reconstruction = self.model.decode(guide.latent(video), size=video.shape[2:])
        with timed("generator's objective"):
            at = _STEPS_PER_BATCH * step
            if guide is None:
                loss, log = self.loss(reg_log, video, reconstruction, 0, at, last_layer=self.model.last_layer)
                more = self._more_losses()
                loss = sum(more.values(), loss)
                log |= {f"train/{name}": value.detach() for name, value in more.items()}
            else:
                loss, parts = guide.loss(moments, reconstruction, video)
                loss = loss + 0 * sum(p.sum() for p in self.loss.generator_parameters())  # ranks wait for all
                log = {f"train/{name}": value for name, value in parts.items()}
            self._require_finite(loss, "the generator's loss", batch)
        with timed("backward"):
            self._backward(loss / self.accumulate, is_last)
        if self.loss.config.is_adversarial and guide is None:
            with timed("discriminator"):
                loss, disc_log = self.loss({}, video, reconstruction.detach(), 1, at + 1)
                self._require_finite(loss, "the discriminator's loss", batch)
                self._backward(loss / self.accumulate, is_last)
                log |= disc_log
        self._accumulated += 1
        if is_last:
            with timed("optimizers"):
                log |= self._step(step, batch)
        log |= {name: log[own] for name, own in PUBLISHED_NAMES.items() if own in log}
        self.log_dict(self._telling(log), batch_size=len(video))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log losses and figures of a batch under `val/`, and with the moving averages under `val_ema/`."""
        self._evaluate_both(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """As `validation_step`, under `test/` and `test_ema/`."""
        self._evaluate_both(batch, "test")

    def on_validation_epoch_end(self) -> None:
        self._log_codebook_use()

    def on_test_epoch_end(self) -> None:
        self._log_codebook_use()

    def on_validation_model_zero_grad(self) -> None:
        """Leave gradients alone: validation may come in the middle of an accumulation, which needs them."""

    def _frozen_parts(self) -> list[nn.Module]:
        """The parts of the model that are not trained."""
        names = self.model.encoding_modules if self.settings.fix_encoder else ()
        names += self.model.decoding_modules if self.settings.fix_decoder else ()
        return [self.get_submodule(name) for name in names]

    def _trained_weights(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters of the model that are trained."""
        return [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def _make_averages(self) -> None:
        if self.settings.ema_decay is not None:
            self.model_ema = MovingAverages(self._trained_weights(), self.settings.ema_decay)

    def _leave_last_layer_eager(self) -> None:
        """Leave the layer whose gradient the adaptive weight asks for out of the compiled graph.

        A compiled graph's backward pass is made as a whole: inside, that one gradient would cost all of the decoder's.
        """
        last = self.model.last_layer
        owner: Any = next(m for m in self.model.modules() if any(p is last for p in m.parameters(recurse=False)))
        owner.forward = torch.compiler.disable(owner.forward)  # type: ignore[no-untyped-call]

    def _seed_batch(self) -> None:
        """Seed all generators by the number of batches so far, in finished steps or held for the next."""
        batches = self.batches_done * self.accumulate + self._accumulated
        # Knuth's multiplicative hashing: neighbouring batches and ranks have unrelated seeds.
        mixed = self.seed * 0x9E3779B97F4A7C15 + batches * 0xC2B2AE3D27D4EB4F + self.global_rank * 0x165667B19E3779F9
        torch.manual_seed(mixed & (2**63 - 1))

    def _backward(self, loss: Tensor, is_last: bool) -> None:
        """Add to the gradients; ranks are averaged once, with the last batch of an accumulation."""
        for part in (self.encoder, self.decoder):
            synchronize(part, is_last)
        block = None if is_last else getattr(self.trainer.strategy, "block_backward_sync", None)
        with contextlib.nullcontext() if block is None else block():
            self.manual_backward(loss)

    def _step(self, step: int, batch: dict[str, Any]) -> Log:
        """One step of each optimiser."""
        found = self.optimizers()
        optimizers = found if isinstance(found, list) else [found]
        factor = self.settings.schedule.factor(step)
        log: Log = {}
        for optimizer, part in zip(optimizers, ("generator", "discriminator"), strict=False):
            rate = self.learning_rate * factor * (self.settings.lr_g_factor if part == "generator" else 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if isinstance(self.encoder, FSDPModule):
                average_gradients(parameters)
            norm = clip_gradients(parameters, self.clip_norm)
            self._require_finite(norm, f"the norm of the {part}'s gradient", batch)
            optimizer.step()
            optimizer.zero_grad()
            log[f"train/grad_norm_{part}"] = norm
            log[f"lr/{part}"] = torch.tensor(rate)
        if self.model_ema is not None:
            self.model_ema.update()
        self._accumulated = 0
        return log

    def _require_finite(self, value: Tensor, what: str, batch: dict[str, Any]) -> None:
        """Raise `TrainingError` on every rank if `value` is not finite on one of them."""
        bad = ~torch.isfinite(value.detach()).all()
        local = bool(bad)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            anywhere = bad.int()
            dist.all_reduce(anywhere, op=dist.ReduceOp.MAX)
            if bool(anywhere) and not local:
                raise TrainingError(f"{what} is not finite on another rank, at step {self.global_step}")
        if local:
            names = ", ".join(map(str, batch.get("name", []))) or "unnamed clips"
            raise TrainingError(
                f"{what} is {value.item()} at step {self.global_step}, on {names}. The run has stopped, and its last "
                "checkpoint is kept: look at those files, or resume from it with a lower model.base_learning_rate"
            )

    def _reconstructed(self, batch: dict[str, Any], step: int, *, sample: bool | None = None) -> tuple[Tensor, RegLog]:
        """The reconstruction of a batch's video, and the bottleneck's log."""
        _, reconstruction, log = self.model(batch["video"], sample=sample, step=step)
        return reconstruction, log

    def _more_losses(self) -> Log:
        """Losses of the reconstruction made last, by name, which are added to the objective's."""
        return {}

    def _evaluate_both(self, batch: dict[str, Any], split: str) -> None:
        """Evaluate the weights, and then their moving averages."""
        self._evaluate(batch, split)
        if self.model_ema is not None:
            try:
                with self.model_ema.applied():
                    self._reshard()
                    self._evaluate(batch, f"{split}_ema")
            finally:
                self._reshard()

    def _reshard(self) -> None:
        for part in (self.encoder, self.decoder):
            reshard(part)

    @torch.no_grad()
    def _evaluate(self, batch: dict[str, Any], split: str) -> None:
        video = batch["video"]
        with torch.compiler.set_stance("force_eager"):  # evaluation has shapes of its own, and is soon done
            reconstruction, reg_log = self._reconstructed(batch, self.batches_done, sample=False)
        step = _STEPS_PER_BATCH * self.batches_done
        log: Log = self.loss(reg_log, video, reconstruction, 0, step, split=split)[1]
        if self.loss.config.is_adversarial:
            log |= self.loss({}, video, reconstruction, 1, step, split=split)[1]
        shown = reconstruction.float().clamp(-1, 1)
        log[f"{split}/psnr"] = psnr(shown, video).mean()
        if min(video.shape[-2:]) >= SSIM_SMALLEST_SIDE:
            log[f"{split}/ssim"] = ssim(shown, video).mean()
        if "indices" in reg_log:
            self._count_codes(reg_log["indices"], split)
        self.log_dict(self._telling(log), on_step=False, on_epoch=True, batch_size=len(video), sync_dist=True)

    def _telling(self, log: Log) -> Log:
        """`log` without entries that are always zero."""
        idle: set[str] = set()
        if not self.loss.config.is_adversarial:
            idle |= {"g_loss", "d_weight", "disc_factor"}
        if not self.loss.config.perceptual_weight:
            idle |= {"p_loss"}
        return {name: value for name, value in log.items() if name.rpartition("/")[2] not in idle}

    def _count_codes(self, indices: Tensor, split: str) -> None:
        if split not in self._codes_used:
            codes = self.model.codebook_size or 0
            self._codes_used[split] = torch.zeros(codes, device=indices.device, dtype=torch.int64)
        counts = self._codes_used[split]
        counts += torch.bincount(indices.flatten().long(), minlength=len(counts))

    def _log_codebook_use(self) -> None:
        """Log the share of the codebook that the evaluation's tokens used, and the perplexity of their distribution."""
        for split, counts in self._codes_used.items():
            if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                dist.all_reduce(counts)
            share = counts.double() / counts.sum()
            log = {
                f"{split}/codebook_use": (counts > 0).float().mean(),
                f"{split}/codebook_perplexity": torch.special.entr(share).sum().exp().float(),
            }
            self.log_dict(log, sync_dist=True)  # equal on all ranks already; without it Lightning warns
        self._codes_used = {}
