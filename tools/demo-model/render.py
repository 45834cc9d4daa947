#!/usr/bin/env python3
"""Renders the drawings the demo model learns from and is judged on.

    apt-get install openclipart-svg fonts-symbola ruby-gemojione tuxpaint-stamps-default
    npm ci                                   # icon sets, see package.json beside this file
    python render.py --icons node_modules --out DATA

writes  DATA/drawings.npy    uint8 [drawings, 72, 72, 4], straight alpha, cropped to the drawing
        DATA/drawings.json   source, title, artist, licence, split and concepts of each
        DATA/held-out/*.png  held-out drawings at up to 384 px on white, for evaluate.py

Splits: `train`; `artist` = drawings from Open Clip Art by artists of whom none is trained on;
`calibrate` = one source held out whole, on which logit scale and bias are set;
`emojione` and `tuxpaint` = two sources held out whole, to judge only (nothing of them is shipped).
"""
import argparse, hashlib, io, json, multiprocessing, os, re, html, unicodedata
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageDraw, ImageFont

from lexicon import Lexicon

SIDE = 72
LEX = Lexicon()
CLIPART = Path("/usr/share/openclipart/svg")
EMOJIONE = Path("/usr/share/rubygems-integration/all/gems/gemojione-3.3.0")
STAMPS = Path("/usr/share/tuxpaint/stamps")
FONTS = Path("/usr/share/fonts")
WHOLE_FOLDER = {  # what every drawing in a folder shows, whatever its title says
    "signs_and_symbols/flags": "flag", "recreation/games/cards": "playing card", "shapes/stars": "star", "shapes/arrows": "arrow",
    "signs_and_symbols/clocks": "clock", "people/smilies": "smiley", "people/stickmen": "person", "shapes/jigsaw": "puzzle piece",
    "shapes/callouts": "speech bubble", "recreation/games/chess": "chess piece", "geography/astronomy": "planet",
}
FOLDER_GROUP = {
    "animals/bugs": "insect", "animals/birds": "bird", "animals/fish": "fish", "animals/mammals": "mammal", "animals": "animal",
    "food/fruit": "fruit", "food/vegetables": "vegetable", "food/beverages": "drink", "food": "food", "plants/flowers": "flower",
    "plants": "plant", "transportation/vehicles": "vehicle", "people/clothing": "clothing", "tools/weapons": "weapon",
    "recreation/music": "musical instrument", "buildings/homes": "house", "buildings/furniture": "furniture",
}
SKIP = ("special/gradients", "special/patterns", "unsorted/duplicates", "computer/buttons", "shapes/flowchart", "signs_and_symbols/led",
        "shapes/stars/magick")
TITLE_ONLY = ("computer/icons", "signs_and_symbols", "transportation/roadsigns", "transportation/aiga-symbols", "special", "logos",
              "computer/diagrams", "buttons", "geography")
