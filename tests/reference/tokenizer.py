#!/usr/bin/env python3
"""Token ids of thousands of labels, as transformers gives them: `tests/fixtures/tokenizer/`.

    pip install transformers==5.23.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf==7.36.2
    python tests/reference/tokenizer.py                       # writes goldens.jsonl.gz
    python tests/reference/tokenizer.py --train               # makes siglip2/ anew as well
    python tests/reference/tokenizer.py --v1 FOLDER           # packs v1/ from a checkpoint folder as well

SigLIP: `SiglipTokenizer` is Python code around sentencepiece and wants `spiece.model`. That file is built
here from the real `tokenizer.json`: the same pieces, scores, character map and `byte_fallback`. Where two
ways to cut a run of one letter score the same, sentencepiece's 32-bit sums and the 64-bit sums of `tokenizers`
pick different ones: such lines are marked `tie`.
SigLIP 2: a small Gemma-like `tokenizer.json` and a `tokenizer.model` are trained here and loaded by `Siglip2Tokenizer`.
"""
import argparse, base64, gzip, itertools, json, random, shutil, sys, tempfile, unicodedata, warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "fixtures" / "tokenizer"
CONTEXT = 64
SHORT = 16  # siglip-so400m-patch14-224

WORDS = """a an the of in on with and or not this that photo picture painting sketch cat cats dog dogs kitten puppy horse cow sheep
bird eagle owl fish shark whale tiger lion bear wolf fox rabbit mouse snake turtle frog spider bee butterfly person people man
woman child baby boy girl crowd face hand street road bridge house building castle church tower city village beach sea ocean
lake river mountain forest tree flower grass garden field desert snow ice rain cloud sky sun moon star night day morning
evening car bus truck train plane boat ship bicycle motorcycle airplane rocket shuttle engine wheel pizza bread cake apple
banana orange coffee tea wine beer cup plate fork knife spoon table chair bed sofa lamp window door wall floor kitchen room
office school hospital computer laptop phone camera screen keyboard book paper pen pencil letter number sign logo map flag
ball football tennis guitar piano violin drum music dance red green blue yellow black white grey brown pink purple small
large old young happy sad angry running jumping sleeping eating drinking holding wearing looking sitting standing walking
blurry bright dark closeup aerial vintage wooden metal glass plastic stone golden striped spotted broken empty full 2 3 10
100 1984 two three seven hundred first second antidisestablishmentarianism rollercoaster cappuccino xylophone""".split()

PUBLISHED = [
    "the real mountain view", "Zürich", "San Francisco", "a photo of 2 cats", "a photo of 2 dogs", "an apple", "a picture of an apple",
    "an ipod", "granny smith", 'an apple with a note saying "ipod"', "a cold drink on a hot day", "a photo of two guys in need of caffeine",
    "a photo of the SigLIP authors", "a photo of researchers at Google Brain", "a cow in a tuxedo", "autumn in Toronto",
    "a picture of a laptop with the lockscreen on, a cup of cap\u00adpucino, salt and pepper grinders. The view through the "
    "window reveals lake Zürich and the Alps in the background of the city.",
]

SENTENCES = [
    "Ein Foto von einem Hund, der über die Straße läuft – schön!", "Une photo d'un chat qui dort près de la fenêtre, c'est l'été.",
    "Una fotografía de un niño comiendo piñas en España.", "Uma foto de pão e maçãs na mesa de São Paulo.", "Een foto van een fiets bij de gracht.",
    "Zdjęcie żółtej łódki na jeziorze.", "Příliš žluťoučký kůň úpěl ďábelské ódy.", "Árvíztűrő tükörfúrógép.", "Un tren vechi în gară, țânțar.",
    "Pijamalı hasta yağız şoföre çabucak güvendi. İSTANBUL ılık", "Kæmi ný öxi hér, ykist þjófum nú bæði víl og ádrepa.", "Pójdźże, kiń tę chmurność w głąb flaszy.",
    "Bức ảnh chụp một con mèo đang ngủ trên ghế.", "Фотография кошки на окне. Ёжик в тумане", "Щастя їжака у Києві, ґанок", "Τάχιστη αλώπηξ βαφής ψημένη γη. ΟΔΟΣ ΣΑΣ",
    "一张猫的照片。", "坐在桌子旁边的狗，天空是蓝色的！", "一張日落時的高山照片", "猫の写真です。東京タワーとラーメン", "カタカナ ﾊﾝｶｸ ｶﾞ", "고양이 사진, 서울의 밤", "ภาพถ่ายของแมวกำลังนอนหลับ", "ຮູບແມວ",
    "صورة لقطة تنام على الأريكة، جميلة جدًا!", "ﷺ ﷲ لا إله", "عکسی از یک گربه", "تصویر بلی کی", "תמונה של חתול ישן. שָׁלוֹם", "बिल्ली की एक तस्वीर क्षत्रिय", "বিড়ালের ছবি", "பூனையின் படம்", "పిల్లి ఫోటో",
    "ბატონი კატის ფოტო ᲐᲑᲒ", "Կատվի լուսանկար", "የድመት ፎቶ", "រូបថតឆ្មា", "ကြောင်ဓာတ်ပုံ", "བོད་སྐད", "ᏣᎳᎩ ꮳꮃꭹ", "Ѕунце и мачка, Љубљана Ǆ ǅ ǆ",
]

