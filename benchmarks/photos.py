"""JPEG files to measure on: photographs of ``datasets/tiny_coco`` where they are, else noise with a photograph's spectrum."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
COCO = ROOT / "datasets" / "tiny_coco"


def write(folder: Path, count: int, quality: int, size: tuple[int, int] = (500, 375)) -> str:
    """Write ``count`` JPEGs of ``size`` (upright where the photograph is); return what they are, for a figure's detail."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(COCO.glob("*2017/*.jpg"))
    bytes_written = 0
    for number in range(count):
        image = _photograph(sources[number % len(sources)], size) if sources else _noise(number, size)
        memory = io.BytesIO()
        image.save(memory, "JPEG", quality=quality)
        (folder / f"{number:05d}.jpg").write_bytes(memory.getvalue())
        bytes_written += memory.tell()
    kind = "photographs of tiny COCO" if sources else "images of 1/f noise"
    return f"{kind}, {size[0]}x{size[1]}, JPEG quality {quality}, {bytes_written / count / 1000:.0f} kB each"


def _photograph(path: Path, size: tuple[int, int]) -> Image.Image:
    with Image.open(path) as image:
        upright = image.height > image.width
        return ImageOps.fit(image.convert("RGB"), size[::-1] if upright else size, Image.Resampling.BICUBIC)


def _noise(seed: int, size: tuple[int, int]) -> Image.Image:
    """Make an image whose amplitude falls with the frequency, as a photograph's does; chroma has a third of luma's contrast."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(size[1])[:, None], np.fft.fftfreq(size[0])[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / max(size)) ** 1.1
    planes = [np.fft.ifft2(np.fft.fft2(generator.normal(size=size[::-1])) * fall).real for _ in range(3)]
    luma, blue, red = (plane / plane.std() * spread for plane, spread in zip(planes, (50, 16, 16), strict=True))
    pixels = np.stack([luma + 128, blue + 128, red + 128], axis=2).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "YCbCr").convert("RGB")
