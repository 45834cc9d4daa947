#!/usr/bin/env python3
"""The small model in the layouts of other libraries, written by these libraries, and what is computed with the same numbers.

    python tests/reference/layouts.py        # writes tests/fixtures/model/{mlx-8bit,mlx-mixed,mlx-naflex,open-clip} and tests/fixtures/configs/open_clip.json
    python tests/reference/layouts.py --open-clip ViT-B-16-SigLIP --tokenizer DIR --out DIR [--images FILE...]

The second form makes a folder as open_clip publishes them, of true size with random weights, with what open_clip itself computes; then
`cargo run --release --example classify -- --model DIR --json ...` can be compared: --compare RESULTS does that.

Packages: requirements.txt beside this file, and mlx==0.32.4 (on Linux with mlx-cpu), open_clip_torch==3.3.0, timm==1.0.31, ftfy==6.3.1.
"""

import argparse
import json
import math
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import model as reference
from model import FIXTURES, TEMPLATE, classify, load, quiet, write_json

LABELS = ["a cat", "two dogs", "the Sky", "water; big, black!", "Zürich 42"]
PICTURE = FIXTURES / "model" / "picture.png"


# ---------------------------------------------------------------- MLX


def mlx_name(name):
    """The name that mlx-embeddings gives to a parameter of transformers."""
    tower = name.split(".")[0]
    if tower in ("vision_model", "text_model"):
        name = f"{tower}.{name}"
    return name.replace("attention.in_proj_", "attention.in_proj.")


def write_mlx(folder, ways):
    """`ways` are (bits, group), which quantized tensors take in turn."""
    import mlx.core as mx

    source, folder = FIXTURES / "model" / "tiny", FIXTURES / "model" / folder
    folder.mkdir(parents=True, exist_ok=True)
    out, exact, own, turn = {}, {}, {}, 0
    for name, tensor in load_file(source / "model.safetensors").items():
        values = mx.array(tensor.numpy()).astype(mx.float16)
        ours = mlx_name(name)
        bits, group = ways[turn % len(ways)]
        # what `nn.quantize` quantizes: linear layers and embeddings whose width is whole groups
        if name.endswith(".weight") or name.endswith("in_proj_weight"):
            if values.ndim == 2 and values.shape[1] % group == 0:
                turn += 1
                codes, scales, biases = mx.quantize(values, group_size=group, bits=bits)
                stem = ours.removesuffix(".weight")
                out |= {f"{stem}.weight": codes, f"{stem}.scales": scales, f"{stem}.biases": biases}
                own[stem] = {"group_size": group, "bits": bits}
                # in f32, so that nothing is rounded once more
                wide = [scales.astype(mx.float32), biases.astype(mx.float32)]
                exact[name] = np.array(mx.dequantize(codes, *wide, group_size=group, bits=bits))
                continue
        if values.ndim == 4:
            out[ours] = mx.contiguous(values.transpose(0, 2, 3, 1))
        else:
            out[ours] = values
        exact[name] = np.array(values.astype(mx.float32))
    mx.save_safetensors(str(folder / "model.safetensors"), out, metadata={"format": "mlx"})
    config = json.loads((source / "config.json").read_text())
    bits, group = ways[0]
    quantization = {"group_size": group, "bits": bits}
    if len(ways) > 1:
        quantization |= own
    write_json(folder / "config.json", config | {"quantization": quantization, "quantization_config": quantization})
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    model = load(source)
    model.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in exact.items()})
    whole = classify(model, folder, [PICTURE], LABELS)
    write_golden(folder, whole["logits_per_image"][0])


def write_mlx_naflex():
    """NaFlex, whose patches are embedded by a linear layer, which is quantized as well."""
    import mlx.core as mx

    import naflex

    source, folder = FIXTURES / "model" / "naflex", FIXTURES / "model" / "mlx-naflex"
    folder.mkdir(parents=True, exist_ok=True)
    out, exact = {}, {}
    bits, group = 8, 32
    for name, tensor in load_file(source / "model.safetensors").items():
        values = mx.array(tensor.numpy()).astype(mx.float16)
        if (name.endswith(".weight") or name.endswith("in_proj_weight")) and values.ndim == 2 and values.shape[1] % group == 0:
            codes, scales, biases = mx.quantize(values, group_size=group, bits=bits)
            stem = mlx_name(name).removesuffix(".weight")
            out |= {f"{stem}.weight": codes, f"{stem}.scales": scales, f"{stem}.biases": biases}
            exact[name] = np.array(mx.dequantize(codes, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group, bits=bits))
        else:
            out[mlx_name(name)] = values
            exact[name] = np.array(values.astype(mx.float32))
    mx.save_safetensors(str(folder / "model.safetensors"), out, metadata={"format": "mlx"})
    config = json.loads((source / "config.json").read_text())
    quantization = {"group_size": group, "bits": bits}
    write_json(folder / "config.json", config | {"quantization": quantization, "quantization_config": quantization})
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    golden = json.loads((source / "classify.json").read_text())
    with tempfile.TemporaryDirectory() as exactly:
        # as a folder of transformers, with the same numbers
        for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(source / name, Path(exactly) / name)
        save_file({name: torch.from_numpy(np.array(values)) for name, values in exact.items()}, Path(exactly) / "model.safetensors", metadata={"format": "pt"})
        _, answered = naflex.answers(Path(exactly), [source / name for name in golden["pictures"]], golden["labels"], golden["results"][0]["patches"])
    write_json(folder / "classify.json", {"template": TEMPLATE, "labels": golden["labels"], "pictures": golden["pictures"], "logits": answered.logits_per_image.tolist()})
    print(folder.name, sum(f.stat().st_size for f in folder.iterdir()), reference.summary(answered.logits_per_image))


