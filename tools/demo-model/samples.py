#!/usr/bin/env python3
"""Writes the page's sample pictures: public-domain drawings from the Open Clip Art Library by artists of whom nothing was trained on.

    python samples.py --data DATA --model ../../www/lib/models/demo --out ../../www/samples

writes the PNGs and samples.json with each drawing's artist, and prints what the model says of it.
"""
import argparse, json
from pathlib import Path

import torch
from PIL import Image

from evaluate import TEMPLATE, Judge

SAMPLES = [  # file, name, labels, Open Clip Art's file
    ("ladybug", "A ladybug", ["a ladybug", "a spider", "a mushroom", "a car"], "animals/bugs/ladybug_02.svg"),
    ("strawberry", "A strawberry", ["a strawberry", "a banana", "a carrot", "a hammer"], "food/fruit/strawberry_jonathan_diet_01.svg"),
    ("penguin", "A penguin", ["a penguin", "an owl", "a dog", "a bicycle"], "animals/birds/penguin/plush_tux_anita_01.svg"),
    ("balloon", "A red balloon", ["a balloon", "an apple", "a clock", "a flower"], "recreation/party/balloon-red-aj.svg"),
    ("truck", "A truck", ["a truck", "a train", "an airplane", "a banana"], "transportation/truck_jarno_vasamaa_.svg"),
    ("lock", "A padlock", ["a lock", "a handbag", "a bell", "a fish"], "computer/icons/padlock_aj_ashton_01.svg"),
    ("cherry", "A cherry", ["a cherry", "a banana", "a horse", "a hammer"], "food/fruit/cherry_jonathan_dietrich_01.svg"),
    ("soup", "A bowl of soup", ["a bowl of soup", "a hat", "a tree", "a car"], "food/soup_jarno_vasamaa_.svg"),
]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--model", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    by_id = {d["id"]: d for d in json.loads((a.data / "drawings.json").read_text()) if d["split"] == "artist"}
    judge, index = Judge(a.model), []
    for file, name, labels, drawing in SAMPLES:
        d = by_id[drawing]
        im = Image.open(a.data / d["file"]).convert("RGB")
        side = max(im.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(im, ((side - im.width) // 2, (side - im.height) // 2))
        p = judge.logits(judge.images([square]) @ judge.texts([TEMPLATE.format(l) for l in labels]).T).sigmoid()[0]
        print(f"{file:12}", ", ".join(f"{l} {x:.0%}" for l, x in zip(labels, p.tolist())))
        square.resize((384, 384), Image.LANCZOS).quantize(128).save(a.out / f"{file}.png", optimize=True)
        index.append(dict(file=f"{file}.png", name=name, labels=labels, artist=d["artist"].removesuffix(" (public domain clipart)"), source=f"Open Clip Art Library, {drawing}", licence="public domain"))
    (a.out / "samples.json").write_text("[\n" + ",\n".join("  " + json.dumps(s, ensure_ascii=False) for s in index) + "\n]\n")


if __name__ == "__main__":
    main()