EMOJI = "😀 😂 🥰 🐈 🐕 🍕 🚀 ❤️ ❤ ☺️ 👍🏽 👩‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 🇯🇵🇺🇸 1️⃣ #️⃣ ™️ ⚽ 🧑🏿‍🦱 🫠 🪿 🏴󠁧󠁢󠁥󠁮󠁧󠁿".split()
SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)]
INVISIBLE = [chr(c) for c in (0, 1, 7, 8, 27, 0x7F, 0x80, 0x9F, 0xAD, 0x180E, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x202E, 0x2060, 0x2066, 0xFEFF, 0xFFFC, 0xFFFD, 0xFFFE, 0xE000, 0xE0001, 0x10FFFF, 0x3164, 0x115F)]
SPECIAL = ["</s>", "<pad>", "<unk>", "<s>", "<eos>", "<bos>", "<mask>", "</S>", "<EOS>", "<PAD>", "▁", "▁▁", "<0x41>", "<0xF0>", "<extra_id_0>", "<start_of_turn>", "<table>", "{}", "$&", "</s", "s>", "\n\n", "\n"]
CASES = "İ I ı i̇ ẞ ß Σ ΑΣ ΑΣ. ΑΣΑ ΑΣ' Ǆ ǅ ﬁ ﬃ ſ K Å Ω ŉ ᾳ ᾼ Ა Ꮳ ꭰ Ⓐ Ⅷ Ａ ℻ ½ ² ㎏ ㍿ ﷺ № … – — ― ‘’ “” ´ ¨ ¸ ` ^ ~ ¯ € £ ¥ ¿ ¡ « » · • × ÷ ° ± µ".split(" ")
MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0327\u0328\u0331\u0338\u05b8\u0651\u064b\u0e48\u093c\u3099\u309a\u20dd\ufe0f\u0345"


