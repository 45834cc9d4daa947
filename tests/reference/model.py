#!/usr/bin/env python3
"""Checkpoints of the true SigLIP architecture with random weights, and what transformers computes with them.

    python tests/reference/model.py                                 # writes tests/fixtures/{model,configs}
    python tests/reference/model.py --preset base-patch16-224 --out DIR [--tokenizer DIR] [--images FILE...] [--labels "a, b"]

The first form makes the small models that the tests read, and resolves the Hub's `config.json` files; the
second makes a true-size folder outside git. Packages: requirements.txt beside this file.
"""

import argparse
import json
import math
import re
import shutil
import string
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import SiglipConfig, SiglipModel, logging
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
PAD = 1  # `</s>`: SigLIP ends and pads with the same token, SigLIP 2 ends with 1 (`<eos>`) too
TEMPLATE = "This is a photo of {}."

SMALL = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4)
HALF = dict(hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=2)
BASE = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
LARGE = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
SO400M = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)

FIXTURE_MODELS = {
    # one width, one file, f32: the shape of every published v1 checkpoint
    "tiny": dict(
        text=dict(SMALL, vocab_size=256, max_position_embeddings=16),
        vision=dict(SMALL, image_size=32, patch_size=8),
        dtype=torch.float32, shards=1, seed=7,
    ),
    # everything that differs somewhere differs here: pixels left over beside the patches, towers of unlike width
    # (text `projection_size`), depth, heads and epsilon, heads of 18 and 10 channels, an odd context; bf16 in shards
    "odd": dict(
        text=dict(hidden_size=30, intermediate_size=50, num_hidden_layers=1, num_attention_heads=3, vocab_size=257,
                  max_position_embeddings=7, layer_norm_eps=1e-3, projection_size=36),
        vision=dict(hidden_size=36, intermediate_size=70, num_hidden_layers=3, num_attention_heads=2, image_size=30,
                    patch_size=8, layer_norm_eps=1e-2),
        dtype=torch.bfloat16, shards=3, seed=8,
    ),
    "tiny-f16": dict(
        text=dict(HALF, vocab_size=256, max_position_embeddings=16),
        vision=dict(HALF, image_size=32, patch_size=8),
        dtype=torch.float16, shards=1, seed=9,
    ),
}

PRESETS = {
    "base-patch16-224": dict(text=dict(BASE, vocab_size=32000), vision=dict(BASE, image_size=224, patch_size=16)),
    # What folders are indexed with.
    "base-patch32-256": dict(text=dict(BASE, vocab_size=32000), vision=dict(BASE, image_size=256, patch_size=32)),
    "base-1layer": dict(text=dict(BASE, vocab_size=32000, num_hidden_layers=1),
                        vision=dict(BASE, image_size=224, patch_size=16, num_hidden_layers=1)),
    "large-patch16-256": dict(text=dict(LARGE, vocab_size=32000), vision=dict(LARGE, image_size=256, patch_size=16)),
    "so400m-patch14-384": dict(text=dict(SO400M, vocab_size=32000), vision=dict(SO400M, image_size=384, patch_size=14)),
    "siglip2-base-patch16-224": dict(text=dict(BASE, vocab_size=256000),
                                     vision=dict(BASE, image_size=224, patch_size=16)),
}

# Pieces of the small models' own vocabulary, longest words first to be preferred.
WORDS = """this is a photo of cat dog bird horse red blue green house tree car the and in on two three cats dogs
picture drawing small big black white water sky sun moon fish apple ball ing ed er s""".split()


# ---------------------------------------------------------------- models


