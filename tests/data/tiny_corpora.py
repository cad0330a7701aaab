"""Real corpora at their smallest: their own names of files and folders, their own texts, a tone for every recording."""

import io
import json

from tiny import AUDIO, Tiny, Trouble, tone

EN, GB, DE, ZH = "en-us", "en-gb", "de", "cmn"

LJ = ["Printing, in the only sense with which we are at present concerned,", "in being comparatively modern.", "It was 12 £ then."]


def ljspeech():
    spoken = [LJ[0], LJ[1], "It was twelve pounds then."]
    rows = "".join(f"LJ001-000{i}|{a}|{b}\n" for i, (a, b) in enumerate(zip(LJ, spoken), 1))
    files = {f"LJSpeech-1.1/wavs/LJ001-000{i}.wav": AUDIO for i in (1, 2, 3)} | {
        "LJSpeech-1.1/metadata.csv": rows,
        "LJSpeech-1.1/README": "",
    }
    expected = {f"LJ001-000{i}": (text, "LJ", "neutral", "", EN, "") for i, text in enumerate(spoken, 1)}
    wavs, table = "LJSpeech-1.1/wavs/", "LJSpeech-1.1/metadata.csv"
    troubles = {
        "no wavs": Trouble({f"{wavs}LJ001-000{i}.wav": None for i in (1, 2, 3)}, "", "has no wavs, it holds README, metadata.csv"),
        "no table": Trouble({table: None}, "", "has no metadata.csv, it holds README, wavs/"),
        "one recording": Trouble({wavs + "LJ001-0002.wav": None}, "missing file", "metadata.csv, line 2", ("LJ001-0002",)),
        "no line": Trouble({wavs + "LJ001-0004.wav": AUDIO}, "no transcript", "metadata.csv has no line LJ001-0004|"),
        "empty text": Trouble({table: rows.replace(LJ[1], "")}, "no transcript", "metadata.csv, line 2", ("LJ001-0002",)),
        "twice": Trouble({table: rows + rows.splitlines()[0]}, "duplicate id", "metadata.csv, line 4"),
        "hidden": Trouble({wavs + "._LJ001-0001.wav": "resource fork"}, None, ""),
    }
    other = {"normalized": False}
    return {
        "plain": Tiny(files, expected, troubles=troubles),
        "as written": Tiny(files, expected | {"LJ001-0003": (LJ[2], "LJ", "neutral", "", EN, "")}, other),
    }


def vctk():
    texts = {"p225_001": "Please call Stella.", "p225_002": "Ask her to bring these things.", "s5_001": "Please call Stella."}
    trimmed = {f"VCTK/wav48_silence_trimmed/{i.split('_')[0]}/{i}_mic{m}.flac": AUDIO for i in texts for m in (1, 2)}
    written = {f"VCTK/txt/{i.split('_')[0]}/{i}.txt": t + "\n" for i, t in texts.items()}
    expected = {i: (t, i.split("_")[0], "neutral", "", GB, "") for i, t in texts.items()}
    wavs = {f"VCTK-Corpus/wav48/{i.split('_')[0]}/{i}.wav": AUDIO for i in texts}
    older = {f.replace("VCTK/", "VCTK-Corpus/"): t for f, t in written.items()}
    at = "VCTK/wav48_silence_trimmed/"
    troubles = {
        "no audio": Trouble(dict.fromkeys(trimmed), "", "has no wav48_silence_trimmed (0.92) and no wav48 (0.80), it holds txt/"),
        "no texts": Trouble(dict.fromkeys(written), "", "has no txt, it holds wav48_silence_trimmed/"),
        "p315": Trouble({at + "p315/p315_001_mic1.flac": AUDIO}, "no transcript", "txt/p315/p315_001.txt"),
        "no recording": Trouble({"VCTK/txt/p225/p225_003.txt": "More."}, "missing file", "there is no recording p225_003"),
        "only mic2": Trouble({at + "p225/p225_001_mic1.flac": None}, "missing file", "give mic=2", ("p225_001",)),
        "strange name": Trouble({at + "p225/noise.flac": AUDIO}, "unknown name", "<speaker>_<number>"),
        "another version": Trouble(
            dict.fromkeys(trimmed) | {"VCTK/wav96/p225/p225_001.wav": AUDIO}, "", "has no wav48_silence_trimmed (0.92) and no wav48 (0.80)"
        ),
        "empty text": Trouble({"VCTK/txt/s5/s5_001.txt": "\n"}, "no transcript", "its transcript is empty", ("s5_001",)),
    }
    return {
        "0.92": Tiny(trimmed | written, expected, troubles=troubles),
        "0.92, mic 2": Tiny(trimmed | written, expected, {"mic": 2}),
        "0.80": Tiny(
            wavs | older,
            expected,
            troubles={"twice": Trouble({"VCTK-Corpus/wav48/p225/more/p225_001.wav": AUDIO}, "duplicate id", "p225_001 is also at")},
        ),
    }