def write_golden(folder, logits):
    write_json(folder / "classify.json", {"image": "../picture.png", "template": TEMPLATE, "labels": LABELS, "logits": logits.tolist()})
    print(folder.name, sum(f.stat().st_size for f in folder.iterdir()), logits.numpy().round(2))


# ---------------------------------------------------------------- open_clip


def randomise(model, seed=7):
    """As `model.random_model`: every part matters, and logits are around zero once the bias is set."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=rng)
            if name == "logit_scale":
                tensor.fill_(math.log(117.33))
            elif name == "logit_bias":
                tensor.fill_(-12.93)
            elif "norm" in name or "ln_" in name:
                tensor.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                tensor.copy_(0.05 * noise)
            elif "pos_embed" in name or "positional" in name:
                tensor.copy_(0.4 * noise)
            elif "token_embedding" in name or name.endswith("latent"):
                tensor.copy_(noise)
            else:  # open_clip's text projection is [in, out] only without a bias, which SigLIP's has
                peaked = 1.6 if "qkv" in name or "in_proj_weight" in name or ".kv." in name else 1.0
                tensor.copy_(peaked / math.sqrt(tensor[0].numel()) * noise)
    return model.eval()


def open_clip_logits(model, pixels, ids):
    with torch.inference_mode():
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
        return images, texts, model.logit_scale.exp() * images @ texts.T + model.logit_bias


def write_open_clip():
    """open_clip's own classes in small; transformers' config.json beside them, as timm's names have no small sizes."""
    import open_clip
    import timm

    source, folder = FIXTURES / "model" / "tiny", FIXTURES / "model" / "open-clip"
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    v, t = config["vision_config"], config["text_config"]
    create = timm.create_model

    def small(name, **kwargs):
        return create(name, embed_dim=v["hidden_size"], depth=v["num_hidden_layers"], num_heads=v["num_attention_heads"],
                      mlp_ratio=v["intermediate_size"] / v["hidden_size"], img_size=v["image_size"], patch_size=v["patch_size"], **kwargs)

    text = dict(context_length=t["max_position_embeddings"], vocab_size=t["vocab_size"], width=t["hidden_size"], heads=t["num_attention_heads"],
                layers=t["num_hidden_layers"], mlp_ratio=t["intermediate_size"] / t["hidden_size"], no_causal_mask=True, proj_bias=True,
                pool_type="last", norm_kwargs={"eps": 1e-6}, act_kwargs={"approximate": "tanh"})
    vision = dict(image_size=v["image_size"], timm_model_name="vit_base_patch16_siglip_224", timm_pool="map", timm_proj="none")
    with mock.patch("timm.create_model", small):
        model = open_clip.model.CustomTextCLIP(v["hidden_size"], vision, text, init_logit_bias=-10.0)
    randomise(model)
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    # SigLIP 2's mixture: timm's tower has the exact GELU here, open_clip's the one in tanh form
    v["hidden_act"], t["hidden_act"] = "gelu", "gelu_pytorch_tanh"
    write_json(folder / "config.json", config)
    pixels = reference.pixel_values([PICTURE], v["image_size"])
    ids = reference.label_ids(folder, LABELS, t["max_position_embeddings"])
    with torch.no_grad():
        model.logit_bias.sub_(open_clip_logits(model, pixels, ids)[2].median() + 2.0)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    write_golden(folder, open_clip_logits(model, pixels, ids)[2][0])