def randomise(model, seed):
    """Weights that keep numbers in bounds and leave nothing without an effect."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=rng)
            if name == "logit_scale":
                tensor.fill_(math.log(117.33))
            elif name == "logit_bias":
                tensor.fill_(-12.93)
            elif "norm" in name:
                tensor.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                tensor.copy_(0.05 * noise)
            elif "position_embedding" in name:
                tensor.copy_(0.4 * noise)
            elif "token_embedding" in name or name.endswith("probe"):
                tensor.copy_(noise)
            else:  # linear layers and the patch convolution, by fan-in
                peaked = 2.0 if re.search(r"(q|k)_proj|in_proj_weight", name) else 1.0
                tensor.copy_(peaked / math.sqrt(tensor[0].numel()) * noise)


def random_model(spec):
    """A model whose every part matters: peaked attention, norms that are not the identity, logits around zero."""
    torch.manual_seed(spec.get("seed", 7))
    model = SiglipModel(SiglipConfig(text_config=spec["text"], vision_config=spec["vision"])).eval()
    randomise(model, spec.get("seed", 7))
    with torch.no_grad():
        # random towers lean to one side: let the bias bring the logits to where the sigmoid is not flat
        vision, text = model.config.vision_config, model.config.text_config
        logits = run(model, random_pixels(3, vision.image_size, 1),
                     random_ids(5, text.vocab_size, text.max_position_embeddings, 1))["logits_per_image"]
        model.logit_bias.sub_(logits.median() + 2.0)
    return model


def save_checkpoint(model, folder, dtype=torch.float32, shards=1):
    """The folder as the Hub has it: weights in `dtype`, config, image preprocessing."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    model.to(dtype)
    total = sum(t.numel() * t.element_size() for t in model.parameters())
    model.save_pretrained(folder, max_shard_size=total if shards == 1 else int(1.15 * total / shards))
    if len(list(folder.glob("model*.safetensors"))) != shards:
        raise SystemExit(f"{folder} did not come out as {shards} file(s)")
    (folder / "generation_config.json").unlink(missing_ok=True)
    side = model.config.vision_config.image_size
    write_json(folder / "preprocessor_config.json", {
        "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor", "processor_class": "SiglipProcessor",
        "resample": 3, "rescale_factor": 1 / 255, "size": {"height": side, "width": side},
    })


def load(folder):
    """The folder's model in f32, whatever its weights are stored as."""
    return SiglipModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def run(model, pixel_values, input_ids):
    """Every stage of both towers, by name."""
    stages = {}

    def record(name):
        def hook(_module, _inputs, output):
            stages[name] = output[0] if isinstance(output, tuple) else output
        return hook

    hooks = []
    for tower, module, norm in (("vision", model.vision_model, "post_layernorm"),
                                ("text", model.text_model, "final_layer_norm")):
        hooks.append(module.embeddings.register_forward_hook(record(f"{tower}.hidden.0")))
        for i, layer in enumerate(module.encoder.layers):
            hooks.append(layer.register_forward_hook(record(f"{tower}.hidden.{i + 1}")))
        hooks.append(getattr(module, norm).register_forward_hook(record(f"{tower}.last_hidden_state")))
    hooks.append(model.vision_model.head.attention.register_forward_hook(record("vision.head.attention")))
    with torch.inference_mode():
        out = model(pixel_values=pixel_values, input_ids=input_ids)
    for hook in hooks:
        hook.remove()
    stages.update({
        "pixel_values": pixel_values, "input_ids": input_ids,
        "vision.pooler_output": out.vision_model_output.pooler_output,
        "text.pooler_output": out.text_model_output.pooler_output,
        "image_embeds": out.image_embeds, "text_embeds": out.text_embeds,
        "logits_per_image": out.logits_per_image, "probs": torch.sigmoid(out.logits_per_image),
        "logit_scale": model.logit_scale.detach(), "logit_bias": model.logit_bias.detach(),
    })
    return {name: t.detach().clone().contiguous() for name, t in stages.items()}


# ---------------------------------------------------------------- inputs


