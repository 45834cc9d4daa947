#!/usr/bin/env python3
"""Trains the demo model's tokenizer on its captions, in the form SigLIP has.

    python build_tokenizer.py --data DATA --out FOLDER

writes spiece.model (what transformers' SiglipTokenizer reads), tokenizer.json (the same pieces, scores and
normaliser, as the Hub's v1 checkpoints have it) and tokenizer_config.json.
"""
import argparse, base64, io, itertools, json, random
from pathlib import Path

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

import captions
from lexicon import Lexicon

CONTEXT, VOCAB = 16, 2560


def corpus(data):
    lex, rng = Lexicon(), random.Random(7)
    canonical = lambda s: " ".join("".join(c for c in s.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").split())
    for name in lex.names:
        for i, word in enumerate(lex.words[name]):
            for _ in range(12 if i == 0 else 5):
                yield canonical(captions.fill(rng, captions.name(rng, word)))
            yield canonical(f"a {rng.choice(captions.COLOURS)} {word}")
            yield canonical(f"two {captions.plural(word)}")
            yield canonical(f"a {word} and a {rng.choice(lex.names)}")
    for c, _ in itertools.product(captions.COLOURS, range(20)):
        yield canonical(captions.fill(rng, f"a {c} {rng.choice(lex.names)}"))
    for d in json.loads((data / "drawings.json").read_text()):
        if d["split"] == "train":
            yield canonical(d["title"])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    lines = [l for l in corpus(a.data) if l]
    lines += ["a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 à á â ã ä å ç è é ê ë ì í î ï ñ ò ó ô õ ö ù ú û ü ß"] * 3
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=VOCAB, character_coverage=1.0,
                                   pad_id=0, pad_piece="<pad>", eos_id=1, unk_id=2, bos_id=-1, unk_surface=" \u2047 ", normalization_rule_name="nmt_nfkc",
                                   num_threads=1, minloglevel=2)
    (a.out / "spiece.model").write_bytes(model.getvalue())
    proto = pb.ModelProto()
    proto.ParseFromString(model.getvalue())
    special = dict(single_word=False, lstrip=True, rstrip=True, normalized=True, special=True)
    metaspace = dict(type="Metaspace", replacement="▁", add_prefix_space=True, prepend_scheme="always")
    A, B, end = ({"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}})
    tokenizer = dict(
        version="1.0", truncation=None, padding=None,
        added_tokens=[dict(id=1, content="</s>", **special), dict(id=2, content="<unk>", **special)],
        normalizer=dict(type="Sequence", normalizers=[
            dict(type="Precompiled", precompiled_charsmap=base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()),
            dict(type="Replace", pattern={"Regex": " {2,}"}, content=" ")]),
        pre_tokenizer=metaspace,
        post_processor=dict(type="TemplateProcessing", single=[A, end], pair=[A, end, B, end],
                            special_tokens={"</s>": dict(id="</s>", ids=[1], tokens=["</s>"])}),
        decoder=metaspace,
        model=dict(type="Unigram", unk_id=2, vocab=[[p.piece, p.score] for p in proto.pieces], byte_fallback=False))
    (a.out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))
    config = dict(
        added_tokens_decoder={"1": dict(content="</s>", **special), "2": dict(content="<unk>", **special)},
        additional_special_tokens=[], clean_up_tokenization_spaces=True, do_lower_case=True, eos_token="</s>", model_input_names=["input_ids"],
        model_max_length=CONTEXT, pad_token="</s>", processor_class="SiglipProcessor", sp_model_kwargs={}, tokenizer_class="SiglipTokenizer", unk_token="<unk>")
    (a.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
