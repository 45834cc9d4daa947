#!/usr/bin/env python3
"""Draws the gallery that the search page opens with: public-domain drawings from the Open Clip Art Library, one for each concept, in one picture.

    python gallery.py --model ../../www/lib/models/demo --out ../../www/samples [--clipart /usr/share/openclipart/svg]

writes gallery.webp, a sheet of square tiles on white, and gallery.json with each tile's name, artist and source. It is there to show how a search works, and no
test of the model: of several drawings of a concept it takes the one that the demo model names best, most were trained on, and concepts that it doesn't
recognize in any are left out.
"""
import argparse, json, multiprocessing
from pathlib import Path

from PIL import Image

import render
from evaluate import TEMPLATE, Judge, label

COLUMNS, ROWS, TILE = 12, 12, 112
CANDIDATES = 8
RECOGNIZED = 0.5
LEFT_OUT = {"weapon", "gun", "person", "man", "woman", "animal", "food", "vehicle", "building", "tool", "electronics", "insect", "bird", "fruit", "sport", "sign",
            "clothing", "drink", "mammal", "furniture", "plant", "toy", "cigarette", "bomb", "skull", "knife", "sword", "stationery", "body part", "fish part"}


def tile(drawing):
    try:
        image = render.draw(drawing, 2 * TILE)
    except Exception:
        return None
    image.thumbnail((TILE - 10, TILE - 10), Image.LANCZOS)
    square = Image.new("RGB", (TILE, TILE), "white")
    square.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2), image)
    # A drawing that hardly shows says nothing to anybody.
    return square if sum(square.convert("L").histogram()[:230]) > TILE * TILE * 0.06 else None


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--clipart", type=Path, default=render.CLIPART)
    a = ap.parse_args()
    render.CLIPART = a.clipart
    samples = {s["source"].removeprefix("Open Clip Art Library, ") for s in json.loads((a.out / "samples.json").read_text())}
    by_concept = {}
    for drawing in render.clipart():
        concepts = [c for c in drawing["concepts"] if c not in LEFT_OUT]
        named = drawing["title"].strip() and len(drawing["title"]) < 24
        if len(drawing["concepts"]) == 1 and concepts and named:
            by_concept.setdefault(concepts[0], []).append(drawing)
    jobs = []
    for concept, drawings in by_concept.items():
        drawings.sort(key=lambda d: (d["split"] != "artist", d["id"] in samples, d["title"] != concept, d["id"]))
        jobs += [(concept, drawing) for drawing in drawings[:CANDIDATES]]
    with multiprocessing.Pool(2) as pool:
        tiles = pool.map(tile, [drawing for _, drawing in jobs])
    drawn = [(concept, drawing, image) for (concept, drawing), image in zip(jobs, tiles) if image is not None]
    judge = Judge(a.model)
    concepts = sorted({concept for concept, _, _ in drawn})
    logits = judge.logits(judge.images([image for _, _, image in drawn]) @ judge.texts([TEMPLATE.format(label(c)) for c in concepts]).T)
    best = {}
    for (concept, drawing, image), row in zip(drawn, logits.sigmoid()):
        own = row[concepts.index(concept)].item()
        # Its own concept far ahead of the rest makes a drawing easy to find.
        score = own - 2 * row.mean().item()
        if own > RECOGNIZED and score > best.get(concept, (0,))[0]:
            best[concept] = (score, concept, drawing, image)
    found = sorted((one[1:] for one in sorted(best.values(), key=lambda one: -one[0])[:COLUMNS * ROWS]), key=lambda one: one[0])
    sheet = Image.new("RGB", (COLUMNS * TILE, -(-len(found) // COLUMNS) * TILE), "white")
    for i, (_, _, image) in enumerate(found):
        sheet.paste(image, (i % COLUMNS * TILE, i // COLUMNS * TILE))
    sheet.save(a.out / "gallery.webp", quality=74, method=6)
    items = [dict(name=concept, artist=d["artist"].removesuffix(" (public domain clipart)"), source=d["id"]) for concept, d, _ in found]
    about = dict(tile=TILE, columns=COLUMNS, collection="Open Clip Art Library", licence="public domain", drawings=items)
    text = json.dumps(about, ensure_ascii=False).replace("[{", "[\n  {").replace("}, {", "},\n  {").replace("}]", "}\n]")
    (a.out / "gallery.json").write_text(text + "\n")
    print(f"{len(found)} drawings, {(a.out / 'gallery.webp').stat().st_size / 1000:.0f} kB, {sum(d['split'] == 'artist' for _, d, _ in found)} by artists held out")


if __name__ == "__main__":
    main()