def write_open_clip_configs():
    """The published configurations, and what the classes that they make have in them."""
    import open_clip

    def encoder(width, hidden, blocks, heads, mlp, act, norm):
        tanh = getattr(act, "approximate", None) == "tanh" or type(act).__name__ == "GELUTanh"
        return dict(hidden_size=width, intermediate_size=hidden, num_hidden_layers=blocks, num_attention_heads=heads,
                    layer_norm_eps=norm.eps, hidden_act="gelu_pytorch_tanh" if tanh else "gelu")

    configs = {}
    for name in open_clip.list_models():
        if "-SigLIP" not in name:
            continue
        config = open_clip.get_model_config(name)
        with torch.device("meta"):
            model = open_clip.model.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
        trunk, text = model.visual.trunk, model.text
        block, resblock = trunk.blocks[-1], text.transformer.resblocks[-1]
        assert type(trunk.attn_pool.mlp.act) is type(block.mlp.act) and trunk.attn_pool.mlp.act.__dict__.keys() == block.mlp.act.__dict__.keys()
        # what open_clip writes beside the weights
        preprocess = dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic", resize_mode="squash")
        configs[name] = {
            "open_clip_config": {"model_cfg": config, "preprocess_cfg": preprocess},
            "vision": encoder(trunk.embed_dim, block.mlp.fc1.out_features, len(trunk.blocks), block.attn.num_heads, block.mlp, block.mlp.act, block.norm1)
            | {"image_size": model.visual.image_size[0], "patch_size": trunk.patch_embed.patch_size[0], "patches": trunk.pos_embed.shape[1]},
            "text": encoder(text.width, resblock.mlp.c_fc.out_features, text.transformer.layers, text.heads, resblock.mlp, resblock.mlp.gelu, resblock.ln_1)
            | {"vocab_size": text.vocab_size, "max_position_embeddings": text.context_length,
               "projection_size": getattr(text.text_projection, "out_features", None)},
        }
    write_json(FIXTURES / "configs" / "open_clip.json", configs)
    print(len(configs), "configurations of open_clip")


def true_size(a):
    """A folder as `open_clip.push_to_hf_hub` writes it, and what open_clip makes of pictures and labels."""
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    a.out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(a.tokenizer / name, a.out / name)
    config = open_clip.get_model_config(a.open_clip)
    model, _, preprocess = open_clip.create_model_and_transforms(a.open_clip, image_mean=[0.5] * 3, image_std=[0.5] * 3,
                                                                 image_interpolation="bicubic", image_resize_mode="squash")
    randomise(model)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(a.out), context_length=config["text_cfg"]["context_length"], **config["text_cfg"]["tokenizer_kwargs"])
    pictures = a.images or reference.draw_pictures(a.out / "images")
    pixels = torch.stack([preprocess(Image.open(path)) for path in pictures])
    ids = tokenizer([TEMPLATE.replace("{}", label) for label in a.labels])
    with torch.no_grad():
        model.logit_bias.sub_(open_clip_logits(model, pixels, ids)[2].median() + 2.0)
    images, texts, logits = open_clip_logits(model, pixels, ids)
    save_for_hf(model, tokenizer, config, str(a.out), safe_serialization=True)
    save_file({"image_embeds": images, "text_embeds": texts, "logits_per_image": logits, "input_ids": ids, "pixel_values": pixels}, a.out / "goldens.safetensors")
    write_json(a.out / "goldens.json", {"images": [str(p) for p in pictures], "labels": a.labels, "template": TEMPLATE})
    print(a.out, reference.summary(logits))


def compare(a):
    """What the example dumped, and its answers, against the goldens."""
    goldens = load_file(a.out / "goldens.safetensors")
    labels = json.loads((a.out / "goldens.json").read_text())["labels"]
    lines = [json.loads(line) for line in a.compare.read_text().splitlines() if line.startswith("{")]
    logits = torch.tensor([[next(r["logit"] for r in line["results"] if r["label"] == label) for label in labels] for line in lines])
    dumped = load_file(next(a.dump.glob("*.safetensors"))) if a.dump else {}
    for name, got in [("logits_per_image", logits), *((n, dumped[n]) for n in ("pixel_values", "input_ids", "image_embeds", "text_embeds") if n in dumped)]:
        print(f"{name}: largest difference {(got.double() - goldens[name].double()).abs().max():.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open-clip", help="one of open_clip's models, for example ViT-B-16-SigLIP")
    parser.add_argument("--tokenizer", type=Path, help="folder of its tokenizer.json and tokenizer_config.json")
    parser.add_argument("--out", type=Path, help="the folder to write")
    parser.add_argument("--images", type=Path, nargs="*", help="default: drawn ones")
    parser.add_argument("--labels", default="a cat, two dogs, a_red house, San Francisco, Zürich, the “real” mountain's view")
    parser.add_argument("--compare", type=Path, help="what the example answered with --json")
    parser.add_argument("--dump", type=Path, help="what the example wrote with --dump")
    a = parser.parse_args()
    a.labels = [label.strip() for label in a.labels.split(",")]
    quiet()
    if a.compare:
        compare(a)
    elif a.open_clip:
        true_size(a)
    else:
        write_mlx("mlx-8bit", [(8, 64)])
        # as mixed quantization makes them
        write_mlx("mlx-mixed", [(4, 32), (2, 32), (3, 32), (5, 32), (6, 64), (8, 32)])
        write_mlx_naflex()
        write_open_clip()
        write_open_clip_configs()


if __name__ == "__main__":
    main()