def libritts():
    texts = {
        "train-clean-100/14/208/14_208_000001_000000": ("Chapter 1", "Chapter one"),
        "train-clean-100/16/122/16_122_000002_000001": ('"Yes," said he.', '"Yes," said he.'),
        "dev-clean/84/121/84_121_000007_000001": ("Maximilian.", "Maximilian."),
        "test-clean/61/70/61_70_000004_000000": ("Robin.", "Robin."),
    }

    def made(top, version, official, **settings):
        files = {f"{top}/{f}.wav": AUDIO for f in texts} | {f"{top}/{f}.original.txt": t[0] for f, t in texts.items()}
        files |= {f"{top}/{f}.normalized.txt": t[1] for f, t in texts.items()} | {f"{top}/SPEAKERS.txt": ";ID"}
        splits = {"train-clean-100": "train", "dev-clean": "valid", "test-clean": "test"}
        named = {f: f.split("/") for f in texts}
        expected = {n[-1]: (texts[f][version], n[1], "neutral", "", EN, splits[n[0]] if official else "") for f, n in named.items()}
        return Tiny(files, expected, {"official": official, "normalized": bool(version)} | settings)

    plain, restored = made("LibriTTS", 1, False), made("LibriTTS_R", 0, True)
    first, second = (f"LibriTTS/{f}" for f in list(texts)[:2])
    yes = "LibriTTS_R/test-clean/61/70/61_70_000004_000000.original.txt"
    plain.troubles = {
        "no subset": Trouble(
            {f: None for f in plain.files if "-clean" in f}, "", "has no subset such as train-clean-100, it holds SPEAKERS.txt"
        ),
        "no text": Trouble(
            {first + ".normalized.txt": None}, "no transcript", "14_208_000001_000000.normalized.txt", ("14_208_000001_000000",)
        ),
        "no recording": Trouble({second + ".wav": None}, "missing file", "16_122_000002_000001.wav", ("16_122_000002_000001",)),
        "strange name": Trouble({"LibriTTS/dev-clean/84/121/intro.wav": AUDIO}, "unknown name", "<speaker>_<chapter>"),
        "twice": Trouble(
            {f"LibriTTS/dev-clean/14_208_000001_000000{s}": c for s, c in ((".wav", AUDIO), (".normalized.txt", "One"))},
            "duplicate id",
            "also that",
        ),
    }
    restored.troubles = {
        "no dev": Trouble({f: None for f in restored.files if "dev-" in f}, "", "has only test, train and no valid"),
        "a leak": Trouble({yes: "yes said he"}, "leak", "", ("16_122_000002_000001",)),
    }
    return {"LibriTTS": plain, "LibriTTS-R": restored}


