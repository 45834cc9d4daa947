#!/usr/bin/env python3
"""Makes tests/fixtures/preprocess: small pictures in every format, and what transformers makes of them.

    pip install numpy==2.4.6 pillow==13.0.0 transformers==5.23.0
    python tests/reference/preprocess.py

pictures/*      the files; their pixels come from a fixed generator, so a second run writes the same
decoded.bin     their pixels [height, width, 3] as `exif_transpose` and the image processor's `convert_to_rgb`
                give them, one picture after the other
goldens.json    "pictures": file, width, height, offset into decoded.bin;
                "resized": source and target sizes, filter, CRC-32 of the resized bytes and of the pixel values
                (f32, little endian) of `noise(width, height, seed)`, which the test makes itself;
                "configs": preprocessor configurations with the value of each level, as f32 bits
corpus/         odd files, kept as they are: sampling and markers of JPEG, EXIF in every place, GIF frames beyond the screen,
                BMP headers, chunks of PNG, brands of AVIF, files cut short. expected.json: size and SHA-256 of the upright
                RGB samples over white, or how Pillow refuses the file
avif/           four colours for each EXIF orientation, for browsers
"""

import hashlib
import io
import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

OUT = Path(__file__).parent.parent / "fixtures" / "preprocess"
WIDTH, HEIGHT = 45, 31