def random_pixels(count, side, seed):
    """Pictures as preprocessing gives them: 8-bit levels mapped to -1..1; flat areas, ramps and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    pictures = []
    for i in range(count):
        planes = [128 + 100 * np.sin(rng.uniform(1, 9) * x + rng.uniform(1, 9) * y + rng.uniform(0, 6)) for _ in "rgb"]
        planes = np.stack(planes) + rng.normal(0, 20 * i, (3, side, side))
        pictures.append(planes.clip(0, 255).round())
    return torch.from_numpy((np.stack(pictures) / 255 - 0.5) / 0.5).float()


def random_ids(count, vocab, context, seed):
    """Labels from empty to over-long: tokens, then the end, then padding (the same id)."""
    rng = np.random.default_rng(seed)
    ids = np.full((count, context), PAD, np.int64)
    for row, length in zip(ids, [3, 0, context, context // 2, 1, 5, 8]):
        length = min(length, context - 1)
        row[:length] = rng.integers(3, vocab, length)
    return torch.from_numpy(ids)


def small_tokenizer(context):
    """A Unigram tokenizer built like SigLIP's, with 90 pieces of its own, and its configuration."""
    letters = string.ascii_lowercase + string.digits + "üé"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    pieces += [(c, -9.0 - i / 16) for i, c in enumerate(letters)]
    pieces += [(w if w in ("ing", "ed", "er") else "▁" + w, -4.0 - i / 16) for i, w in enumerate(WORDS)]
    end = {"id": "</s>", "type_id": 0}
    special = dict(single_word=False, lstrip=True, rstrip=True, normalized=True, special=True)
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=1, content="</s>", **special), dict(id=2, content="<unk>", **special)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": metaspace, "decoder": metaspace,
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": end}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": end},
                                    {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": end}],
                           "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
    }
    config = {"do_lower_case": True, "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>",
              "model_input_names": ["input_ids"], "model_max_length": context, "processor_class": "SiglipProcessor",
              "tokenizer_class": "SiglipTokenizer"}
    return tokenizer, config


def save_tokenizer(folder, context):
    tokenizer, config = small_tokenizer(context)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    write_json(folder / "tokenizer_config.json", config)


def canonical(text):
    """What SigLIP's Python tokenizer does before SentencePiece sees the text."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", text).strip()


def label_ids(folder, labels, context, template=TEMPLATE):
    """The ids of `template` filled with each label, as [label, context]."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    gemma = "Gemma" in json.loads((folder / "tokenizer_config.json").read_text()).get("tokenizer_class", "")
    pad, clean = (0, str.lower) if gemma else (PAD, canonical)  # SigLIP 2 keeps punctuation and has a pad of its own
    rows = []
    for label in labels:
        ids = tokenizer.encode(clean(template.replace("{}", label))).ids
        ids = ids if len(ids) <= context else ids[: context - 1] + [PAD]  # the end token stays
        rows.append(ids + [pad] * (context - len(ids)))
    return torch.tensor(rows)


def pixel_values(paths, side):
    """Files as transformers' PIL image processor sees them, [N, 3, side, side]."""
    processor = SiglipImageProcessorPil(size={"height": side, "width": side})
    pictures = [ImageOps.exif_transpose(Image.open(p)).convert("RGB") for p in paths]
    return torch.from_numpy(np.stack([np.asarray(processor(images=p).pixel_values[0]) for p in pictures]))


def draw_picture(path, seed=3, size=(45, 37)):
    """A small picture with edges and gradients."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 / width, y * 255 / height, 128 + 90 * np.sin(x / 5 + y / 7)], -1)
    for _ in range(5):
        x0, y0 = rng.integers(0, width), rng.integers(0, height)
        rgb[y0:y0 + height // 4, x0:x0 + width // 4] = rng.integers(0, 256, 3)
    Image.fromarray(rgb.round().astype(np.uint8)).save(path, optimize=True)


def draw_pictures(folder):
    """Three pictures: to be shrunk, of the usual size, and tall."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(3)]
    for i, (path, size) in enumerate(zip(paths, [(640, 480), (224, 224), (97, 401)])):
        draw_picture(path, seed=i, size=size)
    return paths