def esd():
    english = {"0011_000001": "The nine the eggs, I keep.", "0011_000351": "Dogs are sitting by the door."}
    chinese = {"0001_000001": "打远一看，它们的确很是美丽，", "0001_001401": "我们的生活会更好。"}
    rows = {
        "0011": f"0011_000001\t{english['0011_000001']}\tNeutral\r\n0011_000351\t{english['0011_000351']}\tAngry\r\n",
        "0001": f"0001_000001\t{chinese['0001_000001']}\t中立\n0001_001401\t{chinese['0001_001401']}\t惊喜\n",
    }
    folders = {
        "0011_000001": ("Neutral", "evaluation"),
        "0011_000351": ("Angry", "train"),
        "0001_000001": ("Neutral", "test"),
        "0001_001401": ("Surprise", "train"),
    }

    def made(encodings, split, top="Emotion Speech Dataset/"):
        files = {f"{top}{s}/{s}.txt": rows[s].encode(encodings[s]) for s in rows}
        files |= {f"{top}{i[:4]}/{e}/{p + '/' if split else ''}{i}.wav": AUDIO for i, (e, p) in folders.items()}
        official = {"evaluation": "valid"}
        expected = {
            i: (text, i[:4], *of, EN if i[:4] == "0011" else ZH, official.get(folders[i][1], folders[i][1]) if split else "")
            for i, text in (english | chinese).items()
            for of in [{"Neutral": ("neutral", ""), "Angry": ("angry", ""), "Surprise": ("surprised", "Surprise")}[folders[i][0]]]
        }
        return Tiny(files, expected, {"official": split})

    flat, divided = made({"0011": "utf-8", "0001": "gb2312"}, False), made({"0011": "utf-16", "0001": "utf-8-sig"}, True)
    latin = made({"0011": "cp1252", "0001": "utf-16-le"}, False, "")
    latin.files["0011/0011.txt"] = rows["0011"].replace("eggs", "éggs").replace("\t", " ").encode("cp1252")  # spaces, and no UTF-8
    latin.files["0001/0001.txt"] = rows["0001"].replace("\t中立", "").replace("\t惊喜", "").encode("utf-16-le")  # no emotions
    latin.expected["0011_000001"] = ("The nine the éggs, I keep.", *latin.expected["0011_000001"][1:])
    top = "Emotion Speech Dataset/"
    flat.troubles = {
        "no speakers": Trouble(dict.fromkeys(flat.files) | {top + "readme.txt": "x"}, "", "has no speaker's folder 0001 to 0020, it holds"),
        "no table": Trouble({top + "0011/0011.txt": None}, "no transcript", "0011.txt has no line 0011_0", tuple(english)),
        "no recording": Trouble({top + "0011/Angry/0011_000351.wav": None}, "missing file", "0011.txt, line 2", ("0011_000351",)),
        "no line": Trouble({top + "0011/Sad/0011_001060.wav": AUDIO}, "no transcript", "0011.txt has no line 0011_001060"),
        "line twice": Trouble({top + "0011/0011.txt": rows["0011"] + rows["0011"].splitlines()[0]}, "duplicate id", "0011.txt, line 3"),
        "strange name": Trouble({top + "0011/Sad/a.wav": AUDIO}, "unknown name", "0011_<six digits>"),
        "twice": Trouble({top + "0011/Angry/0011_000001.wav": AUDIO}, "duplicate id", "is also that of"),
        "strange emotion": Trouble(
            {top + "0011/Angry/0011_000351.wav": None, top + "0011/Grumpy/0011_000351.wav": AUDIO},
            "unknown emotion",
            "emotions={Grumpy:",
            ("0011_000351",),
        ),
    }
    divided.troubles = {"no split": Trouble({top + "0011/Sad/0011_001060.wav": AUDIO}, "no split", "give official=false")}
    return {"flat": flat, "divided": divided, "latin": latin}