MANY = {"Nicu Buculei", "Gerald G.", "Jean-Victor Balin", "codifiedivining", "Danny Allen", "Architetto Francesco Rollandin", "Jose Hevia"}
ITALIAN = {k: v for k, v in (pair.split("=") for pair in (  # one prolific artist's titles
    "acquila=eagle aquila=eagle cigni=swan cigno=swan gabbiano=seagull gallo=rooster gufo=owl pollo=chicken tacchino=turkey uccello=bird uccelli=bird "
    "cavalletta=grasshopper coccinella=ladybug coccinellona=ladybug farfalla=butterfly farfalle=butterfly formichina=ant formicona=ant insetto=insect "
    "libellula=dragonfly lumaca=snail moschito=mosquito ragnetto=spider ragno=spider zanzara=mosquito cani=dog gatti=cat dino=dinosaur dinosauri=dinosaur "
    "dinosauro=dinosaur pescetto=fish pesce=fish lucchetto=padlock lucertola=lizard lucertolona=lizard lucertolone=lizard orso=bear leone=lion tigre=tiger "
    "tigri=tiger canguro=kangaroo coniglio=rabbit elefante=elephant cavallo=horse gattina=cat gatto=cat pecora=sheep topo=rat toro=bull vacca=cow "
    "pinguino=penguin pinguini=penguin squalo=shark balena=whale delfino=dolphin albero=tree alberi=tree fiore=flower fiori=flower casa=house case=house "
    "sedia=chair tavolo=table letto=bed divano=sofa porta=door finestra=window lampada=lamp chiesa=church castello=castle barca=boat nave=ship auto=car "
    "automobile=car macchina=car treno=train aereo=airplane bicicletta=bicycle sole=sun luna=moon stella=star cuore=heart mela=apple pera=pear uva=grapes "
    "limone=lemon arancia=orange ciliegie=cherries fragola=strawberry pomodoro=tomato fungo=mushroom funghi=mushroom bottiglia=bottle bicchiere=glass "
    "tazza=cup torta=cake pane=bread formaggio=cheese uovo=egg chiave=key orologio=clock libro=book matita=pencil penna=pen telefono=telephone "
    "cappello=hat scarpa=shoe scarpe=shoe mano=hand occhio=eye bocca=mouth naso=nose donna=woman uomo=man bambino=child foglia=leaf rosa=rose "
    "tulipano=tulip girasole=sunflower palma=palm cactus=cactus montagna=mountain pipistrello=bat rana=frog serpente=snake tartaruga=turtle "
    "scimmia=monkey cane=dog maiale=pig capra=goat asino=donkey volpe=fox lupo=wolf cervo=deer topolino=mouse papera=duck anatra=duck ape=bee "
    "granchio=crab polpo=octopus scorpione=scorpion drago=dragon chitarra=guitar tromba=trumpet pianoforte=piano palla=ball pistola=gun spada=sword "
    "martello=hammer forbici=scissors ombrello=umbrella candela=candle fuoco=fire nuvola=cloud bandiera=flag scala=ladder scopa=broom").split())}
NOISE = re.compile(r"\b(lemon( svg)? theme|lemon svg|lemon[- _]?theme|etiquette|aiga|signs|advertising|flat[- _]?theme|clip ?art|architetto|francesco|rollandin|johnny automatic|az|jean victor balin|icon|symbol|benji park|park|"
                   r"nicu|buculei|gerald g|ganson|valessio|dannya|simple|unsorted|openclipart|yves guillou|juliane krug|mono|tango)\b")


def field(pattern, text):
    m = re.search(pattern, text, re.S)
    return html.unescape(m.group(1)).strip() if m else ""


def bucket(text, n):
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % n


def clipart():
    seen = set()
    for path in sorted(CLIPART.rglob("*.svg")):
        rel = str(path.relative_to(CLIPART))
        if rel.startswith(SKIP):
            continue
        text = path.read_text(errors="replace")
        work = field(r"<(?:cc:)?Work(.*?)</(?:cc:)?Work>", text)
        if "publicdomain" not in work.lower():
            continue                                       # a few carry no dedication of their own
        title = field(r"<(?:dc:)?title>(.*?)</(?:dc:)?title>", work)
        artist = field(r"<dc:creator.*?<dc:title>(.*?)</dc:title>", work)
        keywords = [k.strip() for x in re.findall(r"<rdf:li>(.*?)</rdf:li>", work, re.S) for k in re.split("[,;]", html.unescape(x))]
        digest = hashlib.sha256(re.sub(r"(?s)<metadata.*?</metadata>|\s", "", text).encode()).digest()
        if digest in seen:
            continue                                       # many files lie in several folders
        seen.add(digest)
        cleaned = re.sub(r"\s+", " ", NOISE.sub(" ", re.sub(r"\bby\b.*", "", LEX.clean(title)))).strip()
        if artist in ("Architetto Francesco Rollandin", "Rollandin Francesco"):
            cleaned = " ".join(ITALIAN.get(w, w) for w in cleaned.split())
        stem = re.sub(r"\s+", " ", NOISE.sub(" ", LEX.clean(re.sub("_[a-z]*_?r?(_[0-9]+)?$", "", path.stem)))).strip()
        folder = next((c for f, c in WHOLE_FOLDER.items() if rel.startswith(f)), None)
        weak = {}
        if folder:
            found = {folder: folder}
        else:
            found = LEX.find(cleaned)
            if not found or rel.startswith(("transportation/aiga", "signs_and_symbols")):
                found = LEX.find(stem)
                cleaned = stem if found else cleaned
            if not rel.startswith(TITLE_ONLY):
                for k in keywords:
                    weak.update(LEX.find(k, title=False))
                weak = {c: w for c, w in weak.items() if c not in LEX.closure(found)}
                above = set().union(*[LEX.closure([c]) - {c} for c in weak]) if weak else set()
                weak = {c: w for c, w in weak.items() if c not in above}
                if not found and len(weak) <= 2:
                    found, weak = weak, {}
                group = next((c for f, c in FOLDER_GROUP.items() if rel.startswith(f)), None)
                if group and group not in LEX.closure(found):
                    found[group] = group
        if "mouse" in found and rel.startswith(("computer", "office")):
            found["computer mouse"] = found.pop("mouse")
        if not found:
            continue
        held = artist and artist not in MANY and bucket(artist, 6) == 0
        yield dict(source="openclipart", id=rel, svg=str(path), title=cleaned if not folder else folder, name=title, artist=artist,
                   licence="public domain", split="artist" if held else "train", concepts=found, maybe=sorted(weak))


