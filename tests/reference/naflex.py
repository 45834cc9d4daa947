#!/usr/bin/env python3
"""SigLIP 2 NaFlex (`Siglip2Model`) with random weights, and what transformers computes with it for pictures of every shape.

    python tests/reference/naflex.py                                             # writes tests/fixtures/model/naflex
    python tests/reference/naflex.py --true-size --tokenizer DIR --out DIR       # google/siglip2-base-patch16-naflex in size
    python tests/reference/naflex.py --out DIR --compare RESULTS [--patches N]   # what `examples/classify --json` answered for it

Packages: requirements.txt beside this file.
"""

import argparse
import json
import shutil
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import Siglip2Config, Siglip2Model
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from model import BASE, FIXTURES, HALF, TEMPLATE, draw_picture, label_ids, quiet, randomise, save_tokenizer, summary, write_json

LABELS = ["a cat", "two dogs", "the Sky", "water; big, black!", "Zürich 42"]
# from 1:10 to 10:1, to be shrunk and to be enlarged, and one that is nothing but itself
SHAPES = [(12, 120), (37, 45), (64, 64), (3, 5), (300, 100), (120, 12), (1, 1), (61, 250)]


def interpolate(table, size, **how):
    """PyTorch's own, which is wrong on the CPU where a table becomes one column wide (2.15): then with the axes exchanged."""
    if size[1] != 1:
        return plain_interpolate(table, size=size, **how)
    return plain_interpolate(table.transpose(2, 3).contiguous(), size=size[::-1], **how).transpose(2, 3)


plain_interpolate = torch.nn.functional.interpolate


def random_model(text, vision, seed):
    torch.manual_seed(seed)
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)).eval()
    randomise(model, seed)
    return model


def answers(folder, pictures, labels, patches):
    """Pixel values and logits of each picture, padded as transformers does it."""
    model = Siglip2Model.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    processor = Siglip2ImageProcessorPil.from_pretrained(folder)
    config = model.config
    ids = label_ids(folder, labels, config.text_config.max_position_embeddings)
    inputs = processor(images=[Image.open(path).convert("RGB") for path in pictures], max_num_patches=patches, return_tensors="pt")
    with torch.inference_mode(), mock.patch("torch.nn.functional.interpolate", interpolate):
        out = model(input_ids=ids, **inputs)
    return inputs, out


def pictures_in(folder, scale=1):
    paths = []
    for i, (width, height) in enumerate(SHAPES):
        paths.append(folder / f"{i}.png")
        draw_picture(paths[-1], seed=i, size=(width * scale, height * scale))
    return paths


def write(folder, text, vision, patches, labels, pictures, tokenizer=None):
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, folder / name)
    else:
        save_tokenizer(folder, text["max_position_embeddings"])
    model = random_model(text, vision, 21)
    Siglip2ImageProcessorPil(patch_size=vision["patch_size"], max_num_patches=patches[0]).save_pretrained(folder)
    model.save_pretrained(folder)
    _, out = answers(folder, pictures, labels, patches[0])
    with torch.no_grad():
        model.logit_bias.sub_(out.logits_per_image.median() + 2.0)
    model.save_pretrained(folder)
    results = []
    for count in patches:
        inputs, out = answers(folder, pictures, labels, count)
        results.append(dict(patches=count, shapes=inputs["spatial_shapes"].tolist(), logits=out.logits_per_image.tolist()))
        print(folder.name, count, inputs["spatial_shapes"].tolist(), summary(out.logits_per_image))
    write_json(folder / "classify.json", dict(template=TEMPLATE, labels=labels, pictures=[path.name for path in pictures], results=results))
    return answers(folder, pictures, labels, patches[0])


def compare(out, answered, patches):
    goldens = json.loads((out / "classify.json").read_text())
    expected = next(r for r in goldens["results"] if patches in (None, r["patches"]))["logits"]
    lines = [json.loads(line) for line in answered.read_text().splitlines() if line.startswith("{")]
    worst = 0
    for line, logits in zip(lines, expected, strict=True):
        got = {result["label"]: result["logit"] for result in line["results"]}
        worst = max([worst, *(abs(got[label] - logit) for label, logit in zip(goldens["labels"], logits, strict=True))])
    print(f"logits: largest difference {worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--true-size", action="store_true", help="make one of true size instead of the fixture")
    parser.add_argument("--tokenizer", type=Path, help="folder of SigLIP 2's tokenizer.json and tokenizer_config.json")
    parser.add_argument("--out", type=Path, help="its folder")
    parser.add_argument("--compare", type=Path, help="what the example answered with --json")
    parser.add_argument("--patches", type=int, help="the example's --max-patches")
    a = parser.parse_args()
    quiet()
    if a.compare:
        compare(a.out, a.compare, a.patches)
    elif a.true_size:
        a.out.mkdir(parents=True, exist_ok=True)
        text = dict(BASE, vocab_size=256000, max_position_embeddings=64) if a.tokenizer else dict(BASE, vocab_size=256, max_position_embeddings=64)
        vision = dict(BASE, num_patches=256, patch_size=16)
        write(a.out, text, vision, [256, 1024], [label for label in LABELS if "," not in label], pictures_in(a.out, 4), a.tokenizer)  # the example takes commas for separators
    else:
        folder = FIXTURES / "model" / "naflex"
        folder.mkdir(parents=True, exist_ok=True)
        text = dict(HALF, vocab_size=256, max_position_embeddings=16)
        vision = dict(HALF, num_patches=16, patch_size=8)
        inputs, _ = write(folder, text, vision, [20, 50], LABELS, pictures_in(folder))
        # of the long ones and of one that is enlarged
        save_file({f"pixel_values.{i}": inputs["pixel_values"][i][:inputs["pixel_attention_mask"][i].sum()].contiguous() for i in (0, 3, 4)}, folder / "goldens.safetensors")


if __name__ == "__main__":
    main()