def ravdess():
    names = {"Actor_12": "03-01-06-01-02-01-12", "Actor_01": "03-01-01-01-01-01-01", "Actor_02": "03-01-08-02-01-02-02"}
    sung = "03-02-03-01-01-01-01"
    kids, dogs = "Kids are talking by the door.", "Dogs are sitting by the door."
    expected = {
        names["Actor_12"]: (dogs, "Actor_12", "fearful", "", EN, ""),
        names["Actor_01"]: (kids, "Actor_01", "neutral", "", EN, ""),
        names["Actor_02"]: (kids, "Actor_02", "surprised", "", EN, ""),
    }
    disgust = "03-01-07-01-01-01-01"
    expected[disgust] = (kids, "Actor_01", "disgusted", "disgust", EN, "")
    files = {f"{a}/{n}.wav": AUDIO for a, n in names.items()} | {f"Actor_01/{n}.wav": AUDIO for n in (sung, disgust)}
    troubles = {
        "no recordings": Trouble(dict.fromkeys(files) | {"Actor_01/a.mp4": b"x"}, "", "no recording of RAVDESS below"),
        "strange code": Trouble({"Actor_01/03-01-09-01-01-01-01.wav": AUDIO}, "unknown code", "emotion '09'"),
        "strange name": Trouble({"Actor_01/hello.wav": AUDIO}, "unknown name", "seven numbers"),
        "twice": Trouble({f"audio_speech_actors_01-24/Actor_12/{names['Actor_12']}.wav": AUDIO}, "duplicate id", "is also that of"),
    }
    strong = {names["Actor_02"]: expected[names["Actor_02"]]}
    return {
        "speech": Tiny(files, expected, troubles=troubles),
        "song": Tiny(files, {sung: (kids, "Actor_01", "happy", "", EN, "")}, {"channels": ["song"]}),
        "strong": Tiny(files, strong, {"intensities": ["strong"], "channels": ["speech", "song"]}),
    }


def cremad():
    names = {"1001_DFA_ANG_XX": "Don't forget a jacket.", "1002_ITH_HAP_HI": "I think I have a doctor's appointment.", "1040_ITH_SAD_X": ""}
    names["1040_ITH_SAD_X"] = names["1002_ITH_HAP_HI"]
    emotions = {"ANG": ("angry", "anger"), "HAP": ("happy", ""), "SAD": ("sad", "")}
    expected = {n: (t, n[:4], *emotions[n.split("_")[2]], EN, "") for n, t in names.items()}
    files = {f"CREMA-D/AudioWAV/{n}.wav": AUDIO for n in names}
    table = {
        "CREMA-D/VideoDemographics.csv": "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n1002,21,Female,Caucasian,x\n"
    }
    at = "CREMA-D/AudioWAV/"
    troubles = {
        "no AudioWAV": Trouble(
            dict.fromkeys(files) | {"CREMA-D/AudioMP3/1001_DFA_ANG_XX.mp3": b"x"}, "", "has no AudioWAV, it holds AudioMP3/"
        ),
        "strange emotion": Trouble({at + "1001_DFA_BOR_XX.wav": AUDIO}, "unknown code", "emotion 'BOR'"),
        "promised": Trouble({at + "1001_IEO_SAD_HI.wav": "version https://git-lfs.github.com/spec/v1\n"}, "missing file", "git lfs pull"),
        "strange sentence": Trouble({at + "1001_XYZ_ANG_XX.wav": AUDIO}, "unknown code", "sentence 'XYZ'"),
        "strange name": Trouble({at + "1001.wav": AUDIO}, "unknown name", "<actor>_<sentence>"),
        "twice": Trouble({at + "copy/1001_DFA_ANG_XX.wav": AUDIO}, "duplicate id", "is also that of"),
    }
    without = {"no table": Trouble({next(iter(table)): None}, "", "sex=Female needs")}
    without["wrong table"] = Trouble({next(iter(table)): "a,b\n1,2\n"}, "", "has no column ActorID")
    return {
        "all": Tiny(files, expected, troubles=troubles),
        "women": Tiny(files | table, {n: v for n, v in expected.items() if n[:4] == "1002"}, {"sex": "Female"}, without),
        "loud": Tiny(files, {n: v for n, v in expected.items() if n.endswith("HI")}, {"levels": ["high"]}),
    }


ARCTIC = '( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )\n( arctic_a0002 "Not at this particular case, Tom." )\n'


