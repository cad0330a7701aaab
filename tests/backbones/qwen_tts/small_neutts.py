"""What a released folder is made of, small: a codec, a byte-level tokenizer with NeuTTS's tokens, sizes of a model."""

from collections.abc import Callable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

CODES = 40
CONTROLS = ["TEXT_REPLACE", "TEXT_PROMPT_START", "TEXT_PROMPT_END", "SPEECH_REPLACE", "SPEECH_GENERATION_START", "SPEECH_GENERATION_END"]
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}  # fmt: skip
CONFIGS = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


def buzz(seconds: float, pitch: float, rate: int = 16000) -> torch.Tensor:
    time = torch.arange(int(rate * seconds)) / rate
    phase = 2 * torch.pi * torch.cumsum(pitch * (1 + 0.2 * torch.sin(6 * time)) / rate, 0)
    return 0.2 * sum(torch.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * torch.cos(9 * time))


class CountingCodec:
    """25 codes a second, from how loud each 40 ms are and how often they cross zero; back to a hum as loud."""

    sample_rate, input_rate, rate, levels, tokens = 24000, 16000, 25.0, 1, CODES

    def fit(self, recordings, phones=None) -> None: ...

    def encode(self, audio):
        frames = audio[: len(audio) // 640 * 640].view(-1, 640)
        crossings = (frames[:, 1:].sign() != frames[:, :-1].sign()).float().mean(1)
        return ((frames.square().mean(1).sqrt() * 12).clamp(0, 3).long() * 10 + (crossings * 90).clamp(0, 9).long()).clamp(0, CODES - 1)

    def decode(self, tokens):
        return (torch.sin(torch.arange(960) * 0.05)[None] * (tokens // 10 / 8)[:, None]).flatten()

    def allowed(self, position):
        return range(CODES)

    def state(self):
        return {}

    def restore(self, state) -> None: ...


def tokenizer_of(*, first: str | None = None, codes: int = CODES, order: Callable[[list[str]], list[str]] = list):
    """Byte-level, as Qwen2's and Llama 3's; `first`: a token that the tokenizer itself puts before every text, as Llama 3's does."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = ["user: Convert the text to speech: assistant:", "həlˈoʊ ðɛɹ hˈaʊ ɑːɹ juː"] * 4
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    bare.train_from_iterator(texts, trainer)
    special = ["<|endoftext|>", *([first] if first else []), *(f"<|{c}|>" for c in CONTROLS)]
    bare.add_special_tokens([*special, *order([f"<|speech_{i}|>" for i in range(codes)])])
    if first:
        bare.post_processor = processors.TemplateProcessing(single=f"{first} $A", special_tokens=[(first, bare.token_to_id(first))])
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<|endoftext|>", eos_token="<|SPEECH_GENERATION_END|>")