def emoji_concepts(name):
    name = name.lower().replace("white medium ", "")
    found = LEX.find(name)
    if re.search(r"\bface\b", name) and set(found) <= {"eye", "mouth", "nose", "hand", "heart", "cloud", "tooth", "glasses", "tie"}:
        found = {"smiley": "smiley"}
    if "lotus position" in name:
        found = {"person": "person"}
    return found


def codepoints():
    for c in list(range(0x2300, 0x27C0)) + list(range(0x2B00, 0x2C00)) + list(range(0x1F000, 0x1FB00)):
        name = unicodedata.name(chr(c), "")
        if name and not re.search(r"ARROW|MODIFIER|REGIONAL|CIRCLED|SQUARED|MAHJONG|DOMINO|PLAYING CARD|SELECTOR|BOX DRAWINGS|APL|OCR|HEXAGRAM|PARENTHES|"
                                  r"BRACKET|DINGBAT|MONOGRAM|DIGRAM|OF THE ZODIAC|CLOCK FACE (?!ONE|TEN|THREE)", name):
            yield c, name


def glyph(font, char, color):
    im = Image.new("RGBA", (font.size * 2, font.size * 2), (0, 0, 0, 0))
    ImageDraw.Draw(im).text((font.size // 3, font.size // 6), char, font=font, fill=(0, 0, 0, 255), embedded_color=color)
    return im


def font_emoji(source, path, size, color, licence):
    from fontTools.ttLib import TTFont
    have = TTFont(path).getBestCmap()
    for c, name in codepoints():
        found = emoji_concepts(name)
        if c in have and found:
            yield dict(source=source, id=f"U+{c:X}", glyph=(str(path), size, chr(c), color), title=LEX.clean(name), name=name, artist=source,
                       licence=licence, split="train", concepts=found, maybe=[])


EMOJI_SETS = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "twemoji", "streamline-emojis")
ICON_SETS = ("mdi", "flat-color-icons", "icon-park", "icon-park-solid", "fluent-color", "fluent", "meteocons", "streamline-freehand-color",
             "streamline-ultimate-color", "streamline-plump", "streamline-flex", "streamline-pixel", "maki", "ph", "tabler", "lucide", "lucide-lab",
             "material-symbols", "fa7-solid", "healthicons", "solar", "mingcute", "hugeicons", "ion", "guidance", "la", "bxs", "fontisto")
STYLE = set("fill filled line outline outlined linear bold duotone solid remix twotone rounded round sharp regular color alt variant basic one two three four five "
            "six px ios md side open closed empty full half horizontal vertical left right front outdoor flat simple".split())
THIN = re.compile(r"(^|-)(thin|light|negative|broken|off|slash|add|remove|plus|minus|x|check|edit|search|lock|logo|cancel|delete|disabled)(-|$)")
# In icons for programs these words mean an operation, a brand or a shape.
NOT_IN_ICONS = set("table window windows diamond nut pie mirror wave bat horn yarn blackberry spade club bolt nail drill seal plate tank crane display "
                   "desk shell record bug mars jupiter saturn steam pin chain ram ring shelf pc brush nut pawn rock cap seat".split())


def iconify(folder, name, split="train"):
    data = json.loads((folder / "@iconify-json" / name / "icons.json").read_text())
    licence = json.loads((folder / "@iconify-json" / name / "info.json").read_text())["license"]["spdx"]
    joined = {w.replace(" ", "").replace("-", ""): c for w, c in LEX.terms.items()}
    alike, flags = {}, 0
    for icon, body in sorted(data["icons"].items()):
        if re.search(r"(^|-)(light|medium|dark)(-skin-tone)?($|-)", icon) and name not in ICON_SETS:
            continue
        words, maybe = icon.replace("-", " "), []
        if name in ICON_SETS:                              # the whole name but for its style is the thing's
            if THIN.search(icon) or "logo" in icon:
                continue
            words = " ".join(w for w in re.sub(r"\d+(px)?", "", icon).split("-") if w and w not in STYLE)
            words = re.sub(r"^(food|animal|pet|fruit|vegetable|sport|weather|flower) (?=[a-z])", "", words)
            found = LEX.find(words)
            found = {c: w for c, w in found.items() if words in (w, w + "s", w + "es")}
            if words in NOT_IN_ICONS or words == "apple" and name in ("mdi", "ion", "la", "fontisto", "bxs", "fa7-solid"):
                continue
            if words == "mouse" and name not in ("icon-park",):
                found = {"computer mouse": "mouse"}
            key = (words, name)
            alike[key] = alike.get(key, 0) + bool(found)
            if alike[key] > 2:                             # enough of one thing in one hand
                continue
        elif name == "game-icons":                         # the thing comes last, after what kind it is
            found = LEX.find(words)
            found = {c: w for c, w in found.items() if re.search(r"(^| )" + re.escape(w) + r"s?$", words)} if words.count(" ") < 2 else {}
        elif name == "fxemoji":                            # words written together
            c = joined.get(icon.removesuffix("face").removesuffix("icon")) or joined.get(icon)
            found = {c: c} if c else {}
        elif icon.startswith("letter-"):
            found = {}
        elif icon.startswith("flag-"):                     # hundreds of them
            flags += 1
            found = {"flag": "flag"} if flags % 6 == 0 and not re.search("flag-(in|on)-", icon) else {}
        else:
            found = emoji_concepts(re.sub(r" \d+$", "", words))
            people = {c: w for c, w in found.items() if "person" in LEX.closure([c])}
            if people and len(found) > len(people):        # "man mountain biking": is there a mountain?
                maybe, found = sorted(set(found) - set(people)), people
        if not found:
            continue
        w, h = body.get("width", data.get("width", 16)), body.get("height", data.get("height", 16))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{body.get("left", 0)} {body.get("top", 0)} {w} {h}">{body["body"]}</svg>'
        yield dict(source=name, id=icon, text=svg, title=words, name=icon, artist=name, licence=licence, split=split, concepts=found, maybe=maybe)


def emojione():
    index = json.loads((EMOJIONE / "config/index.json").read_text())
    for e in index.values():
        if e["category"] in ("modifier", "flags", "extras") or "tone " in e["name"] or "-" in e["unicode"]:
            continue
        found = emoji_concepts(e["name"])
        svg = EMOJIONE / "assets/svg" / (e["unicode"].upper() + ".svg")
        if found and svg.exists():
            yield dict(source="emojione", id=e["unicode"], svg=str(svg), title=LEX.clean(e["name"]), name=e["name"], artist="EmojiOne",
                       licence="CC BY-SA 4.0 (judged on only)", split="emojione", concepts=found, maybe=[])


def tuxpaint():
    seen = set()
    for path in sorted(STAMPS.rglob("*")):
        rel = path.relative_to(STAMPS)
        if path.suffix not in (".svg", ".png") or str(rel).startswith("symbols") or "_mirror" in path.stem or path.with_suffix("") in seen:
            continue
        seen.add(path.with_suffix(""))
        note = path.with_suffix(".txt")
        title = note.read_text(errors="replace").splitlines()[0] if note.exists() else path.stem
        found = LEX.find(title)
        if len(found) != 1:
            found = LEX.find(path.stem.replace("_", " "))
        if found:
            kind = "drawing" if path.suffix == ".svg" or "cartoon" in str(rel) else "photo"
            yield dict(source="tuxpaint", id=str(rel), **{"svg" if path.suffix == ".svg" else "png": str(path)}, title=LEX.clean(title), name=title,
                       artist="Tux Paint", licence="GPL-2 (judged on only)", split="tuxpaint", kind=kind, concepts=found, maybe=[])


def with_view_box(text):
    """Old Inkscape files have a size in points or millimetres and no viewBox: resvg cannot scale those."""
    tag = re.search(r"<svg\b[^>]*>", text, re.S)
    if not tag or "viewBox" in tag.group(0):
        return text
    size = [re.search(rf'\b{k}="([\d.]+)(pt|mm|cm|in|px|)"', tag.group(0)) for k in ("width", "height")]
    if not all(size):
        return text
    w, h = (float(m.group(1)) * dict(pt=4 / 3, mm=3.78, cm=37.8, px=1).get(m.group(2), 96 if m.group(2) else 1) for m in size)
    return text.replace(tag.group(0), re.sub(r'\b(width|height)="[^"]*"', "", tag.group(0))[:-1] + f' viewBox="0 0 {w} {h}">', 1)


def draw(d, side):
    """RGBA picture whose longer side is about `side`."""
    if "svg" in d or "text" in d:
        text = d["text"] if "text" in d else Path(d["svg"]).read_text(errors="replace")
        im = Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=with_view_box(text), width=side, skip_system_fonts=True)))
        if im.height > side:
            im = im.resize((max(1, im.width * side // im.height), side), Image.LANCZOS)
    elif "png" in d:
        im = Image.open(d["png"])
        im.thumbnail((side, side), Image.LANCZOS)
    else:
        path, size, char, color = d["glyph"]
        im = glyph(ImageFont.truetype(path, size), char, color)
    im = im.convert("RGBA")
    box = im.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    if not box or box[2] - box[0] < 4 or box[3] - box[1] < 4:
        raise ValueError("empty")
    return im.crop(box)


def work(job):
    i, d, out = job
    try:
        im = draw(d, 2 * SIDE if d["split"] == "train" else 384)
        if d["split"] != "train":
            pad = max(im.size) // 16
            white = Image.new("RGB", (im.width + 2 * pad, im.height + 2 * pad), "white")
            white.paste(im, (pad, pad), im)
            white.save(out / "held-out" / f"{i:05d}.png")
        a = np.asarray(im, np.float32)
        a[..., :3] *= a[..., 3:] / 255                     # resize premultiplied
        im.thumbnail((SIDE, SIDE), Image.LANCZOS)          # size only
        w, h = im.size
        if max(w, h) < SIDE:
            w, h = max(1, round(w * SIDE / max(w, h))), max(1, round(h * SIDE / max(w, h)))
        a = np.stack([np.asarray(Image.fromarray(a[..., k]).resize((w, h), Image.BOX if a.shape[0] > h else Image.BICUBIC)) for k in range(4)], -1)
        a[..., :3] *= 255 / np.maximum(a[..., 3:], 1e-3)
        full = np.zeros((SIDE, SIDE, 4), np.uint8)
        y, x = (SIDE - h) // 2, (SIDE - w) // 2
        full[y:y + h, x:x + w] = a.clip(0, 255).round()
        if full[..., 3].max() < 60:
            raise ValueError("empty")
        return i, full
    except Exception:
        return i, None


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--icons", type=Path, default=Path("node_modules"))
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    (a.out / "held-out").mkdir(parents=True, exist_ok=True)
    drawings = list(clipart())
    drawings += font_emoji("symbola", FONTS / "truetype/ancient-scripts/Symbola_hint.ttf", 96, False, "free for any use")
    for name in (*EMOJI_SETS, *ICON_SETS, "game-icons"):
        drawings += iconify(a.icons, name)
    drawings += iconify(a.icons, "fxemoji", "calibrate")
    drawings += emojione()
    drawings += tuxpaint()
    pixels, kept = [], []
    with multiprocessing.Pool(os.cpu_count(), maxtasksperchild=400) as pool:
        for i, full in pool.imap(work, [(i, d, a.out) for i, d in enumerate(drawings)], chunksize=8):
            if full is not None:
                d = {k: v for k, v in drawings[i].items() if k not in ("svg", "png", "glyph", "text")}
                if d["split"] != "train":
                    d["file"] = f"held-out/{i:05d}.png"
                pixels.append(full)
                kept.append(d)
    np.save(a.out / "drawings.npy", np.stack(pixels))
    (a.out / "drawings.json").write_text(json.dumps(kept, indent=0))
    for s in ("train", "calibrate", "artist", "emojione", "tuxpaint"):
        print(s, sum(d["split"] == s for d in kept))


if __name__ == "__main__":
    main()