def emovdb():
    one, two = "Author of the danger trail, Philip Steels, etc.", "Not at this particular case, Tom."
    expected = {
        "bea_amused_1-15_0001": (one, "bea", "amused", "", EN, ""),
        "sam_anger_1-28_0002": (two, "sam", "angry", "anger", EN, ""),
        "jenie_sleepiness_1-28_0001": (one, "jenie", "sleepy", "sleepiness", EN, ""),
    }
    packed = {
        "bea_Amused/amused_1-15_0001.wav": AUDIO,
        "sam_Angry/anger_1-28_0002.wav": AUDIO,
        "jenie_Sleepy/sleepiness_1-28_0001.wav": AUDIO,
    }
    sorted_ = {f"EmoV-DB_sorted/{f.replace('_', '/', 1)}": AUDIO for f in packed}
    table = {"cmuarctic.data": ARCTIC}
    troubles = {
        "no texts": Trouble({"cmuarctic.data": None}, "", "http://www.festvox.org/cmu_arctic/cmuarctic.data"),
        "other texts": Trouble({"cmuarctic.data": "a|b"}, "", "has no line such as ( arctic_a0001"),
        "no recordings": Trouble(dict.fromkeys(packed), "", "no recording of EmoVDB below"),
        "no such sentence": Trouble({"bea_Amused/amused_1-15_0009.wav": AUDIO}, "no transcript", "has no arctic_a0009"),
        "strange name": Trouble({"bea_Amused/x.wav": AUDIO}, "unknown name", "<emotion>_<range>_<sentence>"),
        "strange speaker": Trouble({"paul_Amused/amused_1-15_0001.wav": AUDIO}, "unknown name", "of bea, jenie, josh, sam"),
        "strange emotion": Trouble({"bea_Amused/awed_1-15_0001.wav": AUDIO}, "unknown emotion", "emotions={awed:"),
        "twice": Trouble({"more/bea_Amused/amused_1-15_0001.wav": AUDIO}, "duplicate id", "is also that of"),
    }
    return {
        "packed": Tiny(packed | table, expected, troubles=troubles),
        "sorted": Tiny(
            sorted_ | {"EmoV-DB_sorted/cmuarctic.data": ARCTIC}, expected, {"transcripts_path": "{path}/EmoV-DB_sorted/cmuarctic.data"}
        ),
    }


def emodb():
    files = {f"wav/{n}.wav": AUDIO for n in ("03a01Fa", "08b02Wd", "16a04Lb", "10a01Nc")}
    lappen = "Der Lappen liegt auf dem Eisschrank."
    expected = {
        "03a01Fa": (lappen, "03", "happy", "Freude", DE, ""),
        "08b02Wd": ("Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.", "08", "angry", "Wut", DE, ""),
        "16a04Lb": ("Heute Abend könnte ich es ihm sagen.", "16", "bored", "Langeweile", DE, ""),
        "10a01Nc": (lappen, "10", "neutral", "", DE, ""),
    }
    troubles = {
        "no wav": Trouble(dict.fromkeys(files) | {"erkennung.txt": "x"}, "", "has no wav, it holds erkennung.txt"),
        "strange emotion": Trouble({"wav/03a01Xa.wav": AUDIO}, "unknown code", "emotion 'X'"),
        "strange sentence": Trouble({"wav/03a03Fa.wav": AUDIO}, "unknown code", "sentence 'a03'"),
        "strange name": Trouble({"wav/hello.wav": AUDIO}, "unknown name", "such as 03a01Fa"),
        "twice": Trouble({"wav/copy/03a01Fa.wav": AUDIO}, "duplicate id", "is also that of"),
    }
    own = expected | {"16a04Lb": (expected["16a04Lb"][0], "16", "calm", "Langeweile", DE, "")}
    return {"wav": Tiny(files, expected, troubles=troubles), "own words": Tiny(files, own, {"emotions": {"Langeweile": "calm"}})}


