#!/usr/bin/env python3
"""Fine-tuned classifiers (`SiglipForImageClassification`, and NaFlex's) with random weights, and what transformers' pipeline answers.

    python tests/reference/classifiers.py                                                   # writes tests/fixtures/model/classifier-*
    python tests/reference/classifiers.py --preset base-patch16-224 --count 1000 --out DIR  # one of true size
    python tests/reference/classifiers.py --out DIR --compare RESULTS                       # what `examples/classify --json` answered for it

Packages: requirements.txt beside this file.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from transformers import Siglip2Config, Siglip2ForImageClassification, SiglipConfig, SiglipForImageClassification, pipeline
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from explain import kept
from model import FIXTURES, HALF, PRESETS, draw_pictures, pixel_values, quiet, randomise, save_checkpoint, write_json

FIXTURE_CLASSIFIERS = {
    # as most are: labels that exclude each other
    "classifier-single": dict(
        vision=dict(HALF, image_size=32, patch_size=8), labels=["Cat", "dog", "a green bird, flying"],
        problem_type="single_label_classification", dtype=torch.float32, seed=11,
    ),
    # one label alone, pixels left over beside the patches, heads of 18 channels, no word on the kind of problem
    "classifier-one": dict(
        vision=dict(hidden_size=36, intermediate_size=70, num_hidden_layers=1, num_attention_heads=2, image_size=30, patch_size=8),
        labels=["damaged"], problem_type=None, dtype=torch.bfloat16, seed=12,
    ),
    # labels that may all be true
    "classifier-multi": dict(
        vision=dict(HALF, image_size=32, patch_size=8), labels=["red", "round", "shiny", "wet", "old", "tall", "café", "red"],
        problem_type="multi_label_classification", dtype=torch.float16, seed=13,
    ),
    # pictures in their own shape
    "classifier-naflex": dict(
        vision=dict(HALF, num_patches=16, patch_size=8), labels=["wide", "tall", "square"],
        problem_type="single_label_classification", dtype=torch.float32, seed=14,
    ),
}


def random_classifier(spec):
    labels = spec["labels"]
    naflex = "num_patches" in spec["vision"]
    config_class, model_class = (Siglip2Config, Siglip2ForImageClassification) if naflex else (SiglipConfig, SiglipForImageClassification)
    config = config_class(vision_config=spec["vision"], id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
                          problem_type=spec["problem_type"])
    torch.manual_seed(spec["seed"])
    model = model_class(config).eval()
    randomise(model, spec["seed"])
    return model


def is_naflex(folder):
    return json.loads((folder / "config.json").read_text())["model_type"] == "siglip2"


def load(folder):
    model_class = Siglip2ForImageClassification if is_naflex(folder) else SiglipForImageClassification
    return model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def answers(folder, pictures):
    """For each picture the logits and the pipeline's scores, both in the order of the labels."""
    model = load(folder)
    if is_naflex(folder):
        processor = Siglip2ImageProcessorPil.from_pretrained(folder)
    else:
        side = model.config.vision_config.image_size
        processor = SiglipImageProcessorPil(size={"height": side, "width": side})
    classify = pipeline("image-classification", model=model, image_processor=processor)
    count = model.config.num_labels
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        with torch.inference_mode():
            logits = model(**processor(images=picture, return_tensors="pt")).logits[0]
        scores = [answer["score"] for answer in classify(picture, top_k=count)]
        # the pipeline gives them sorted
        order = logits.argsort(descending=True, stable=True).tolist()
        yield logits.tolist(), [scores[order.index(i)] for i in range(count)]


def explained(folder, picture, labels):
    """What the first label's logit (of several of that name the highest) loses where the head looks away from a patch: see explain.py."""
    model = load(folder)
    config = model.config.vision_config
    if is_naflex(folder):
        inputs = Siglip2ImageProcessorPil.from_pretrained(folder)(images=Image.open(picture).convert("RGB"), return_tensors="pt")
        rows, columns = inputs["spatial_shapes"][0].tolist()
    else:
        inputs = dict(pixel_values=pixel_values([picture], config.image_size))
        rows = columns = config.image_size // config.patch_size
    with torch.inference_mode():
        tokens = model.vision_model(**inputs).last_hidden_state[0, :rows * columns]

    def logits(seen):
        # without any patch, the mean is nothing
        mean = seen @ tokens / seen.sum() if seen.any() else torch.zeros(tokens.shape[-1])
        with torch.inference_mode():
            return model.classifier(mean).tolist()

    whole = logits(torch.ones(rows * columns))
    row = max((i for i, label in enumerate(labels) if label == labels[0]), key=whole.__getitem__)
    values = [whole[row] - logits(seen)[row] for seen in kept(rows, columns)]
    return dict(rows=rows, columns=columns, values=values)


def write(folder, spec, pictures):
    model = random_classifier(spec)
    vision = spec["vision"]
    if "num_patches" in vision:
        folder.mkdir(parents=True, exist_ok=True)
        model.to(spec["dtype"]).save_pretrained(folder)
        Siglip2ImageProcessorPil(patch_size=vision["patch_size"], max_num_patches=vision["num_patches"]).save_pretrained(folder)
    else:
        save_checkpoint(model, folder, spec["dtype"])
    results = [dict(logits=logits, scores=scores) for logits, scores in answers(folder, pictures)]
    for result in results:
        shown = [round(value, 2) for value in result["logits"][:8]]
        print(folder.name, sum(file.stat().st_size for file in folder.iterdir()), shown)
    return results


def compare(out, answered):
    """The largest differences of what the example answered."""
    goldens = json.loads((out / "goldens.json").read_text())
    lines = [json.loads(line) for line in answered.read_text().splitlines() if line.startswith("{")]
    for name, key in [("logits", "logit"), ("scores", "score")]:
        largest = 0
        for line, golden in zip(lines, goldens["results"], strict=True):
            got = {result["label"]: result[key] for result in line["results"]}
            largest = max([largest, *(abs(got[label] - expected) for label, expected in zip(goldens["labels"], golden[name], strict=True))])
        print(f"{name}: largest difference {largest:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, help="make one of true size instead of the fixtures")
    parser.add_argument("--count", type=int, default=1000, help="how many labels it has")
    parser.add_argument("--out", type=Path, help="its folder")
    parser.add_argument("--compare", type=Path, help="what the example answered with --json")
    a = parser.parse_args()
    quiet()
    if a.compare:
        compare(a.out, a.compare)
    elif a.preset:
        labels = [f"label {i}" for i in range(a.count)]
        spec = dict(vision=PRESETS[a.preset]["vision"], labels=labels, problem_type="single_label_classification", dtype=torch.float32, seed=7)
        pictures = draw_pictures(a.out / "images")
        write_json(a.out / "goldens.json", dict(labels=labels, results=write(a.out, spec, pictures)))
    else:
        for name, spec in FIXTURE_CLASSIFIERS.items():
            folder = FIXTURES / "model" / name
            picture = FIXTURES / "model" / "picture.png"
            [result] = write(folder, spec, [picture])
            write_json(folder / "classify.json", dict(image="../picture.png", labels=spec["labels"], **result, explained=explained(folder, picture, spec["labels"])))


if __name__ == "__main__":
    main()
