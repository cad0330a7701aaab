"""Symbols of VALL-E X: the released inventory, tags, fitted tables, and the authors' own phonemes where the packages are."""

import json
import os
import re
from pathlib import Path

import pytest

from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.text import vallex
from ttsadapt.text.vallex import SYMBOLS, CorpusText, GraphemeText, PhonemeText

FOLDER = Path(os.environ.get("TTSADAPT_GOLDEN", Path(__file__).parents[2] / "../shared/golden")) / "valle_x"
PACKAGES = {"EN": ("eng_to_ipa", "unidecode", "inflect"), "ZH": ("cn2an", "jieba", "pypinyin"), "JA": ("pyopenjtalk", "unidecode")}


def said(text: str, language: str = "en-us") -> Utterance:
    return Utterance("u", Path("u.wav"), text, "anna", language=language)


@pytest.mark.golden
@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no golden files in {FOLDER}")
def test_ids_of_given_phonemes_are_the_authors_own():
    table = json.loads((FOLDER / "g2p.json").read_text())
    for item in table["items"]:
        if len(set(item["langs"])) == 1:
            rows, languages = PhonemeText().rows(PhonemeText().spoken(said(item["phonemes"])), item["langs"][0], "here")
            assert rows.tolist() == item["ids"] and rows.tolist().count(0) == item["unk"]
            assert languages.tolist() == [vallex.LANGUAGES[name] for name in item["langs"]]


@pytest.mark.golden
@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no golden files in {FOLDER}")
@pytest.mark.parametrize("tag", PACKAGES)
def test_phonemes_are_the_authors_own(tag):
    for package in PACKAGES[tag]:
        pytest.importorskip(package, reason=f'{package} is not installed: pip install "ttsadapt[vallex]"')
    items = [i for i in json.loads((FOLDER / "g2p.json").read_text())["items"] if f"[{tag}]" in i["text"]]
    if tag != "EN":  # mixed texts are looked at once
        items = [i for i in items if "[EN]" not in i["text"]]
    elif any("[ZH]" in i["text"] for i in items):
        items = [i for i in items if not re.search(r"\[(ZH|JA)\]", i["text"])]
    assert items
    for item in items:
        tagged = "".join(m[0] for m in re.finditer(r"\[(EN|ZH|JA)\](.*?)\[\1\]", item["text"]))  # the authors drop the rest
        rows, languages = GraphemeText().rows(GraphemeText().spoken(said(tagged)), "en", "here")
        assert rows.tolist() == item["ids"], item["text"]
        assert languages.tolist() == [vallex.LANGUAGES[name] for name in item["langs"]]


def test_the_released_inventory():
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 70
    assert SYMBOLS[3] == "[PAD]" and SYMBOLS.index("_") == 16


def test_tags_switch_the_language(monkeypatch):
    monkeypatch.setattr(vallex, "phonemes", lambda text, tag: text.strip() + ".")
    text = GraphemeText()
    rows, languages = text.rows(text.spoken(said("[EN]ab[EN] [JA]o[JA]_[ZH]n[ZH]")), "zh", "here")
    assert [SYMBOLS[r] for r in rows] == ["a", "b", ".", "o", ".", "n", "."] and languages.tolist() == [0, 0, 0, 2, 2, 1, 1]
    rows, languages = text.rows(text.spoken(said("ab", "cmn")), "en", "here")
    assert languages.tolist() == [1, 1, 1]
    with pytest.raises(DataError, match="'rest' stands outside of language tags"):
        text.spoken(said("[EN]ab[EN] rest"))


@pytest.mark.parametrize(("name", "row"), [("en-us", 0), ("en", 0), ("cmn", 1), ("zh-CN", 1), ("ja", 2)])
def test_language_names(name, row):
    assert vallex.language_row(name, "here") == row


def test_what_cannot_be_said_is_refused(monkeypatch):
    with pytest.raises(DataError, match="has no language 'de', it knows en, zh, ja"):
        vallex.language_row("de", "here")
    with pytest.raises(DataError, match="no phones"):
        PhonemeText().spoken(said(""))

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name.rpartition(".")[2])

    monkeypatch.setattr(vallex, "import_module", missing)
    with pytest.raises(ConfigError, match=r"phonemes of \[ZH\] need the package 'vallex_mandarin': pip install"):
        vallex.phonemes("x", "ZH")


def test_a_fitted_table_knows_its_corpus_and_falls_back_on_near_phones():
    text = CorpusText()
    text.fit([["_", "æ", "b"], ["ˈoː", "_"]], ["en-us", "de"])
    again = CorpusText()
    again.restore(text.state())
    rows, languages = again.rows(["æ", "ˈæ", "æː", "ˈæ̃ː", "ʘ", "ˈoː"], "en-us", "here")
    assert len(set(rows[:4].tolist())) == 1 and rows[4] == 0 and again.size == 5 and rows[5] not in (0, rows[0])
    assert languages.tolist() == [1] * 6
    assert again.rows(["b"], "fr", "here")[1].tolist() == [0]
    with pytest.raises(DataError, match="has room for 3 languages"):
        text.fit([["b"]], ["en", "de", "fr", "it"])
    aligned = Utterance("u", Path("u.wav"), "x", "anna", phones=(Phone("b", 0.0, 1.0),))
    assert again.spoken(aligned) == ("b",)