def tess():
    files = {
        "OAF_angry/OAF_back_angry.wav": AUDIO,
        "OAF_Pleasant_surprise/OAF_bar_ps.wav": AUDIO,
        "OAF_neutral/OA_bite_neutral.wav": AUDIO,
        "YAF_fear/YAF_youth_fear.wav": AUDIO,
    }
    expected = {
        "OAF_back_angry": ("Say the word back.", "OAF", "angry", "", EN, ""),
        "OAF_bar_ps": ("Say the word bar.", "OAF", "surprised", "pleasant surprise", EN, ""),
        "OA_bite_neutral": ("Say the word bite.", "OAF", "neutral", "", EN, ""),
        "YAF_youth_fear": ("Say the word youth.", "YAF", "fearful", "fear", EN, ""),
    }
    troubles = {
        "no recordings": Trouble(dict.fromkeys(files) | {"readme.md": "x"}, "", "it holds readme.md"),
        "strange code": Trouble({"OAF_angry/OAF_back_cross.wav": AUDIO}, "unknown code", "emotion 'cross'"),
        "strange name": Trouble({"OAF_angry/MAF_back_angry.wav": AUDIO}, "unknown name", "such as OAF_back_angry"),
        "twice": Trouble({"TESS/OAF_angry/OAF_back_angry.wav": AUDIO}, "duplicate id", "is also that of"),
    }
    return {"folders": Tiny(files, expected, troubles=troubles)}


def savee():
    texts = {"a01": "She had your dark suit in greasy wash water all year.", "su02": "Will you tell me why?"}
    expected = {
        "DC_a01": (texts["a01"], "DC", "angry", "anger", GB, ""),
        "JE_su02": (texts["su02"], "JE", "surprised", "surprise", GB, ""),
        "KL_a01": ("Something of his own.", "KL", "angry", "anger", GB, ""),
    }
    table = {"texts.txt": f"a01 {texts['a01']}\nsu02\t{texts['su02']}\nKL_a01 Something of his own.\n"}
    nested = {f"AudioData/{n.replace('_', '/')}.wav": AUDIO for n in expected}
    given = {"transcripts_path": "{path}/texts.txt"}
    troubles = {
        "no texts": Trouble({"texts.txt": None}, "", "give transcripts_path=<file>"),
        "strange line": Trouble({"texts.txt": "hello\n"}, "", "texts.txt, line 1: no line of a sentence"),
        "no recordings": Trouble(dict.fromkeys(nested), "", "no recording of SAVEE below"),
        "one text": Trouble({"AudioData/DC/h03.wav": AUDIO}, "no transcript", "SAVEE comes without texts"),
        "strange code": Trouble({"AudioData/DC/x01.wav": AUDIO}, "unknown code", "emotion 'x'"),
        "strange name": Trouble({"AudioData/DC/hello.wav": AUDIO}, "unknown name", "such as DC/a01"),
        "twice": Trouble({"copy/DC_a01.wav": AUDIO}, "duplicate id", "is also that of"),
    }
    return {
        "nested": Tiny(nested | table, expected, given, troubles),
        "flat": Tiny({f"{n}.wav": AUDIO for n in expected} | table, expected, given),
        "nested, no texts": Tiny(
            nested, {}, {}, {"all of them": Trouble({}, "", "SAVEE comes without texts: give transcripts_path=<file>")}
        ),
    }


MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"