def texts():
    """The labels, in a fixed order, each once."""
    rng = random.Random(2)
    out = ["", " ", "a", "A", "I", *PUBLISHED, *SENTENCES]
    out += [f"This is a photo of {x}." for x in [*SENTENCES, *EMOJI, *WORDS[20:60], "", " ", "?!", "\u200b"]]
    out += [p for p in map(chr, range(128))] + [f"a{chr(c)}b" for c in range(128)]
    out += [f"cat{s}dog" for s in SPACES + INVISIBLE] + [f"{s}cat{s}{s}" for s in SPACES + INVISIBLE] + SPACES + INVISIBLE
    out += EMOJI + CASES + [f"x{c}y {c}" for c in EMOJI + CASES] + ["".join(EMOJI), " ".join(CASES)]
    for s in SPECIAL:
        out += [s, s + s, f"{s}cat", f"cat{s}", f"cat {s} dog", f"cat{s}dog", f" {s} {s} ", f"{s}日本", f"é{s}É", f"{s}\u200bX"]
    for a, b in itertools.product(SPECIAL[:12], SPECIAL[:12]):
        out.append(f"{a}{b} x")
    for s in SENTENCES:                                   # the same words, written in other ways
        out += [f(s) for f in (str.upper, str.title, str.swapcase)]
        out += [unicodedata.normalize(f, s) for f in ("NFC", "NFD", "NFKC", "NFKD")]
        out += s.split()
    for _ in range(900):                                  # labels as people type them
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 9))]
        style = rng.choice((str.lower, str.lower, str.title, str.upper, str.capitalize))
        out.append(style(rng.choice((" ", " ", " ", "  ", ", ", "-", "_", "/", ". ", "'s ")).join(words)) + rng.choice(("", "", ".", "!", " ", "...")))
    for _ in range(250):                                  # combining marks, several on one letter
        out.append("".join(rng.choice("aeiouAEIOUncsz kא가กक か") + "".join(rng.choices(MARKS, k=rng.randint(0, 3))) for _ in range(rng.randint(1, 8))))
    blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x370), (0x370, 0x530), (0x530, 0x800), (0x900, 0xE00), (0xE00, 0x1200), (0x1200, 0x2000),
              (0x2000, 0x2C00), (0x2C00, 0x3100), (0x3100, 0x4E00), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFF), (0x10000, 0x10FFFF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FBFF)]
    for _ in range(700):                                  # noise: one block, or all of them
        some = rng.choice([[rng.choice(blocks)], blocks])
        out.append("".join(chr(rng.randint(*rng.choice(some))) for _ in range(rng.randint(1, 14))))
    for lo, hi in blocks[1:12]:                           # every character of the lower blocks, in rows
        row = [chr(c) for c in range(lo, min(hi, lo + 1600)) if unicodedata.category(chr(c)) != "Cn"]
        out += [" ".join(row[i : i + 12]) for i in range(0, len(row), 12)]
    for unit in ("a photo of a cat ", "haha", "é", "日本", "!", " ", "😀", "</s>", "ab", "antidisestablishmentarianism"):
        out.append((unit * 10_000)[:10_000])              # over-long
    out.append("".join(rng.choice("abcdefghij klmnop qrstuvwxyz") for _ in range(10_000)))
    for n in range(50, 75):                               # around the end of the context
        out += [" ".join(["cat"] * n), " ".join(["cat"] * n) + " </s>", " ".join(["xylophone"] * (n // 3))]
    return list(dict.fromkeys(s for s in out if not any(0xD800 <= ord(c) < 0xE000 for c in s)))


def siglip(folder, work, byte_fallback=False):
    """transformers' SiglipTokenizer over the pieces of a real tokenizer.json; with `byte_fallback` unknown characters are spelt in bytes."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    from tokenizers import Tokenizer
    from transformers import SiglipTokenizer

    t = json.loads(gzip.decompress((folder / "tokenizer.json.gz").read_bytes()))
    kind = pb.ModelProto.SentencePiece
    m = pb.ModelProto()
    for i, (piece, score) in enumerate(t["model"]["vocab"]):
        p = m.pieces.add(piece=piece, score=score)
        fallback = byte_fallback and piece.startswith("<0x")
        p.type = kind.UNKNOWN if i == t["model"]["unk_id"] else kind.CONTROL if i < 3 else kind.BYTE if fallback else kind.NORMAL
    m.trainer_spec.model_type = m.trainer_spec.UNIGRAM
    assert not t["model"]["byte_fallback"]
    m.trainer_spec.byte_fallback = byte_fallback
    m.trainer_spec.pad_id, m.trainer_spec.eos_id, m.trainer_spec.unk_id, m.trainer_spec.bos_id = 0, 1, 2, -1
    charsmap = next(n for n in t["normalizer"]["normalizers"] if n["type"] == "Precompiled")["precompiled_charsmap"]
    m.normalizer_spec.precompiled_charsmap = base64.b64decode(charsmap)
    work.mkdir()
    (work / "spiece.model").write_bytes(m.SerializeToString())
    shutil.copyfile(folder / "tokenizer_config.json", work / "tokenizer_config.json")
    return SiglipTokenizer.from_pretrained(work), Tokenizer.from_str(json.dumps(t))


def train_siglip2(folder):
    """A small tokenizer.json with Gemma's structure and special ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<unused0>", "<unused1>"]
    plain = ["\n\n", "\n", "▁▁", "▁▁▁", "<table>", "</table>"]
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Replace(" ", "▁")
    # Words are kept apart while training only: Gemma's merges do not cross them either.
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    rng = random.Random(5)
    corpus = [" ".join(rng.choice(WORDS) for _ in range(9)) for _ in range(4000)] + [s.lower() for s in SENTENCES for _ in range(40)]
    corpus += PUBLISHED * 40 + [w.title() for w in WORDS]
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=1500, special_tokens=special + plain + bytes_, show_progress=False))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] not in bytes_]
    for a in j["added_tokens"]:
        a["normalized"], a["special"] = False, a["content"] in special
    t = Tokenizer.from_str(json.dumps(j))
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    t.post_processor = processors.TemplateProcessing(single="$A:0 <eos>:0", pair="$A:0 <eos>:0 $B:1 <eos>:1", special_tokens=[("<eos>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    # The keys of google/siglip2-base-patch16-224.
    config = {"add_bos_token": False, "add_eos_token": True, "bos_token": "<bos>", "clean_up_tokenization_spaces": False, "do_lower_case": True,
              "eos_token": "<eos>", "model_input_names": ["input_ids"], "model_max_length": CONTEXT, "pad_token": "<pad>", "padding_side": "right",
              "processor_class": "SiglipProcessor", "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def train_siglip2_model(folder):
    """A small tokenizer.model with Gemma's settings, by SentencePiece itself."""
    import sentencepiece

    rng = random.Random(5)
    corpus = [" ".join(rng.choice(WORDS) for _ in range(9)) for _ in range(4000)] + [s.lower() for s in SENTENCES for _ in range(40)]
    corpus += PUBLISHED * 40 + [w.title() for w in WORDS]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=1500, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        unk_piece="<unk>", control_symbols=["<mask>"], minloglevel=2, num_threads=1,
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n\n", "\n", "▁▁", "▁▁▁", "<table>", "</table>"])
    (folder / "tokenizer.vocab").unlink()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--v1", type=Path, help="folder with SigLIP's tokenizer.json and tokenizer_config.json")
    ap.add_argument("--train", action="store_true", help="train the SigLIP 2 tokenizer anew")
    a = ap.parse_args()
    warnings.filterwarnings("ignore")
    from transformers import Siglip2Tokenizer, logging

    logging.set_verbosity_error()
    if a.v1:
        (OUT / "v1").mkdir(parents=True, exist_ok=True)
        (OUT / "v1" / "tokenizer.json.gz").write_bytes(gzip.compress((a.v1 / "tokenizer.json").read_bytes(), 9, mtime=0))
        (OUT / "v1" / "tokenizer_config.json").write_bytes((a.v1 / "tokenizer_config.json").read_bytes())
    if a.train:
        train_siglip2(OUT / "siglip2")
        train_siglip2_model(OUT / "siglip2")

    def padded(tokenizer, text, length, **kw):
        return tokenizer(text, padding="max_length", truncation=True, max_length=length, **kw)["input_ids"]

    def short(ids, pad):
        while ids and ids[-1] == pad:
            ids = ids[:-1]
        return ids

    with tempfile.TemporaryDirectory() as work:
        v1, pieces = siglip(OUT / "v1", Path(work) / "v1")
        spelling, _ = siglip(OUT / "v1", Path(work) / "v1-bytes", byte_fallback=True)
        v2 = Siglip2Tokenizer.from_pretrained(OUT / "siglip2")
        (Path(work) / "v2-model").mkdir()
        for name in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copyfile(OUT / "siglip2" / name, Path(work) / "v2-model" / name)
        v2_model = Siglip2Tokenizer.from_pretrained(Path(work) / "v2-model")
        lines = []
        for text in texts():
            line = {"text": text, "v1": short(padded(v1, text, CONTEXT), v1.pad_token_id), "v2": short(padded(v2, text, CONTEXT), v2.pad_token_id)}
            line["v2_model"] = short(padded(v2_model, text, CONTEXT), v2_model.pad_token_id)
            spelt = short(padded(spelling, text, CONTEXT), v1.pad_token_id)
            if spelt != line["v1"]:
                line["v1_bytes"] = spelt
            ours, theirs = pieces.encode(v1.canonicalize_text(text)).ids, v1(text)["input_ids"]
            if ours != theirs and sorted(ours) == sorted(theirs):
                line["tie"] = True
            if max(len(line["v1"]), len(line["v2"])) > SHORT - 2:
                line["v1_short"] = short(padded(v1, text, SHORT), v1.pad_token_id)
                line["v2_short"] = short(padded(v2, text, SHORT), v2.pad_token_id)
            lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
        packed = gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0)
        (OUT / "goldens.jsonl.gz").write_bytes(packed)
        print(f"{len(lines)} texts, {len(packed)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
