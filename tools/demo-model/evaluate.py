#!/usr/bin/env python3
"""Judges a demo model folder on drawings it was not trained on, with transformers alone.

    python evaluate.py --model FOLDER --data DATA [--photos DIR] [--examples 12] [--json FILE]

Per source: each drawing of one known concept is asked with 20 labels ("This is a photo of a cat."), its own and 19 others drawn at
random (seed 0) from the concepts trained on that the drawing certainly does not show.
  top-1, top-5   the right label is first / among the first five (5 % and 25 % would be chance)
  by concept     top-1 averaged over concepts, where a source draws some of them far more often than others
  present        the right label's sigmoid probability is above 0.5
  rejected       asked with 20 labels of which none fits, none is above 0.5
"""
import argparse, json, random
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import captions
from lexicon import Lexicon
from scenes import NO, labels_of

TEMPLATE = "This is a photo of {}."


def label(c):
    return c if c in captions.NO_ARTICLE else captions.article(c)


class Judge:
    def __init__(self, folder):
        self.model, self.processor = AutoModel.from_pretrained(folder).float().eval(), AutoProcessor.from_pretrained(folder, use_fast=False)

    @torch.no_grad()
    def images(self, pictures):
        out = []
        for i in range(0, len(pictures), 64):
            batch = self.processor(images=pictures[i:i + 64], return_tensors="pt")
            out.append(self.model.vision_model(**batch).pooler_output)
        return torch.nn.functional.normalize(torch.cat(out), dim=-1)

    @torch.no_grad()
    def texts(self, texts):
        ids = self.processor(text=texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        return torch.nn.functional.normalize(self.model.text_model(ids).pooler_output, dim=-1)

    def logits(self, cosine):
        return cosine * self.model.logit_scale.detach().exp() + self.model.logit_bias.detach()


def questions(drawings, lex, trained, seed=0):
    """(drawing, right concept, 19 others, 20 others) for drawings of exactly one specific concept."""
    truth = labels_of(lex, drawings)
    for i, d in enumerate(drawings):
        right = [c for c in d["concepts"] if not lex.is_group[c]] or [c for c in d["concepts"] if c in ("flower", "person", "bird", "fish")]
        if len(d["concepts"]) != 1 or not right or right[0] not in trained:
            continue
        r = random.Random(f"{seed} {d['source']} {d['id']}")
        wrong = [c for c in trained if truth[i, lex.index[c]] == NO and not lex.is_group[c]]
        picked = r.sample(wrong, 39)
        yield i, right[0], picked[:19], picked[19:]


def trained_concepts(every, lex):
    return sorted({c for d in every if d["split"] == "train" for c in d["concepts"] if not lex.is_group[c] or c in ("flower", "person")})


def score(judge, drawings, lex, trained, data, words):
    q = list(questions(drawings, lex, trained))
    image = judge.images([Image.open(data / drawings[i]["file"]).convert("RGB") for i, *_ in q])
    col = {c: k for k, c in enumerate(trained)}
    cosine = image @ words.T
    logits = judge.logits(cosine)
    rows = []
    for (i, right, others, absent), row in zip(q, logits):
        asked = row[[col[right]] + [col[c] for c in others]]
        rows.append(dict(drawing=i, right=right, rank=int((asked[1:] >= asked[0]).sum()), logit=float(asked[0]), best_other=float(asked[1:].max()),
                         other=others[int(asked[1:].argmax())], absent=float(row[[col[c] for c in absent]].max())))
    return rows, cosine, q


def summary(rows):
    n = len(rows)
    share = lambda f: sum(map(f, rows)) / n
    by = {}
    for r in rows:
        by.setdefault(r["right"], []).append(r["rank"] == 0)
    return dict(drawings=n, concepts=len(by), top1=share(lambda r: r["rank"] == 0), by_concept=sum(sum(v) / len(v) for v in by.values()) / len(by), top5=share(lambda r: r["rank"] < 5),
                present=share(lambda r: r["logit"] > 0), rejected=share(lambda r: r["absent"] <= 0))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=Path, required=True)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--photos", type=Path, help="folder with cat.jpg, dog.jpg, pizza.jpg, shuttle.jpg")
    ap.add_argument("--examples", type=int, default=0, help="print so many mistakes per source")
    ap.add_argument("--json", type=Path)
    a = ap.parse_args()
    lex, judge = Lexicon(), Judge(a.model)
    every = json.loads((a.data / "drawings.json").read_text())
    trained = trained_concepts(every, lex)
    words = judge.texts([TEMPLATE.format(label(c)) for c in trained])
    print(f"{'source':28} drawings concepts  top-1  by concept  top-5  present>0.5  absent rejected")
    result = {}
    groups = [("artist", "Open Clip Art, other artists"), ("emojione", "EmojiOne"), ("tuxpaint drawing", "Tux Paint drawings"), ("tuxpaint photo", "Tux Paint photographs"),
              ("calibrate", "Firefox OS emoji (calibrated)")]
    for split, title in groups:
        drawings = [d for d in every if " ".join(filter(None, (d["split"], d.get("kind")))) == split]
        rows, *_ = score(judge, drawings, lex, trained, a.data, words)
        s = result[split] = summary(rows)
        print(f"{title:28} {s['drawings']:8} {s['concepts']:8} {s['top1']:6.1%} {s['by_concept']:11.1%} {s['top5']:6.1%} {s['present']:12.1%} {s['rejected']:16.1%}")
        wrong = [r for r in rows if r["rank"]]
        for r in random.Random(1).sample(wrong, min(a.examples, len(wrong))):
            p = torch.tensor([r["logit"], r["best_other"]]).sigmoid()
            print(f"    {drawings[r['drawing']]['name'][:40]:40} is {r['right']} ({p[0]:.0%}), taken for {r['other']} ({p[1]:.0%})")
    if a.photos:
        labels = ["a cat", "a dog", "a pizza", "a rocket", "an airplane", "a car", "a tree", "a flower", "a house", "a person"]
        names = ["cat", "dog", "pizza", "shuttle"]
        p = judge.logits(judge.images([Image.open(a.photos / f"{n}.jpg").convert("RGB") for n in names]) @ judge.texts([TEMPLATE.format(l) for l in labels]).T).sigmoid()
        for n, row in zip(names, p):
            best = row.argsort(descending=True)[:4]
            print(f"photo {n:8}", ", ".join(f"{labels[k]} {row[k]:.0%}" for k in best))
            result[f"photo {n}"] = {labels[k]: round(float(row[k]), 4) for k in best}
    if a.json:
        a.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
