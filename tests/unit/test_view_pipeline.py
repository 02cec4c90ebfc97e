"""From files to batches of crops: decoding, cutting, workers, and a device that is never asked."""

import io
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from one_view import crop_box, draw_colours
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as tv

from core.data import Images
from core.data.imagefolder import ImageFolder
from core.decoding import DamagedImage, decode, jpeg_size, reduction_for
from core.provenance import derive
from pretrain.loader import Batch, EpochOrder, Pairs, _within, collate, loader
from pretrain.views import ViewSettings, colour, cut


def scene(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return a smooth picture with some edges and grain, as photographs have."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = generator.integers(0, 256, 3)
    return Image.fromarray((pixels + generator.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    """Encode as JPEG."""
    memory = io.BytesIO()
    image.save(memory, "JPEG", **{"quality": 92, **options})
    return memory.getvalue()


def by_pillow(data: bytes) -> Tensor:
    """Decode with Pillow alone."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def turned() -> bytes:
    """Return an EXIF block that asks for a rotation."""
    exif = Image.Exif()
    exif[0x112] = 6
    return exif.tobytes()


PHOTO = scene(75, 100)
FORMS = {
    "plain": jpeg(PHOTO), "progressive": jpeg(PHOTO, progressive=True), "4:4:4": jpeg(PHOTO, subsampling=0),
    "4:2:2": jpeg(PHOTO, subsampling=1), "gray": jpeg(PHOTO.convert("L")), "RGB kept": jpeg(PHOTO, keep_rgb=True),
    "EXIF rotation": jpeg(PHOTO, exif=turned()), "CMYK": jpeg(PHOTO.convert("CMYK")),
    "trailing bytes": jpeg(PHOTO) + b"\0\0more",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_jpeg_is_decoded_to_pillows_pixels(form: str) -> None:
    assert torch.equal(decode(FORMS[form], form), by_pillow(FORMS[form]))


def test_only_gray_and_three_colour_jpegs_tell_their_size() -> None:
    sizes = {form: jpeg_size(data) for form, data in FORMS.items()}
    assert sizes.pop("CMYK") is None
    assert set(sizes.values()) == {(75, 100)}
    png = io.BytesIO()
    PHOTO.save(png, "PNG")
    assert [jpeg_size(data) for data in (png.getvalue(), b"", b"\xff\xd8", FORMS["plain"][:30])] == [None] * 4
    filled = FORMS["plain"][:2] + b"\xff\xff" + FORMS["plain"][2:]  # fill bytes before a marker
    assert jpeg_size(filled) == (75, 100)


@pytest.mark.parametrize("length", [0, 1, 2, 40, 1000, -200, -2])
def test_a_truncated_jpeg_is_refused_by_name(length: int) -> None:
    with pytest.raises(DamagedImage, match=r"some\.jpg cannot be decoded"):
        decode(FORMS["plain"][:length], "some.jpg")


def test_a_jpeg_comes_in_half_quarter_and_eighth_size_and_other_files_whole() -> None:
    data, odd = jpeg(scene(376, 504)), jpeg(scene(375, 500))
    full = decode(data, "a").float()
    for reduction in (2, 4, 8):
        assert decode(odd, "a", reduction).shape == (3, -(-375 // reduction), -(-500 // reduction))
        reduced = decode(data, "a", reduction)
        area = torch.nn.functional.avg_pool2d(full, reduction)
        assert (reduced - area).abs().mean() < 1.5  # gray levels
        assert (reduced - area).mean().abs() < 0.3
    png = io.BytesIO()
    PHOTO.save(png, "PNG")
    assert decode(png.getvalue(), "b", 4).shape == (3, 75, 100)


def test_reduction_leaves_at_least_the_asked_side() -> None:
    assert [reduction_for(least, 224) for least in (10, 447, 448, 895, 896, 1792, 9999)] == [1, 1, 2, 2, 4, 8, 8]
    for start in range(50):
        for side, length in ((223, 446), (224, 449), (97, 776)):
            part = reduction_for(length, side)
            full = (start + length + 7, start + length + 7)
            reduced = tuple(-(-edge // part) for edge in full)
            top, left, height, width = _within((start, 0, length, length), full, reduced)
            assert min(height, width) >= side
            assert top + height <= reduced[0]
            assert left + width <= reduced[1]


BOXES = [(0, 0, 75, 100), (3, 5, 40, 30), (10, 20, 16, 16), (74, 99, 1, 1), (0, 37, 75, 63)]


@pytest.mark.parametrize("layout", ["decoded", "planes"])
@pytest.mark.parametrize("box", BOXES)
def test_a_cut_equals_torchvisions_resized_crop(layout: str, box: tuple[int, int, int, int]) -> None:
    image = by_pillow(FORMS["plain"])
    image = image.contiguous() if layout == "planes" else image
    for flipped in (False, True):
        out = np.empty((3, 32, 32), dtype=np.uint8)
        cut(image.permute(1, 2, 0).numpy(), box, flipped, out)
        expected = tv.resized_crop(image, *box, [32, 32], antialias=True)
        expected = expected.flip(-1) if flipped else expected
        assert (torch.from_numpy(out).int() - expected.int()).abs().max() <= 1


class Files(Images):
    """Images in memory, decoded at each call."""

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Tensor:
        """Decode in full size."""
        return decode(self.files[index], f"{index}.jpg")


def sample(images: Images, views: ViewSettings, seed: int, epoch: int, index: int) -> tuple[Tensor, Tensor]:
    """Make one pair of views step by step, as it is documented: box, flip and colours from the view's own generator."""
    image, crops, colours = images.image(index), [], []
    for view in range(2):
        generator = torch.Generator().manual_seed(derive(seed, "view", epoch, index, view))
        settings = views.of_view(view)
        box = crop_box(*image.shape[1:], settings.scale, generator)
        part = tv.resized_crop(image, *box, [views.size, views.size], antialias=True)
        flipped = torch.rand((), generator=generator) < settings.flip_probability
        crops.append(part.flip(-1) if flipped else part)
        colours.append(draw_colours(settings, generator)[0])
    return torch.stack(crops), torch.stack(colours)


VIEWS = ViewSettings(size=32, second_blur_probability=0.1, second_solarize_probability=0.2)


def test_a_batch_holds_the_views_that_single_draws_give() -> None:
    images = Files([jpeg(scene(60 + 7 * n, 90 - 5 * n, n)) for n in range(6)])
    pairs = Pairs(images, VIEWS, 5, False)
    batch = pairs.__getitems__([(3, index) for index in range(6)])
    for row in range(6):
        crops, colours = sample(images, VIEWS, 5, 3, row)
        assert (batch.crops[:, row].int() - crops.int()).abs().max() <= 1
        assert torch.equal(batch.colours[:, row], colours)
    one_by_one = collate([pairs[3, index] for index in range(6)])
    assert torch.equal(one_by_one.crops, batch.crops)
    assert torch.equal(one_by_one.colours, batch.colours)


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Return a folder of photographs large enough to be reduced, with a damaged file among them."""
    for number in range(9):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(scene(150 + 20 * number, 240, number)))
    (tmp_path / "4.jpg").write_bytes(jpeg(scene(200, 200))[:-300])
    return ImageFolder(ImageFolder.Config(root=tmp_path))


def batches(images: Images, workers: int, first: int = 0) -> list[Batch]:
    """Return what is left of epoch 1, in batches of three."""
    order = EpochOrder(len(images), 3, 7, 0, 1)
    order.epoch, order.first = 1, first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside the test's threads
        return list(loader(Pairs(images, VIEWS, 7, True), order, workers, pin=False))


@pytest.mark.parametrize("kept", [0, 2**29], ids=["reduced", "kept"])
def test_workers_and_resuming_change_no_bit(folder: ImageFolder, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr("pretrain.loader.KEPT_BYTES", kept)
    alone = batches(folder, 0)
    assert sum(len(batch.damaged) for batch in alone) == 1
    for others in (batches(folder, 2), [*alone[:1], *batches(folder, 0, first=1)]):
        for one, other in zip(alone, others, strict=True):
            assert torch.equal(one.crops, other.crops)
            assert torch.equal(one.colours, other.colours)
            assert one.damaged == other.damaged


def test_views_of_reduced_files_differ_little_from_those_of_whole_ones(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reductions: Counter[int] = Counter()

    def counting(data: bytes, name: str, reduction: int = 1) -> Tensor:
        reductions[reduction] += 1
        return decode(data, name, reduction)

    monkeypatch.setattr("pretrain.loader.decode", counting)
    whole = torch.cat([batch.crops for batch in batches(folder, 0)], dim=1).float()
    assert set(reductions) == {1}
    monkeypatch.setattr("pretrain.loader.KEPT_BYTES", 0)
    reduced = torch.cat([batch.crops for batch in batches(folder, 0)], dim=1).float()
    assert reductions[2] + reductions[4] > 5
    # half a pixel of a moved edge, in views with hard edges; level and contrast stay
    assert 0 < (whole - reduced).abs().mean() < 2.5
    assert (whole - reduced).mean().abs() < 0.3
    assert abs(whole.std() / reduced.std() - 1) < 0.02


def test_a_set_that_fits_is_decoded_once_and_a_larger_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(Files):
        calls = 0

        def image(self, index: int) -> Tensor:
            self.calls += 1
            return super().image(index)

    for kept, calls in ((3 * 75 * 100 * 2, 2), (3 * 75 * 100 * 2 - 1, 6)):
        monkeypatch.setattr("pretrain.loader.KEPT_BYTES", kept)
        images = Counted([FORMS["plain"], FORMS["gray"]])
        pairs = Pairs(images, VIEWS, 0, False)
        for epoch in range(3):
            pairs.__getitems__([(epoch, 0), (epoch, 1)])
        assert images.calls == calls


class Asked(TorchDispatchMode):
    """Counts what makes the host wait for a device, and copies to the CPU."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        tensors = [value for value in args if isinstance(value, Tensor)]
        here = any(tensor.device.type == "meta" for tensor in tensors)
        target = (kwargs or {}).get("device")
        if here and (name in self.NAMES or (name == "_to_copy" and target is not None and target.type == "cpu")):
            self.seen[name] += 1
        if name == "_local_scalar_dense" and here:
            return 0.0
        return function(*args, **(kwargs or {}))


def test_colour_never_asks_the_device_for_a_number() -> None:
    """The meta device has shapes and no numbers: whoever asks it for one is counted, or fails."""
    settings = ViewSettings(size=32, solarize_probability=0.5)
    generator = torch.Generator().manual_seed(3)
    drawn = draw_colours(settings, generator, 12)
    assert (drawn[:, 4:] > 0).any(dim=0).all()
    with Asked() as asked:
        found = colour(torch.empty(12, 3, 32, 32, dtype=torch.uint8, device="meta"), drawn, settings)
    assert (found.device.type, found.shape, found.dtype) == ("meta", (12, 3, 32, 32), torch.float32)
    assert dict(asked.seen) == {}
    with Asked() as asked:
        torch.ones(3, device="meta").sum().item()
    assert dict(asked.seen) == {"_local_scalar_dense": 1}


def test_colour_in_parts_equals_colour_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ViewSettings(size=24, solarize_probability=0.3)
    generator = torch.Generator().manual_seed(4)
    drawn = draw_colours(settings, generator, 11)
    images = torch.randint(0, 256, (11, 3, 24, 24), dtype=torch.uint8, generator=generator)
    whole = colour(images, drawn, settings)
    for bytes_at_a_time in (1, 4 * 3 * 24 * 24 * 4):
        monkeypatch.setattr("pretrain.views.CACHED", bytes_at_a_time)
        torch.testing.assert_close(colour(images, drawn, settings), whole, rtol=0, atol=1e-5)