def meld():
    def row(text, speaker, emotion, dialogue, number):
        return f'1,"{text}",{speaker},{emotion},neutral,{dialogue},{number},8,21,"00:16:16,059","00:16:21,731"\n'

    train = row("also I was the point person", "Chandler", "neutral", 0, 0) + row(
        "You mustve had your hands full.", "The Interviewer", "joy", 0, 1
    )
    train += row("That I did. That I did.", "Chandler", "sadness", 0, 2)
    train = train.replace("mustve", "must\u0092ve").replace("person", "person\u0085")
    rows = {
        "train": train,
        "dev": row("Oh my God!", "Phoebe", "surprise", 0, 0),
        "test": row("Why do all you're coffee mugs?", "Mark", "anger", 0, 0),
    }
    folders = {"train": "train/train_splits", "dev": "dev/dev_splits_complete", "test": "test/output_repeated_splits_test"}
    files = {f"MELD.Raw/{s}_sent_emo.csv": MELD_HEAD + r for s, r in rows.items()}
    files |= {f"MELD.Raw/{folders[s]}/dia0_utt{u}.wav": AUDIO for s, n in (("train", 3), ("dev", 1), ("test", 1)) for u in range(n)}
    files["MELD.Raw/train/train_splits/dia0_utt0.mp4"] = b"a video beside its sound"
    expected = {
        "train_dia0_utt0": ("also I was the point person…", "Chandler", "neutral", "", EN, "train"),
        "train_dia0_utt1": ("You must’ve had your hands full.", "The Interviewer", "happy", "joy", EN, "train"),
        "train_dia0_utt2": ("That I did. That I did.", "Chandler", "sad", "sadness", EN, "train"),
        "valid_dia0_utt0": ("Oh my God!", "Phoebe", "surprised", "surprise", EN, "valid"),
        "test_dia0_utt0": ("Why do all you're coffee mugs?", "Mark", "angry", "anger", EN, "test"),
    }
    csv, at = "MELD.Raw/train_sent_emo.csv", "MELD.Raw/train/train_splits/"
    more = MELD_HEAD + train
    troubles = {
        "no csv": Trouble({f: None for f in files if f.endswith("csv")}, "", "has no csv with the columns utterance, speaker, emotion"),
        "no sound": Trouble({f: None for f in files if f.endswith("wav")}, "", "only videos: for f in $(find . -name '*.mp4')"),
        "one video": Trouble(
            {at + "dia0_utt1.wav": None, at + "dia0_utt1.mp4": b"x"}, "video", "ffmpeg -i dia0_utt1.mp4", ("train_dia0_utt1",)
        ),
        "one recording": Trouble({at + "dia0_utt1.wav": None}, "missing file", "train_sent_emo.csv, line 3", ("train_dia0_utt1",)),
        "no text": Trouble(
            {csv: more.replace("That I did. That I did.", "")}, "no transcript", "train_sent_emo.csv, line 4", ("train_dia0_utt2",)
        ),
        "strange emotion": Trouble({csv: more.replace("joy", "glee")}, "unknown emotion", "emotions={glee:", ("train_dia0_utt1",)),
        "twice": Trouble({csv: more + row("Again.", "Joey", "joy", 0, 0)}, "duplicate id", "train_sent_emo.csv, line 5"),
        "a leak": Trouble({csv: more.replace("That I did. That I did.", "Oh, my God.")}, "leak", "", ("train_dia0_utt2",)),
        "no number": Trouble(
            {csv: more.replace(",0,1,8", ",0,one,8")}, "row", "train_sent_emo.csv, line 3: utterance_id is 'one'", ("train_dia0_utt1",)
        ),
        "more cells": Trouble({csv: more.replace(",0,1,8", ",0,1,8,9,10")}, "row", "line 3: more cells", ("train_dia0_utt1",)),
        "no dev": Trouble({"MELD.Raw/dev_sent_emo.csv": None}, "", "has only test, train and no valid"),
    }
    loose = {"mine.csv": MELD_HEAD + train, **{f"clips/dia0_utt{u}.flac": AUDIO for u in range(3)}}
    undivided = {i.replace("train", "mine"): (*e[:5], "") for i, e in expected.items() if i.startswith("train")}
    named = {"no split": Trouble({}, "", "its name tells none of train, dev, test")}
    return {
        "MELD": Tiny(files, expected, {"context": 2}, troubles),
        "like MELD": Tiny(loose, undivided, {"official": False}),
        "like MELD, official": Tiny(loose, {}, {}, named),
    }