def classify(model, folder, pictures, labels, template=TEMPLATE):
    """The whole way from files and labels to scores: what the pipeline answers, as tensors."""
    config = model.config
    pixels = pixel_values(pictures, config.vision_config.image_size)
    ids = label_ids(folder, labels, config.text_config.max_position_embeddings, template)
    return run(model, pixels, ids)


# ---------------------------------------------------------------- writing


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def summary(logits):
    return f"logits {logits.min():.2f} … {logits.max():.2f}, spread over texts {logits.std(1).mean():.2f}"


def write_fixtures():
    labels = ["a cat", "two dogs", "the Sky", "water; big, black!", "Zürich 42"]
    picture = FIXTURES / "model" / "picture.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(picture)
    for name, spec in FIXTURE_MODELS.items():
        folder = FIXTURES / "model" / name
        save_checkpoint(random_model(spec), folder, spec["dtype"], spec["shards"])
        context = spec["text"]["max_position_embeddings"]
        save_tokenizer(folder, context)
        model = load(folder)
        pixels = random_pixels(3, spec["vision"]["image_size"], spec["seed"])
        ids = random_ids(5, spec["text"]["vocab_size"], context, spec["seed"])
        # In f64, rounded in the end: in f32 the reference's own rounding takes up to 4e-5 of the 1e-4 that logits of such a size may be off.
        goldens = run(load(folder).double(), pixels.double(), ids)
        goldens = {key: value.float() if value.is_floating_point() else value for key, value in goldens.items()}
        for key in goldens:  # hidden states are large: those of the first two inputs
            if ".hidden." in key or key.endswith("last_hidden_state"):
                goldens[key] = goldens[key][:2].clone()
        save_file(goldens, folder / "goldens.safetensors")
        whole = classify(model, folder, [picture], labels)
        write_json(folder / "classify.json", {
            "image": "../picture.png", "template": TEMPLATE, "labels": labels,
            "input_ids": whole["input_ids"].tolist(),
            "logits": whole["logits_per_image"][0].tolist(), "scores": whole["probs"][0].tolist(),
            "softmax": torch.softmax(whole["logits_per_image"][0], -1).tolist(),
        })
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {size / 1000:.0f} kB, "
              f"{summary(goldens['logits_per_image'])}; labels {whole['logits_per_image'][0].numpy().round(2)}")


def write_true_size(a):
    model = random_model(dict(PRESETS[a.preset], seed=a.seed))
    save_checkpoint(model, a.out)
    if a.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(a.tokenizer / name, a.out / name)
    else:
        save_tokenizer(a.out, model.config.text_config.max_position_embeddings)
    del model
    pictures = a.images
    if not pictures:
        pictures = draw_pictures(a.out / "images")
    labels = [label.strip() for label in a.labels.split(",")]
    goldens = classify(load(a.out), a.out, pictures, labels)
    small = {k: v for k, v in goldens.items() if not re.search(r"hidden|head\.attention", k)}
    save_file(small, a.out / "goldens.safetensors")
    write_json(a.out / "goldens.json", {"images": [str(p) for p in pictures], "labels": labels, "template": TEMPLATE})
    print(f"{a.out}: {summary(goldens['logits_per_image'])}")


def quiet():
    """No progress bars and no remarks on token ids that SigLIP doesn't use."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, help="make one true-size checkpoint instead of the fixtures")
    parser.add_argument("--out", type=Path, help="its folder")
    parser.add_argument("--tokenizer", type=Path, help="folder of a real tokenizer.json and tokenizer_config.json (default: a small one of our own)")
    parser.add_argument("--images", type=Path, nargs="*", help="pictures for the goldens (default: drawn)")
    parser.add_argument("--labels", default="a cat, two dogs, a red house, San Francisco, Zürich, the real mountain view")
    parser.add_argument("--seed", type=int, default=7)
    a = parser.parse_args()
    quiet()
    if not a.preset:
        write_fixtures()
        import configs
        configs.write()
    elif not a.out:
        parser.error("--preset needs --out DIR")
    else:
        write_true_size(a)


if __name__ == "__main__":
    main()
