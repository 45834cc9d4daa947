#!/usr/bin/env python3
"""Compares the native example with transformers, live, stage by stage; exits with 1 past a bound.

    python tests/reference/parity.py --model DIR [--images FILE...] [--labels "a, b"] [--backend cpu|wgpu] [--dtype D] [--crops N | --jpegs N]

DIR is any checkpoint folder (a true-size one: `model.py --preset base-patch16-224 --out DIR --tokenizer DIR`).
The towers are compared on the pixels that the example itself made, too, so that a stage that is wrong is named.

With --jpegs N the pictures are N JPEG photographs, made of seeded crops of the images at four qualities and three samplings,
every other one progressive; their pixel values are compared bit for bit, and the logits within 1e-4.

With --crops N the pictures are N seeded crops of the images and the labels twenty; the logits and the best label are
compared, within what weights held as --dtype promise (f32 1e-3; f16 0.05 and 99 % the same best label; q8 0.5 and
97 %; q4 1.0 and 93 %). Packages: requirements.txt beside this file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import model as reference

LABELS = "a cat, two dogs, a slice of pizza, San Francisco, Zürich, the real mountain view"
TWENTY = LABELS + """, a red house, a space shuttle, a man riding a horse, an old newspaper, green grass, a bowl of fruit,
the sea at night, a crowded street, a birthday cake, snow on a roof, a yellow school bus, a chess board, a piano, nothing"""
QUALITIES, SAMPLINGS = (30, 75, 90, 98), ("4:4:4", "4:2:2", "4:2:0")
PROMISED = {"f32": (1e-3, 1.0), "f16": (0.05, 0.99), "q8": (0.5, 0.97), "q4": (1.0, 0.93)}


def run_example(a, pictures, dump):
    """The example's answers as [image, label] logits and scores, and the tensors it dumped."""
    command = [a.example] if a.example else ["cargo", "run", "--release", "--quiet", "--example", "classify", "--"]
    command += ["--model", str(a.model), "--image", *map(str, pictures), "--labels", ", ".join(a.labels),
                "--backend", a.backend, "--dtype", a.dtype, "--template", reference.TEMPLATE, "--json"]
    if dump:
        command += ["--dump", str(dump)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=reference.HERE.parent.parent)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if [Path(line["image"]) for line in lines] != list(map(Path, pictures)):
        sys.exit(f"one line for each of {len(pictures)} pictures expected, got {[line['image'] for line in lines]}")
    by_label = [{r["label"]: r for r in line["results"]} for line in lines]
    table = lambda key: torch.tensor([[row[label][key] for label in a.labels] for row in by_label])
    if not dump:
        return table("logit"), table("score"), {}
    files = sorted(Path(dump).glob("*.safetensors"))
    if len(files) != 1:
        sys.exit(f"--dump should write one safetensors file, found {[f.name for f in files]}")
    return table("logit"), table("score"), load_file(files[0])


def crops(pictures, count, folder):
    """Seeded crops, in turn of each picture, without loss; the first are the whole pictures."""
    rng = np.random.default_rng(5)
    paths = []
    for i in range(count):
        picture = Image.open(pictures[i % len(pictures)]).convert("RGB")
        if i >= len(pictures):
            width, height = (max(1, int(side * rng.uniform(0.25, 0.8))) for side in picture.size)
            left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
            picture = picture.crop((left, top, left + width, top + height))
        paths.append(folder / f"{i:03}.png")
        picture.save(paths[-1], compress_level=1)
    return paths