def noise(width, height, seed):
    """Hashed positions; every other square of 16 pixels has one colour: noise and edges. [height, width, 3]"""
    index = np.arange(width * height * 3, dtype=np.uint64).reshape(height, width, 3)
    y, x, channel = np.ogrid[:height, :width, :3]
    square = ((x // 16) + (y // 16)) % 2 == 1
    block = ((y // 16) * 65536 + (x // 16)).astype(np.uint64) * np.uint64(3) + channel.astype(np.uint64)
    key = np.where(square, block, index) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (key >> np.uint64(56)).astype(np.uint8)


def scene(width=WIDTH, height=HEIGHT):
    """A smooth coloured picture with hard edges, as photographs and drawings have them. [height, width, 3]"""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    rgb = np.stack([255 * x / (width - 1), 255 * y / (height - 1), 127 + 127 * np.sin(x / 5 + y / 7)], -1)
    rgb[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 30)
    rgb[(x - width * 0.7) ** 2 + (y - height * 0.6) ** 2 < (height / 5) ** 2] = (10, 30, 240)
    return np.round(rgb).astype(np.uint8)


def alpha_of(width=WIDTH, height=HEIGHT):
    """All alpha values, with areas of 0 and 255. [height, width]"""
    alpha = (np.arange(width * height) * 7 % 256).astype(np.uint8).reshape(height, width)
    alpha[:5] = 0
    alpha[5:9] = 255
    return alpha


def png(pixels, color_type, depth, palette=None, transparency=None, interlaced=False, extra=()):
    """A PNG file from samples [height, width, channels], with all the freedom that Pillow's writer lacks."""
    height, width, channels = pixels.shape

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def rows(part):
        if part.size == 0:
            return b""
        data = b""
        for row in part:
            if depth == 16:
                line = row.astype(">u2").tobytes()
            elif depth == 8:
                line = row.astype(np.uint8).tobytes()
            else:
                bits = ((row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
                line = np.packbits(bits.reshape(-1)).tobytes()
            data += b"\0" + line
        return data

    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        data = b"".join(rows(pixels[y0::dy, x0::dx]) for x0, y0, dx, dy in passes)
    else:
        data = rows(pixels)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, int(interlaced))
    chunks = [chunk(b"IHDR", header)]
    if palette is not None:
        chunks.append(chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    if transparency is not None:
        chunks.append(chunk(b"tRNS", transparency))
    chunks += [chunk(name, body) for name, body in extra]
    chunks += [chunk(b"IDAT", zlib.compress(data, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp(header_size, bits, rows, palette=b"", compression=0, top_down=False, masks=b""):
    """A BMP file of WIDTH × HEIGHT from its encoded rows."""
    offset = 14 + header_size + len(masks) + len(palette)
    height = -HEIGHT if top_down else HEIGHT
    info = struct.pack(
        "<IiiHHIIiiII", header_size, WIDTH, height, 1, bits, compression, len(rows), 2835, 2835, len(palette) // 4, 0
    )
    return struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset) + info + masks + palette + rows


def padded(rows):
    """BMP rows: [height, bytes] bottom up, each padded to four bytes."""
    pad = -rows.shape[1] % 4
    return np.pad(rows, ((0, 0), (0, pad))).tobytes()


def rle8(indices):
    data = b""
    for row in indices[::-1]:
        start = 0
        while start < len(row):
            end = start
            while end < len(row) and row[end] == row[start] and end - start < 255:
                end += 1
            data += bytes([end - start, row[start]])
            start = end
        data += b"\0\0"
    return data + b"\0\1"


def pillow(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def pictures():
    """File name → bytes."""
    rgb = scene()
    alpha = alpha_of()
    image = Image.fromarray(rgb)
    gray = image.convert("L")
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    files = {}

    # JPEG. 75 × 53 leaves partial blocks at both edges.
    photo = Image.fromarray(scene(75, 53))
    for name, options in {
        "444": {"subsampling": 0},
        "422": {"subsampling": 1},
        "420": {"subsampling": 2},
        "progressive": {"subsampling": 2, "progressive": True},
        "restart": {"subsampling": 2, "restart_marker_rows": 1},
        "rgb": {"keep_rgb": True},
    }.items():
        files[f"{name}.jpg"] = pillow(photo, "JPEG", quality=90, **options)
    files["gray.jpg"] = pillow(photo.convert("L"), "JPEG", quality=90)
    files["gray_progressive.jpg"] = pillow(photo.convert("L"), "JPEG", quality=90, progressive=True)
    cmyk = np.dstack([255 - scene(75, 53), np.tile(np.arange(75, dtype=np.uint8) * 2, (53, 1))])
    cmyk = Image.fromarray(cmyk, "CMYK")
    files["cmyk.jpg"] = pillow(cmyk, "JPEG", quality=90)
    files["cmyk_progressive.jpg"] = pillow(cmyk, "JPEG", quality=90, progressive=True)
    # The same samples read as YCCK: Adobe's transform flag from 0 to 2.
    at = files["cmyk.jpg"].index(b"Adobe") + 11
    assert files["cmyk.jpg"][at] == 0
    files["ycck.jpg"] = files["cmyk.jpg"][:at] + b"\2" + files["cmyk.jpg"][at + 1 :]
    for value in (3, 6):
        files[f"orientation_{value}.jpg"] = pillow(photo, "JPEG", quality=90, exif=exif(value))
    files["strip.jpg"] = pillow(Image.fromarray(scene(300, 3)[:, :, :]), "JPEG", quality=90)

    # PNG.
    palette = noise(16, 16, 1).reshape(256, 3)
    indices = (np.add.outer(np.arange(HEIGHT) * 5, np.arange(WIDTH) * 3) % 256)[..., None]
    g = np.array(gray)[..., None]
    wide = (scene().astype(np.uint32) * 257 + noise(WIDTH, HEIGHT, 2)).clip(0, 65535)
    wide_alpha = (alpha.astype(np.uint32) * 257)[..., None]
    files |= {
        "rgb.png": pillow(image, "PNG"),
        "rgba.png": pillow(rgba, "PNG"),
        "gray.png": pillow(gray, "PNG"),
        "gray_alpha.png": png(np.dstack([g, alpha]), 4, 8),
        "gray_transparent.png": png(g, 0, 8, transparency=struct.pack(">H", int(g[12, 20, 0]))),
        "rgb_transparent.png": png(rgb, 2, 8, transparency=struct.pack(">HHH", 250, 20, 30)),
        "bilevel.png": pillow(image.convert("1"), "PNG"),
        "gray2.png": png(g >> 6, 0, 2),
        "gray4.png": png(g >> 4, 0, 4),
        "palette.png": png(indices, 3, 8, palette),
        "palette1.png": png(indices % 2, 3, 1, palette[:2]),
        "palette2.png": png(indices % 3, 3, 2, palette[:3]),
        "palette4.png": png(indices % 11, 3, 4, palette[:11]),
        "palette_alpha.png": png(indices, 3, 8, palette, transparency=bytes(range(0, 256, 2))),
        "palette_transparent.png": png(indices, 3, 8, palette, transparency=b"\xff\xff\0"),
        "gray16.png": png(wide[..., :1], 0, 16),
        "gray16_alpha.png": png(np.dstack([wide[..., :1], wide_alpha]), 4, 16),
        "rgb16.png": png(wide, 2, 16),
        "rgba16.png": png(np.dstack([wide, wide_alpha]), 6, 16),
        "interlaced_rgb.png": png(rgb, 2, 8, interlaced=True),
        "interlaced_rgba.png": png(np.dstack([rgb, alpha]), 6, 8, interlaced=True),
        "interlaced_palette4.png": png(indices % 11, 3, 4, palette[:11], interlaced=True),
        "interlaced_gray16.png": png(wide[..., :1], 0, 16, interlaced=True),
        "animated.png": pillow(image, "PNG", save_all=True, append_images=[image.rotate(180)], duration=100),
        "one_pixel.png": pillow(image.crop((0, 0, 1, 1)), "PNG"),
        "icc.png": pillow(image, "PNG", icc_profile=bytes(128)),
    }
    for value in range(1, 9):
        files[f"orientation_{value}.png"] = pillow(image, "PNG", exif=exif(value))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    files["orientation_xmp.png"] = png(
        rgb, 2, 8, extra=[(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)]
    )

    # WebP.
    files |= {
        "lossless.webp": pillow(image, "WEBP", lossless=True),
        "lossless_alpha.webp": pillow(rgba, "WEBP", lossless=True, exact=True),
        "lossy.webp": pillow(photo, "WEBP", quality=90),
        "lossy_alpha.webp": pillow(rgba, "WEBP", quality=90),
        "orientation_6.webp": pillow(image, "WEBP", lossless=True, exif=exif(6)),
        "animated.webp": pillow(
            rgba, "WEBP", lossless=True, exact=True, save_all=True, append_images=[rgba.rotate(180)], duration=100
        ),
        "animated_background.webp": pillow(
            image,
            "WEBP",
            lossless=True,
            save_all=True,
            append_images=[image.rotate(180)],
            duration=100,
            background=(255, 0, 0, 255),
        ),
    }

    # GIF.
    paletted = image.quantize(64)
    holes = paletted.copy()
    gif = pillow(paletted, "GIF", interlace=0)
    # The frame moved to (7, 5) on a larger canvas, with and without a transparent colour.
    def moved(data):
        frame = data.index(b",\0\0\0\0")
        canvas = struct.pack("<HH", WIDTH + 20, HEIGHT + 10)
        return data[:6] + canvas + data[10 : frame + 1] + struct.pack("<HH", 7, 5) + data[frame + 5 :]

    files |= {
        "palette.gif": gif,
        "interlaced.gif": pillow(paletted, "GIF", interlace=1),
        "gray.gif": pillow(gray, "GIF"),
        "transparent.gif": pillow(holes, "GIF", transparency=int(np.array(holes)[10, 18])),
        "animated.gif": pillow(
            paletted, "GIF", save_all=True, append_images=[image.rotate(180).quantize(64)], duration=100
        ),
        "moved.gif": moved(gif),
        "moved_transparent.gif": moved(pillow(holes, "GIF", transparency=3)),
    }

    # BMP.
    table = np.dstack([palette[None, :, ::-1], np.zeros((1, 256, 1), np.uint8)]).tobytes()
    index8 = indices[..., 0].astype(np.uint8)
    index4 = np.pad(index8 % 16, ((0, 0), (0, 1)))
    index4 = (index4[:, ::2] << 4) | index4[:, 1::2]
    blocks = np.repeat(np.repeat(index8[::4, ::4], 4, 0), 4, 1)[:HEIGHT, :WIDTH]
    blue, green, red = (rgb[::-1, :, c].astype(np.uint16) for c in (2, 1, 0))
    five = ((red >> 3) << 10) | ((green >> 3) << 5) | (blue >> 3)
    files |= {
        "rgb.bmp": pillow(image, "BMP"),
        "gray.bmp": pillow(gray, "BMP"),
        "bilevel.bmp": pillow(image.convert("1"), "BMP"),
        "palette.bmp": bmp(40, 8, padded(index8[::-1]), table),
        "palette4.bmp": bmp(40, 4, padded(index4[::-1]), table[:64]),
        "rle8.bmp": bmp(40, 8, rle8(blocks), table, compression=1),
        "top_down.bmp": bmp(40, 24, padded(rgb[:, :, ::-1].reshape(HEIGHT, -1)), top_down=True),
        "rgbx.bmp": bmp(40, 32, np.dstack([rgb[::-1, :, ::-1], alpha]).tobytes()),
        "rgb555.bmp": bmp(40, 16, padded(five.astype("<u2").view(np.uint8).reshape(HEIGHT, -1))),
    }
    return files


def decode(name, data):
    """Upright RGB [height, width, 3], as the image processor sees it."""
    image = Image.open(io.BytesIO(data))
    if "16" in name and name.endswith(".png"):
        # Pillow clips 16-bit gray at 255 and cuts colours to their high byte: read the samples, scale with rounding.
        return decode_16(data)
    return convert_to_rgb(ImageOps.exif_transpose(image), return_numpy=True)


def decode_16(data):
    """One of the 16-bit files that `png` wrote."""
    width, height, _, color_type, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    start = data.index(b"IDAT")
    raw = zlib.decompress(data[start + 4 : start + 4 + struct.unpack(">I", data[start - 4 : start])[0]])
    samples = np.zeros((height, width, channels), np.uint32)
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    at = 0
    for x0, y0, dx, dy in passes:
        part = samples[y0::dy, x0::dx]
        for row in part:
            line = raw[at + 1 : at + 1 + row.size * 2]
            row[:] = np.frombuffer(line, ">u2").reshape(row.shape)
            at += 1 + row.size * 2
    samples = ((samples + 128) // 257).astype(np.uint8)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    return convert_to_rgb(Image.fromarray(samples.squeeze(), mode), return_numpy=True)


def crc(array):
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def resized():
    """Sizes: equal, halved, enlarged, strips, panoramas, odd ones; then random ones."""
    cases = [
        ((224, 224), (224, 224), 3),
        ((448, 448), (224, 224), 3),
        ((224, 500), (224, 224), 3),
        ((500, 224), (224, 224), 3),
        ((640, 480), (224, 224), 3),
        ((640, 480), (384, 384), 3),
        ((1, 1), (224, 224), 3),
        ((1, 20000), (224, 224), 3),
        ((20000, 1), (224, 224), 3),
        ((20000, 37), (224, 224), 3),
        ((3, 2), (384, 384), 3),
        ((223, 225), (224, 224), 3),
        ((383, 1000), (256, 384), 3),
        ((2000, 1500), (512, 512), 3),
    ]
    for resample in range(6):
        cases += [((301, 197), (224, 224), resample), ((50, 70), (224, 224), resample)]
        cases += [((224, 100), (224, 224), resample), ((1013, 769), (16, 32), resample)]
    random = np.random.default_rng(20)
    for _ in range(40):
        width, height = (int(v) for v in np.exp(random.uniform(0, np.log(900), 2)))
        side = int(random.choice([224, 256, 384]))
        cases.append(((width, height), (side, side), 3))
    for seed, ((width, height), (out_width, out_height), resample) in enumerate(cases):
        pixels = noise(width, height, seed)
        processor = SiglipImageProcessorPil(size={"height": out_height, "width": out_width}, resample=resample)
        image = Image.fromarray(pixels)
        values = processor(image, return_tensors="np")["pixel_values"]
        assert values.dtype == np.float32 and values.shape == (1, 3, out_height, out_width)
        yield {
            "from": [width, height],
            "to": [out_width, out_height],
            "resample": resample,
            "seed": seed,
            "resized_crc32": crc(image.resize((out_width, out_height), resample)),
            "pixel_values_crc32": crc(values.astype("<f4")),
        }


def configs():
    """What each level of each channel becomes: a 16 × 16 picture of all levels, not resized by its size."""
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)
    size = {"height": 16, "width": 16}
    for config in [
        {"size": size},
        {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "do_convert_rgb": None,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor",
            "processor_class": "SiglipProcessor",
            "resample": 2,
            "rescale_factor": 0.00392156862745098,
            "size": size,
        },
        {"size": size, "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]},
        {"size": size, "rescale_factor": 0.00784313725490196, "image_mean": 1.0, "image_std": 1.0},
        {"size": size, "do_normalize": False},
        {"size": size, "do_rescale": False, "image_mean": [127.5, 120.0, 110.25], "image_std": [58.4, 57.1, 57.4]},
        {"size": size, "do_rescale": False, "do_normalize": False},
    ]:
        processor = SiglipImageProcessorPil(**{key: v for key, v in config.items() if not key.endswith(("type", "class"))})
        values = processor(Image.fromarray(levels), return_tensors="np")["pixel_values"]
        bits = values.reshape(3, 256).astype("<f4").view("<u4")
        yield {"config": config, "bits": bits.tolist()}


def corpus():
    """What Pillow makes of each file of the corpus."""
    for path in sorted((OUT / "corpus").iterdir()):
        if path.suffix == ".json":
            continue
        try:
            pixels = convert_to_rgb(ImageOps.exif_transpose(Image.open(path)), return_numpy=True)
        except Exception as error:
            yield path.name, {"refused_by_pillow": f"{type(error).__name__}: {re.sub(r' .?/.*', '', str(error))}"}
        else:
            digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
            yield path.name, {"rgb_sha256": digest, "size": [pixels.shape[1], pixels.shape[0]]}


def turned():
    """Four colours in an AVIF for each EXIF orientation, which Pillow writes as its own boxes (irot, imir): red, green, blue, black from the top left."""
    image = Image.new("RGB", (64, 32))
    image.paste("red", (0, 0, 32, 16))
    image.paste("lime", (32, 0, 64, 16))
    image.paste("blue", (0, 16, 32, 32))
    for orientation in range(1, 9):
        yield f"{orientation}.avif", pillow(image, "AVIF", exif=exif(orientation), quality=90)


def main():
    (OUT / "pictures").mkdir(parents=True, exist_ok=True)
    for old in (OUT / "pictures").iterdir():
        old.unlink()
    decoded = b""
    entries = []
    for name, data in sorted(pictures().items()):
        (OUT / "pictures" / name).write_bytes(data)
        pixels = decode(name, data)
        height, width, _ = pixels.shape
        entries.append({"file": name, "width": width, "height": height, "offset": len(decoded)})
        decoded += np.ascontiguousarray(pixels).tobytes()
    (OUT / "decoded.bin").write_bytes(decoded)
    lists = {"pictures": entries, "resized": list(resized()), "configs": list(configs())}
    text = ",\n".join(
        f'"{key}": [\n' + ",\n".join(json.dumps(item) for item in items) + "\n]" for key, items in lists.items()
    )
    (OUT / "goldens.json").write_text("{\n" + text + "\n}\n")
    expected = ",\n".join(f"{json.dumps(file)}: {json.dumps(item)}" for file, item in corpus())
    (OUT / "corpus" / "expected.json").write_text("{\n" + expected + "\n}\n")
    (OUT / "avif").mkdir(exist_ok=True)
    for name, data in turned():
        (OUT / "avif" / name).write_bytes(data)


if __name__ == "__main__":
    main()
