"""Writes clip_cleaning.json: texts as CLIP's original tokenizer cleans them, with ftfy.

Run from the repository: `python tests/goldens/make_clip_cleaning.py`. Needs ftfy 6.3.
"""

import html
import json
import pathlib

import ftfy

TEXTS = (
    "",
    "  \n\t ",
    "a photo of a CRACKED bottle, from above",
    "the bottle's rim can't   be\u00a0 seen\r\nbroken_large\x0b\x0c8mm",
    "\u2018single\u2019 \u201cdouble\u201d \u201alow\u201b \u201elow\u201f it\u2019s \u02bc",
    "&lt;b&gt; &amp;lt; &amp;amp;amp; caf&eacute; &EACUTE;TUDE &NOTHING; &#39;s",
    "&#x27;s &#X41; &rsquo; &LTDOT;",
    "<b> &amp;rsquo; &rsquo; &amp;amp;amp;lt; &EACUTE;",
    "&nbsp;&copy &notit; & ; &#0; &#128; &amp",
    "e\u0301 \u1e9b\u0323 \u212b \u2126 \u1112\u1161\u11ab \u0958",
    "\ufb00 \ufb01ne \ufb02 \ufb03 \ufb04 \ufb05 \ufb06 \u0132 \u0133 \u0149",
    "\u01c4 \u01c5 \u01c6 \u01f3",
    "\uff21\uff22\uff43\uff11\uff01 \u3000 \uff76\uff9e \uffe5 \uffe0",
    "\x00\x07\x1b[31mred\x1b[0m \x1b x\x7fy\ufeff \u206a \ufff9 \ufffc \x1c\x1d\x1e\x1f",
    "a \x80 b \x85 c \x92 d \x93 e \x94 f \x81 g",
    "\ud83d\udd27 \ud83d \udd27 \ud800x",
    "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 \u0130stanbul STRASSE \u1e9e \u01c5 \u13a0 \uab70",
    "\U0001f469\u200d\U0001f527 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd",
    "\u9244\u306e\u50b7 \u6c49\u5b57 \ud55c\uad6d\uc5b4",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0e44\u0e17\u0e22",
    "\u200b zero \u200d width \u2060 \u00ad soft \u2028 line \u2029 paragraph \u205f \u1680 end",
    "<|startoftext|> <|ENDOFTEXT|> &lt;|endoftext|&gt;",
    "\u00bd \u00b2 \u2167 \u2460 \u216b 10\u207b\u00b3 \u2116",
)


def cleaned(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def main():
    path = pathlib.Path(__file__).with_name("clip_cleaning.json")
    pairs = [[text, cleaned(text)] for text in TEXTS]
    path.write_text(json.dumps(pairs, indent=1) + "\n")


if __name__ == "__main__":
    main()
