"""What a model computes below everything that trains is the same in every epoch: computed once, read ever after.

When nothing trains below a block (CSP-FT, partial fine-tuning, adapters on some blocks), what enters that block is a function of
the utterance alone: frozen parts are in eval mode always (`Learner.train`). `cache.py` finds those blocks, checks that it is so,
and keeps their output for every utterance; `taps.py` puts it in their place while the model runs; `layout.py` finds where in a
padded batch it belongs; `store.py` holds it in memory or on disk. None of it knows a backbone.
"""

from ttsadapt.prefix.cache import PrefixCache
from ttsadapt.prefix.store import Disk, Memory

__all__ = ["Disk", "Memory", "PrefixCache"]
