"""JPEG files to measure on: photographs of ``datasets/tiny_coco`` where they are, else noise with a photograph's spectrum."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

ROOT = Path(__file__).resolve().parent.parent
COCO = ROOT / "datasets" / "tiny_coco"
NOISE_QUALITY = 90  # 111 kB at 500x375


def write(folder: Path, count: int, quality: int | None = None, size: tuple[int, int] = (500, 375)) -> str:
    """Write ``count`` JPEGs of ``size`` (upright where the photograph is); return what they are, for a figure's detail.

    Without a ``quality``, photographs are cut, not resized, and keep the quantisation and the chroma of their own file:
    109 kB each at 500x375, where ImageNet's files have 110 kB on average. With one, they are resized and lighter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(COCO.glob("*2017/*.jpg"))
    if quality is None:
        sources = [path for path in sources if _holds(path, size)]
    bytes_written = 0
    for number in range(count):
        if not sources:
            encoded = _jpeg(_noise(number, size), quality=quality or NOISE_QUALITY)
        elif quality is None:
            encoded = _cut(sources[number % len(sources)], size)
        else:
            encoded = _jpeg(_resized(sources[number % len(sources)], size), quality=quality)
        (folder / f"{number:05d}.jpg").write_bytes(encoded)
        bytes_written += len(encoded)
    kind = "photographs of tiny COCO" if sources else "images of 1/f noise"
    kept = (
        "their own JPEG quality and chroma"
        if sources and quality is None
        else f"JPEG quality {quality or NOISE_QUALITY}"
    )
    return f"{kind}, {size[0]}x{size[1]}, {kept}, {bytes_written / count / 1000:.0f} kB each"


def _turned(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    return size[::-1] if image.height > image.width else size


def _holds(path: Path, size: tuple[int, int]) -> bool:
    with Image.open(path) as image:
        width, height = _turned(image, size)
        return image.mode == "RGB" and image.width >= width and image.height >= height


def _cut(path: Path, size: tuple[int, int]) -> bytes:
    """Cut out the middle, and encode it as the file was."""
    with Image.open(path) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        tables, chroma = image.quantization, JpegImagePlugin.get_sampling(image)
        width, height = _turned(image, size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return _jpeg(image.crop((left, top, left + width, top + height)), qtables=tables, subsampling=chroma)


def _resized(path: Path, size: tuple[int, int]) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), _turned(image, size), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, **settings: Any) -> bytes:
    memory = io.BytesIO()
    image.save(memory, "JPEG", **settings)
    return memory.getvalue()


def _noise(seed: int, size: tuple[int, int]) -> Image.Image:
    """Make an image whose amplitude falls with the frequency, as a photograph's does; chroma has a third of luma's contrast."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(size[1])[:, None], np.fft.fftfreq(size[0])[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / max(size)) ** 1.1
    planes = [np.fft.ifft2(np.fft.fft2(generator.normal(size=size[::-1])) * fall).real for _ in range(3)]
    luma, blue, red = (plane / plane.std() * spread for plane, spread in zip(planes, (50, 16, 16), strict=True))
    pixels = np.stack([luma + 128, blue + 128, red + 128], axis=2).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "YCbCr").convert("RGB")
