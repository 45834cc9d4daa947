#!/usr/bin/env python3
"""The `config.json` of every fixed-resolution SigLIP and SigLIP 2 on the Hub, and what transformers makes of it.

    python tests/reference/configs.py        # writes tests/fixtures/configs (model.py does so too)

The Hub's files leave out keys that have the default value; NAME.json here does likewise, expected.json holds the
resolved values and the number of parameters. `unsupported/` has neighbours with another architecture.
"""

import json
import math
from pathlib import Path

import torch
from transformers import Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "configs"

LARGE = dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24)
SO400M = dict(hidden_size=1152, intermediate_size=4304, num_attention_heads=16, num_hidden_layers=27)
GIANT = dict(hidden_size=1536, intermediate_size=6144, num_attention_heads=16, num_hidden_layers=40)
# the first checkpoints name some values that are defaults too
BASE_TEXT = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, vocab_size=32000)


def hub(text, vision, **top):
    return {
        "architectures": ["SiglipModel"], "initializer_factor": 1.0, "model_type": "siglip",
        "text_config": dict(text, model_type="siglip_text_model"), "torch_dtype": "float32",
        "transformers_version": "4.37.0.dev0", "vision_config": dict(vision, model_type="siglip_vision_model"), **top,
    }


def checkpoints():
    first = hub(BASE_TEXT, dict(patch_size=16), _name_or_path="nielsr/siglip-base-patch16-224")
    del first["torch_dtype"]
    found = {"siglip-base-patch16-224": first}
    for side in (256, 384, 512):
        found[f"siglip-base-patch16-{side}"] = hub(BASE_TEXT, dict(image_size=side))
    found["siglip-base-patch16-256-multilingual"] = hub(dict(vocab_size=250000), dict(image_size=256))
    for side in (256, 384):
        found[f"siglip-large-patch16-{side}"] = hub(dict(LARGE, vocab_size=32000), dict(LARGE, image_size=side))
    found["siglip-so400m-patch14-224"] = hub(
        dict(SO400M, max_position_embeddings=16, vocab_size=32000), dict(SO400M, image_size=224, patch_size=14))
    found["siglip-so400m-patch14-384"] = hub(SO400M, dict(SO400M, image_size=384, patch_size=14))
    found["siglip-so400m-patch16-256-i18n"] = hub(
        dict(SO400M, projection_size=1152, vocab_size=250000), dict(SO400M, image_size=256))

    def second(name, text, vision):
        found[f"siglip2-{name}"] = hub(dict(text, vocab_size=256000), vision, transformers_version="4.49.0.dev0")

    second("base-patch16-224", {}, {})
    for side in (256, 384, 512):
        second(f"base-patch16-{side}", {}, dict(image_size=side))
        second(f"large-patch16-{side}", dict(LARGE, projection_size=1024), dict(LARGE, image_size=side))
        second(f"so400m-patch16-{side}", dict(SO400M, projection_size=1152), dict(SO400M, image_size=side))
    second("base-patch32-256", {}, dict(image_size=256, patch_size=32))
    second("so400m-patch14-224", dict(SO400M, projection_size=1152), dict(SO400M, patch_size=14))
    second("so400m-patch14-384", dict(SO400M, projection_size=1152), dict(SO400M, image_size=384, patch_size=14))
    for side in (256, 384):  # a So400m text tower whose head projects to the width of the giant vision tower
        second(f"giant-opt-patch16-{side}", dict(SO400M, projection_size=1536), dict(GIANT, image_size=side))
    for size, text in (("base", {}), ("so400m", dict(SO400M, projection_size=1152))):
        vision = {key: value for key, value in text.items() if key != "projection_size"}
        found[f"siglip2-{size}-patch16-naflex"] = {
            "architectures": ["Siglip2Model"], "initializer_factor": 1.0, "model_type": "siglip2",
            "text_config": dict(text, model_type="siglip2_text_model", vocab_size=256000), "torch_dtype": "float32",
            "transformers_version": "4.49.0.dev0",
            "vision_config": dict(vision, model_type="siglip2_vision_model", num_patches=256),
        }
    return found


UNSUPPORTED = {
    "clip-vit-base-patch32": {
        "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "clip", "projection_dim": 512, "text_config": {"model_type": "clip_text_model"},
        "vision_config": {"model_type": "clip_vision_model"},
    },
}


def resolve(raw):
    naflex = raw["model_type"] == "siglip2"
    config_class, model_class = (Siglip2Config, Siglip2Model) if naflex else (SiglipConfig, SiglipModel)
    config = config_class.from_dict(json.loads(json.dumps(raw)))
    with torch.device("meta"):
        parameters = sum(p.numel() for p in model_class(config).parameters())
    if naflex:  # the side of what the position table is for
        config.vision_config.image_size = math.isqrt(config.vision_config.num_patches) * config.vision_config.patch_size
    shared = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
              "layer_norm_eps"]
    pick = lambda part, keys: {key: getattr(part, key) for key in keys}
    return {
        "text": pick(config.text_config, shared + ["vocab_size", "max_position_embeddings", "projection_size"]),
        "vision": pick(config.vision_config, shared + ["image_size", "patch_size", "num_channels", "vision_use_head"]),
        "parameters": parameters,
    }


def write():
    (OUT / "unsupported").mkdir(parents=True, exist_ok=True)
    for old in [*OUT.glob("siglip*.json"), *OUT.glob("unsupported/*.json")]:  # layouts.py has files there too
        old.unlink()
    dump = lambda path, value: path.write_text(json.dumps(value, indent=1) + "\n")
    found = checkpoints()
    for name, raw in found.items():
        dump(OUT / f"{name}.json", raw)
    for name, raw in UNSUPPORTED.items():
        dump(OUT / "unsupported" / f"{name}.json", raw)
    expected = {name: resolve(raw) for name, raw in found.items()}
    dump(OUT / "expected.json", expected)
    for name, value in expected.items():
        print(f"{name}: {value['parameters']:,} parameters")


if __name__ == "__main__":
    from transformers import logging

    logging.set_verbosity_error()
    write()
