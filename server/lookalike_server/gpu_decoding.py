"""JPEGs decoded on a GPU, by the nvJPEG that torchvision brings: files in, a model's pixels out.

The GPU takes what it should decode as the CPU does: whole pictures of ordinary JPEGs. Scaled decoding of
large photos, which the embedding space tells of, and all other formats stay with the CPU. Whether descriptors
agree is tried for each model (gpu_agreement.py).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from lookalike_extractor.formats.jpeg import is_ordinary
from lookalike_extractor.formats.layout import TRANSPOSED, Layout
from lookalike_extractor.images import jpeg_scale
from lookalike_extractor.preprocessing import Preprocessing, region
from PIL import Image
from torch import Tensor

from lookalike_server.device import device_names
from lookalike_server.errors import ConfigInvalid

if TYPE_CHECKING:
    from lookalike_extractor.preprocessing import Pixels

# Larger ones stay with the CPU, whatever their shape: a batch then needs at most some 800 MB of the GPU.
_MOST_PIXELS = 1 << 22
_RGB = 3  # torchvision.io.ImageReadMode.RGB

_log = logging.getLogger(__name__)


def gpu_decoder(wish: str) -> GpuDecoder:
    """The decoder on the first device of a wish as "cuda:0,cuda:1": torchvision has one for each process.

    Raises ConfigInvalid when that is no GPU, or nothing there decodes.
    """
    device = device_names(wish)[0]
    if device == "cpu":
        raise ConfigInvalid(
            "gpu_decode: the device is 'cpu'; only CUDA devices decode. Set device, or gpu_decode to false."
        )
    decoder = GpuDecoder(device)
    decoder.try_out()
    return decoder


def takes(data: bytes, layout: Layout, preprocessing: Preprocessing) -> bool:
    """Whether a file that has passed all limits is one for the GPU."""
    return (
        layout.format == "JPEG"
        and layout.channels in (1, 3)
        and layout.width * layout.height <= _MOST_PIXELS
        and preprocessing.align is None
        and jpeg_scale(layout, preprocessing) == 1
        and is_ordinary(data)
    )


class GpuDecoder:
    """One thread uses it.

    Args:
        device: "cuda:N"; "cpu" does the same by libjpeg, for tests.
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def try_out(self) -> None:
        """Raises ConfigInvalid when it decodes nothing."""
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (120, 160, 200)).save(file, "JPEG")
        try:
            self._planes([file.getvalue()])
        except Exception as error:
            told = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigInvalid(
                f"gpu_decode: torchvision decodes no JPEG on {self.device} ({told}). "
                "Install one that is built with nvJPEG, or set gpu_decode to false."
            ) from error

    def decode(
        self, files: Sequence[bytes], layouts: Sequence[Layout], preprocessing: Preprocessing
    ) -> list[Pixels | None]:
        """Pixels of each file, as those of `lookalike_extractor.images.decode`; None where it gives none.

        One that fails takes all that were given with it: then each is tried alone.
        """
        try:
            return [*self._decode(files, layouts, preprocessing)]
        except Exception as error:
            _log.debug("of %d JPEGs at least one was not decoded on %s: %s", len(files), self.device, error)
        if len(files) == 1 or not self.usable():
            return [None] * len(files)
        return [
            self.decode([file], [layout], preprocessing)[0]
            for file, layout in zip(files, layouts, strict=True)
        ]

    def usable(self) -> bool:
        """Whether the device still answers."""
        try:
            torch.zeros(1, device=self.device).add(1).item()
        except Exception:
            return False
        return True

    def _decode(
        self, files: Sequence[bytes], layouts: Sequence[Layout], preprocessing: Preprocessing
    ) -> Pixels:
        with torch.inference_mode():
            fitted = []
            for planes, layout in zip(self._planes(files), layouts, strict=True):
                if planes.shape != (3, layout.height, layout.width):
                    raise RuntimeError(f"a JPEG of {layout.width} x {layout.height} gave {[*planes.shape]}")
                fitted.append(_fitted(_upright(planes, layout.orientation), preprocessing))
            pixels: Pixels = torch.stack(fitted).cpu().numpy()
        return pixels

    def _planes(self, files: Sequence[bytes]) -> list[Tensor]:
        """uint8 [3, h, w] of each file as it is stored, on the device."""
        # The functions of torchvision.io warn at each call that they will go; what they call does not.
        import torchvision.io  # noqa: F401  (it registers them, and takes long for who never asks)

        sent = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        if self.device == "cpu":
            return [torch.ops.image.decode_jpeg(file, _RGB, False) for file in sent]
        found: list[Tensor] = torch.ops.image.decode_jpegs_cuda(sent, _RGB, torch.device(self.device))
        return found


def _upright(planes: Tensor, orientation: int) -> Tensor:
    """Applies an EXIF orientation, 1..8 (Exif 2.3, tag 274), to [3, h, w]."""
    if orientation in TRANSPOSED:
        planes = planes.transpose(1, 2)
    turned = [axis for axis, all_of in ((1, (3, 4, 7, 8)), (2, (2, 3, 6, 7))) if orientation in all_of]
    return planes.flip(turned) if turned else planes


def _fitted(planes: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 [height, width, 3] of upright [3, h, w]: `preprocessing.fit`, on the device.

    torch resizes no bytes on GPUs: here they are rounded once, and on the CPU after each axis.
    """
    height, width = region(planes.shape[1], planes.shape[2], preprocessing)
    top, left = (planes.shape[1] - height) // 2, (planes.shape[2] - width) // 2
    kept = planes[:, top : top + height, left : left + width]
    size = (preprocessing.height, preprocessing.width)
    if kept.shape[1:] != size:
        resized = F.interpolate(
            kept[None].float(), size, mode=preprocessing.interpolation, antialias=True, align_corners=False
        )
        kept = resized[0].round_().clamp_(0, 255).to(torch.uint8)
    return kept.permute(1, 2, 0)
