"""An image pipeline of diffusers for what its own pipelines leave out: classes and guidance, clocks, latents.

ebbtide writes this file beside a network it exports; it needs diffusers and torch alone.
"""

from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor


class Clock(torch.nn.Module):
    """timestep → (sin ωu, cos ωu), u = scale · timestep + offset: the features of time that a network learned with."""

    def __init__(self, frequencies: list[float], scale: float, offset: float) -> None:
        super().__init__()
        self.frequencies, self.scale, self.offset = frequencies, scale, offset

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        u = timesteps.float() * self.scale + self.offset
        angles = u[:, None] * torch.tensor(self.frequencies, device=u.device)
        return torch.cat([angles.sin(), angles.cos()], -1)


class ImagePipeline(DiffusionPipeline):
    """Images from noise.

    classes: names of the classes, in the order of their numbers. null_label: the number that stands for no class, where
    the network learned one. clock: arguments of `Clock`, where the network's time features are its own. steps: taken
    unless others are asked for. decoder: a module that makes an image of a latent.
    """

    _optional_components = ["decoder"]  # noqa: RUF012 - as theirs

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        decoder: Any = None,
        classes: Any = None,
        null_label: Any = None,
        clock: Any = None,
        steps: Any = None,
    ) -> None:
        super().__init__()
        if clock is not None:
            unet.time_proj = Clock(**clock)
        self.register_modules(unet=unet, scheduler=scheduler, decoder=decoder)
        self.register_to_config(classes=classes, null_label=null_label, clock=clock, steps=steps)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Any = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int | None = None,
        generator: Any = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw images: PIL's, or numbers from 0 to 1 as "np" (n, h, w, c) or "pt" (n, c, h, w).

        class_labels: a class for all images or one for each, by name or number; none: no class. guidance_scale: 1 is
        off.
        """
        unet, scheduler, device = self.unet, self.scheduler, self._execution_device
        labels = self.labels(class_labels, batch_size, guidance_scale)
        size = unet.config.sample_size
        shape = (batch_size, unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=unet.dtype)
        x = latents.to(device) * getattr(scheduler, "init_noise_sigma", 1.0)
        scheduler.set_timesteps(num_inference_steps or self.config.steps)
        for timestep in self.progress_bar(scheduler.timesteps):
            seen = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
            if guidance_scale == 1.0:
                y = unet(seen, timestep, labels).sample
            else:
                null = torch.full_like(labels, self.config.null_label)
                by_class, without = unet(torch.cat([seen, seen]), timestep, torch.cat([labels, null])).sample.chunk(2)
                y = without + guidance_scale * (by_class - without)
            x = scheduler.step(y, timestep, x, generator=generator).prev_sample
        images = x if self.decoder is None else self.decoder(x)
        images = (images / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.cpu().permute(0, 2, 3, 1).float().numpy()
            images = self.numpy_to_pil(images) if output_type == "pil" else images
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def labels(self, given: Any, n: int, guidance_scale: float) -> torch.Tensor | None:
        """The number of each image's class; None for a network without classes."""
        classes, null = self.config.classes, self.config.null_label
        if not classes:
            if given is not None or guidance_scale != 1.0:
                raise ValueError("This network has no classes, so it takes no class_labels and no guidance_scale.")
            return None
        if guidance_scale != 1.0 and (given is None or null is None):
            raise ValueError("guidance_scale needs class_labels, and a network that learned to do without them.")
        if given is None:
            if null is None:
                raise ValueError(f"class_labels must be given, each one of {', '.join(map(str, classes))}.")
            return torch.full((n,), null, device=self._execution_device)
        each = [given] * n if isinstance(given, str | int) else list(given)
        if len(each) != n:
            raise ValueError(f"class_labels must be one, or one for each of {n} images; got {len(each)}.")
        numbers = [classes.index(one) if one in classes else one for one in each]
        if any(not isinstance(one, int) or not 0 <= one < len(classes) for one in map(_whole, numbers)):
            raise ValueError(
                f"class_labels must be classes, {', '.join(map(str, classes))}, or their numbers; got {given}."
            )
        return torch.tensor([_whole(one) for one in numbers], device=self._execution_device)


def _whole(number: Any) -> Any:
    """A number in a tensor or array of one, as Python's."""
    return number.item() if hasattr(number, "item") else number