def jpegs(pictures, count, folder):
    """JPEG photographs of every quality and sampling."""
    ways = [(quality, sampling) for quality in QUALITIES for sampling in SAMPLINGS]
    paths = []
    for i, path in enumerate(crops(pictures, -(-count // len(ways)), folder)):
        for quality, sampling in ways[: count - len(paths)]:
            paths.append(folder / f"{i:03}-{quality}-{sampling.replace(':', '')}.jpg")
            Image.open(path).save(paths[-1], quality=quality, subsampling=sampling, progressive=len(paths) % 2 == 0)
    return paths


def compare_crops(a, pictures, scratch):
    bound, share = PROMISED[a.dtype]
    pictures = crops(pictures, a.crops, scratch)
    logits, _, _ = run_example(a, pictures, None)
    torch_model = reference.load(a.model if not a.reference else a.reference)
    folder, config = a.reference or a.model, torch_model.config
    pixels = reference.pixel_values(pictures, config.vision_config.image_size)
    ids = reference.label_ids(folder, a.labels, config.text_config.max_position_embeddings)
    want = []
    with torch.inference_mode():
        texts = torch_model.text_model(input_ids=ids).pooler_output
        texts = texts / texts.norm(dim=-1, keepdim=True)
        for batch in pixels.split(4):
            images = torch_model.vision_model(pixel_values=batch).pooler_output
            images = images / images.norm(dim=-1, keepdim=True)
            want.append(images @ texts.T * torch_model.logit_scale.exp() + torch_model.logit_bias)
    want = torch.cat(want)
    difference = (logits.double() - want.double()).abs()
    same = (logits.argmax(1) == want.argmax(1)).double().mean().item()
    worst = difference.max().item()
    good = worst <= bound and same >= share
    print(f"{a.model.name}, {a.backend}, {a.dtype}: {len(pictures)} pictures × {len(a.labels)} labels, {reference.summary(want)}; "
          f"logits within {worst:.3f} (bound {bound:g}, root mean square {difference.pow(2).mean().sqrt():.3f}), "
          f"the same best label in {100 * same:.0f} % (bound {100 * share:.0f} %): {'ok' if good else 'FAIL'}")
    sys.exit(0 if good else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="*", help="default: three drawn PNGs")
    parser.add_argument("--labels", help="default: six, or twenty with --crops")
    parser.add_argument("--dtype", choices=PROMISED, default="f32", help="how the example holds the weights")
    parser.add_argument("--crops", type=int, help="compare this many crops of the images, logits and best label")
    parser.add_argument("--jpegs", type=int, help="compare this many JPEG photographs, made of crops of the images")
    parser.add_argument("--reference", type=Path, help="with --crops: the folder that transformers reads, where DIR is a converted one")
    parser.add_argument("--backend", choices=["cpu", "wgpu"], default="cpu")
    parser.add_argument("--bound", type=float, help="for logits (default 1e-3, with --jpegs 1e-4)")
    parser.add_argument("--example", help="a built example to run instead of `cargo run`")
    a = parser.parse_args()
    a.model = a.model.resolve()
    a.bound = a.bound or (1e-4 if a.jpegs else 1e-3)
    a.labels = [label.strip() for label in (a.labels or (TWENTY if a.crops else LABELS)).split(",")]
    reference.quiet()
    with tempfile.TemporaryDirectory() as scratch:
        pictures = [p.resolve() for p in a.images or []]
        if not pictures:
            pictures = reference.draw_pictures(Path(scratch) / "images")
        if a.crops:
            compare_crops(a, pictures, Path(scratch))
        if a.jpegs:
            pictures = jpegs(pictures, a.jpegs, Path(scratch))
        dump = Path(scratch) / "dump"
        dump.mkdir()
        logits, scores, ours = run_example(a, pictures, dump)

        torch_model = reference.load(a.model)
        whole = reference.classify(torch_model, a.model, pictures, a.labels)  # from the files
        pixels = ours["pixel_values"].float()
        same = reference.run(torch_model, pixels, whole["input_ids"])  # from the example's pixels

    rows = []

    def compare(stage, got, want, bound):
        if tuple(got.shape) != tuple(want.shape):
            rows.append((stage, f"{tuple(got.shape)} for {tuple(want.shape)}", "shape", bound, False))
            return
        worst = (got.double() - want.double()).abs().max().item()
        rows.append((stage, "×".join(map(str, got.shape)), f"{worst:.1e}", bound, bound is None or worst <= bound))

    compare("pixel_values", pixels, whole["pixel_values"], 0.0)
    compare("input_ids", ours["input_ids"], whole["input_ids"], 0.0)
    compare("image_embeds", ours["image_embeds"], same["image_embeds"], 1e-5)
    compare("text_embeds", ours["text_embeds"], same["text_embeds"], 1e-5)
    compare("logits, on the same pixels", logits, same["logits_per_image"], a.bound)
    compare("scores (sigmoid)", scores, same["probs"], a.bound / 4)
    compare("logits, from the files", logits, whole["logits_per_image"], a.bound)

    print(f"{a.model.name}, {a.backend}, {len(pictures)} pictures × {len(a.labels)} labels, "
          f"{reference.summary(whole['logits_per_image'])}\n")
    print("| stage | shape | max abs difference | bound | |\n|---|---|---|---|---|")
    for stage, shape, worst, bound, good in rows:
        print(f"| {stage} | {shape} | {worst} | {'–' if bound is None else f'{bound:g}'} | {'ok' if good else 'FAIL'} |")
    sys.exit(0 if all(row[-1] for row in rows) else 1)


if __name__ == "__main__":
    main()