def hugging_face():
    """Needs pyarrow."""
    import pyarrow as pa
    from pyarrow import parquet

    def table(rows, classes=("happy", "angry"), audio=None):
        audio = audio or [{"bytes": tone(i + 7), "path": "a.wav"} for i, _ in enumerate(rows)]
        columns = {
            "audio": audio,
            "text": [t for t, _, _ in rows],
            "speaker_id": [s for _, s, _ in rows],
            "emotion": [e for _, _, e in rows],
        }
        made = pa.table(columns)
        features = {"info": {"features": {"emotion": {"names": list(classes), "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}}}
        return made.replace_schema_metadata({"huggingface": json.dumps(features)})

    def as_parquet(made):
        buffer = io.BytesIO()
        parquet.write_table(made, buffer)
        return buffer.getvalue()

    def as_stream(made):
        buffer = io.BytesIO()
        with pa.ipc.new_stream(buffer, made.schema) as writer:
            writer.write_table(made, max_chunksize=2)
        return buffer.getvalue()

    train, test, valid = [("One.", 3, 0), ("Two.", 4, 1)], [("Three.", 3, 1)], [("Four.", 3, 0)]
    expected = {
        "train-000000": ("One.", "3", "happy", "", EN, ""),
        "train-000001": ("Two.", "4", "angry", "", EN, ""),
        "test-000000": ("Three.", "3", "angry", "", EN, ""),
        "valid-000000": ("Four.", "3", "happy", "", EN, ""),
    }
    official = {i: (*e[:5], i.split("-")[0]) for i, e in expected.items()}
    splits = {"train": train, "test": test, "validation": valid}
    tables = {f"data/{n}-00000-of-00001.parquet": as_parquet(table(rows)) for n, rows in splits.items()}
    saved = {f"{n}/data-00000-of-00001.arrow": as_stream(table(rows)) for n, rows in splits.items()}
    saved |= {"dataset_dict.json": '{"splits": ["train", "test", "validation"]}', "train/cache-1.arrow": b"x"}
    first = "data/train-00000-of-00001.parquet"
    paths = pa.table({"file": ["clips/1.wav", "clips/2.wav"], "sentence": ["One.", "Two."], "key": ["a", "b"]})
    nobody = pa.table({"file": ["clips/1.wav", "../2.wav"], "sentence": ["One.", "Two."], "key": ["a", "b"]})
    twice = pa.table({"file": ["clips/1.wav", "clips/2.wav"], "sentence": ["One.", "Two."], "key": ["a", "a"]})
    troubles = {
        "nothing": Trouble(dict.fromkeys(tables) | {"README.md": "x"}, "", "has no .parquet and no .arrow file, it holds README.md"),
        "cut short": Trouble({first: tables[first][:200]}, "unreadable", "download it again", ("train-000000", "train-000001")),
        "no text": Trouble({first: as_parquet(table([train[0], ("", 4, 1)]))}, "no transcript", "row 1", ("train-000001",)),
        "no audio": Trouble(
            {first: as_parquet(table(train, audio=[{"bytes": tone(7), "path": "a"}, {"bytes": None, "path": None}]))},
            "missing file",
            "neither bytes nor a file",
            ("train-000001",),
        ),
        "strange emotion": Trouble(
            {first: as_parquet(table(train, ("glee", "angry")))}, "unknown emotion", "emotions={glee:", ("train-000000",)
        ),
        "no column": Trouble({first: as_parquet(table(train).drop_columns("text"))}, "", "give text=<one of them>"),
    }
    columns = {"audio": "file", "text": "sentence", "id": "key"}
    placed = {"clips/1.wav": AUDIO, "clips/2.wav": AUDIO, "all.parquet": as_parquet(paths)}
    loose = {"a": ("One.", "{name}", "neutral", "", EN, ""), "b": ("Two.", "{name}", "neutral", "", EN, "")}
    outside = {
        "outside": Trouble({"all.parquet": as_parquet(nobody)}, "missing file", "nor a file below", ("b",)),
        "twice": Trouble({"all.parquet": as_parquet(twice)}, "duplicate id", "is also that of", ("b",)),
    }
    return {
        "parquet": Tiny(tables, expected, {}, troubles),
        "save_to_disk": Tiny(saved, official, {"official": True}),
        "paths": Tiny(placed, loose, columns, outside),
    }


CORPORA = {f.__name__: f for f in (ljspeech, vctk, libritts, esd, ravdess, cremad, emovdb, emodb, tess, savee, meld, hugging_face)}
"""by the names of their yaml"""
