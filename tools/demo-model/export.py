#!/usr/bin/env python3
"""Writes a training run as a model folder in the Hub's layout, f16, with logit scale and bias set on held-out drawings.

    python export.py --run RUN --tokenizer TOKENIZER --data DATA --out ../../www/lib/models/demo [--raw]

Scale and bias are set on the `calibrate` source (never trained on, nor judged on): the scale by maximum likelihood, each drawing with its
right concept and 20 wrong ones; the bias so that 85 % of the drawings, asked with 20 wrong labels, have none above 0.5.
They change no ranking; they decide what the probabilities mean.
"""
import argparse, json, shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import SiglipModel
from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

from evaluate import TEMPLATE, Judge, label, score, trained_concepts
from lexicon import Lexicon
from train import SIDE, config


REJECTED = 0.85


def calibrate(judge, data):
    lex, every = Lexicon(), json.loads((data / "drawings.json").read_text())
    trained = trained_concepts(every, lex)
    words = judge.texts([TEMPLATE.format(label(c)) for c in trained])
    drawings = [d for d in every if d["split"] == "calibrate"]
    _, cosine, q = score(judge, drawings, lex, trained, data, words)
    col = {c: k for k, c in enumerate(trained)}
    yes = torch.stack([row[col[right]] for (_, right, _, _), row in zip(q, cosine)])
    no = torch.stack([row[[col[c] for c in absent]] for (_, _, _, absent), row in zip(q, cosine)])
    scale, bias = judge.model.logit_scale.detach().clone().requires_grad_(), judge.model.logit_bias.detach().clone().requires_grad_()
    fit = torch.optim.LBFGS([scale, bias], lr=0.5, max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        fit.zero_grad()
        loss = torch.nn.functional.softplus(-(yes * scale.exp() + bias)).mean() + torch.nn.functional.softplus(no * scale.exp() + bias).sum(1).mean()
        loss.backward()
        return loss

    fit.step(closure)
    with torch.no_grad():                                  # what is above 0.5: the page's verdict
        bias.copy_(-scale.exp() * no.amax(1).quantile(REJECTED))
    return scale.detach(), bias.detach()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", type=Path, required=True)
    ap.add_argument("--tokenizer", type=Path, required=True)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--raw", action="store_true", help="the last weights, not their running average")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    tok = SiglipTokenizer.from_pretrained(a.tokenizer)
    model = SiglipModel(config(tok.vocab_size, tok.model_max_length))
    state = torch.load(a.run / "model.pt", weights_only=True)
    model.load_state_dict(state["model"])
    if not a.raw:
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(state["average"][n])
    for f in ("spiece.model", "tokenizer.json", "tokenizer_config.json"):
        if (a.tokenizer / f).resolve() != (a.out / f).resolve():
            shutil.copy(a.tokenizer / f, a.out / f)
    size = dict(height=SIDE, width=SIDE)
    (a.out / "preprocessor_config.json").write_text(json.dumps(dict(
        do_normalize=True, do_rescale=True, do_resize=True, image_processor_type="SiglipImageProcessor", image_mean=[0.5] * 3, processor_class="SiglipProcessor",
        resample=3, rescale_factor=1 / 255, size=size, image_std=[0.5] * 3), indent=2) + "\n")

    def write():
        model.half().save_pretrained(a.out)
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
        save_file(tensors, a.out / "model.safetensors", metadata={"format": "pt"})
        model.float()

    write()
    scale, bias = calibrate(Judge(a.out), a.data)
    with torch.no_grad():
        model.logit_scale.copy_(scale)
        model.logit_bias.copy_(bias)
    write()
    print(f"step {state['step']}, scale {scale.exp().item():.2f}, bias {bias.item():.2f}, {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
