#!/usr/bin/env python3
"""Writes the page's sample pictures: public-domain drawings from the Open Clip Art Library by artists of whom nothing was trained on.

    python samples.py --data DATA --model ../../www/models/demo --out ../../www/samples [--check]

writes the PNGs and samples.json, and prints what the model says of each; --check prints alone, of every drawing listed here.
"""
import argparse, json
from pathlib import Path

import torch
from PIL import Image

from evaluate import TEMPLATE, Judge

SAMPLES = [  # file, name, labels, Open Clip Art's file
    ("house", "A house", ["a house", "a tree", "a car", "a bowl of soup"], "buildings/homes/small_house_01.svg"),
    ("sun", "Sunshine", ["the sun", "the moon", "a flower", "a pair of shoes"], "recreation/holiday/sunshine_matthew_gates_01.svg"),
    ("strawberry", "A strawberry", ["a strawberry", "a banana", "a cherry", "a hammer"], "food/fruit/strawberry_jonathan_diet_01.svg"),
    ("butterfly", "A butterfly", ["a butterfly", "a bird", "a dog", "a bicycle"], "animals/bugs/butterfly_jonathan_dietr_01.svg"),
    ("boat", "A sailing boat", ["a boat", "a car", "a fish", "a guitar"], "transportation/boating/boat_jarno_vasamaa_.svg"),
    ("car", "A military car", ["a car", "a ship", "an airplane", "a banana"], "transportation/hummer_07.svg"),
    ("guitar", "A guitar", ["a guitar", "a violin", "a spoon", "a cat"], "recreation/music/guitar_jarno_vasamaa1.svg"),
    ("balloon", "A red balloon", ["a balloon", "an apple", "a clock", "an umbrella"], "recreation/party/balloon-red-aj.svg"),
]
OTHERS = [
    ("penguin", "A plush penguin", ["a penguin", "a bird", "a dog", "a bicycle"], "animals/birds/penguin/plush_tux_anita_01.svg"),
    ("cake", "A cake", ["a cake", "a candle", "a hat", "a car"], "food/desserts/cake1_jarno_vasamaa_01.svg"),
    ("ladybug", "A ladybug", ["a ladybug", "a spider", "a car", "a cat"], "animals/bugs/ladybug_02.svg"),
    ("bicycle", "A penny-farthing", ["a bicycle", "a car", "a horse", "a spoon"], "transportation/bike_tobias_jakobs_.svg"),
    ("airplane", "An airplane", ["an airplane", "a bird", "a ship", "a cup"], "transportation/vehicles/aircraft_jarno_vasamaa_.svg"),
    ("truck", "A truck", ["a truck", "a train", "an airplane", "a banana"], "transportation/truck_jarno_vasamaa_.svg"),
    ("bird", "A bird", ["a bird", "a fish", "a flower", "a train"], "animals/birds/bird_of_peace_mauro_oliv_01.svg"),
    ("rabbit", "A rabbit", ["a rabbit", "a dog", "a cat", "a bicycle"], "animals/mammals/skoynk_peterm_.svg"),
    ("boot", "A hiking boot", ["a boot", "a hat", "a car", "an egg"], "people/clothing/hiking_boot_jarno_vasama_.svg"),
    ("daffodil", "A daffodil", ["a flower", "a tree", "a cup", "a bird"], "plants/daffodil_jonathan_dietri_01.svg"),
    ("cherry", "A cherry", ["a cherry", "an apple", "a balloon", "a cat"], "food/fruit/cherry_jonathan_dietrich_01.svg"),
    ("flowers", "Flowers", ["a flower", "a tree", "the sun", "a bird"], "plants/flowers/flowers_jonathan_dietri_01.svg"),
    ("soup", "Soup", ["a bowl of soup", "a hat", "a plate", "a car"], "food/soup_jarno_vasamaa_.svg"),
    ("ship", "A sailing ship", ["a boat", "a car", "a fish", "a guitar"], "transportation/boating/boat_jarno_vasamaa1.svg"),
    ("drums", "Drums", ["a drum", "a guitar", "a house", "a cat"], "recreation/music/drums_jarno_vasamaa_.svg"),
    ("box", "A cardboard box", ["a box", "a house", "a book", "a dog"], "containers/cardboard_box_jarno_vasa_.svg"),
]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--model", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--check", action="store_true")
    a = ap.parse_args()
    by_id = {d["id"]: d for d in json.loads((a.data / "drawings.json").read_text()) if d["split"] == "artist"}
    judge, index = Judge(a.model), []
    for file, name, labels, drawing in SAMPLES + (OTHERS if a.check else []):
        if drawing not in by_id:
            print(f"{drawing} is not among the drawings held out")
            continue
        d = by_id[drawing]
        im = Image.open(a.data / d["file"]).convert("RGB")
        side = max(im.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(im, ((side - im.width) // 2, (side - im.height) // 2))
        p = judge.logits(judge.images([square]) @ judge.texts([TEMPLATE.format(l) for l in labels]).T).sigmoid()[0]
        print(f"{file:12}", ", ".join(f"{l} {x:.0%}" for l, x in zip(labels, p.tolist())))
        if not a.check:
            square.resize((384, 384), Image.LANCZOS).quantize(128).save(a.out / f"{file}.png", optimize=True)
        index.append(dict(file=f"{file}.png", name=name, labels=labels, artist=d["artist"].removesuffix(" (public domain clipart)"), source=f"Open Clip Art Library, {drawing}", licence="public domain"))
    if not a.check:
        (a.out / "samples.json").write_text("[\n" + ",\n".join("  " + json.dumps(s, ensure_ascii=False) for s in index) + "\n]\n")


if __name__ == "__main__":
    main()
