"""The corpus that needs no download: speech that espeak-ng synthesises on the spot, with exact phone boundaries.

Source voices share one table of emotions; the target voices have ways of their own, so a base that was trained on the source
cannot know them. No sentence is in more than one of train, valid and test, whatever the set.
"""

import hashlib
import importlib.metadata
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ttsadapt.data import espeak, manifest, rendering, sentences, styles
from ttsadapt.data.corpora.base import Corpus
from ttsadapt.data.rendering import Line
from ttsadapt.data.styles import Style
from ttsadapt.errors import ConfigError
from ttsadapt.files import content_hash, digest

SOURCE_VOICES = ("m1", "m2", "m3", "m8", "boris", "Diogo", "marcelo", "f1", "f2", "f3", "f4", "belinda", "linda", "Annie")
UNSEEN_VOICES = ("m5", "quincy", "f5", "aunty")
TARGET_VOICES = (
    *("shelby", "Andrea", "zac", "Nguyen", "Lee", "sandro", "Reed", "Mario", "victor", "Alicia", "kaukovalta", "ian", "david"),
    *("steph", "Michael", "m4", "pablo", "max", "robert", "Andy", "michel", "benjamin", "grandpa", "m7", "iven3"),
)
"""espeak-ng's variants that sound unlike the source voices, the least alike first"""
