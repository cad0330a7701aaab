"""LoRA in NeuTTS's layout: ours, through the Learner, against transformers' Trainer with peft."""

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ttsadapt.bench.base import Case, Comparison, Side, Work, memory, speed
from ttsadapt.bench.speech import Layout, fitting, setting
from ttsadapt.strategies.lora import LoRA

BATCH = 4
LINEARS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
IGNORED = -100


class LoRACase(Case):
    """Both: four utterances a step, the same LoRA on the same seven linear layers, AdamW, clipped gradients, float32."""

    def __init__(
        self, layout: Layout | dict[str, Any], steps: int = 8, rank: int = 16, at_least: float = 2.7, memory_at_most: float = 0.55
    ) -> None:
        """`at_least`: tokens per CPU second, of the Trainer's. `memory_at_most`: peak memory, of the Trainer's."""
        self.layout = layout if isinstance(layout, Layout) else Layout(**layout)
        self.steps, self.rank, self.at_least, self.memory_at_most = steps, rank, at_least, memory_at_most

    def sides(self) -> Mapping[str, Side]:
        return {"ttsadapt": self._ours, "trainer+peft": self._theirs}

    def comparisons(self) -> Sequence[Comparison]:
        return [
            Comparison("ttsadapt", "trainer+peft", speed, at_least=self.at_least),
            Comparison("ttsadapt", "trainer+peft", memory, at_most=self.memory_at_most),
        ]

    def _ours(self) -> Work:
        made = setting(self.layout)
        lora = LoRA(rank=self.rank, alpha=2.0 * self.rank)
        return fitting(made.learner({"lora": lora}), lambda seed: made.data(1, seed), self.steps)

    def _theirs(self) -> Work:
        from peft import LoraConfig, get_peft_model
        from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments
        from transformers.trainer_callback import PrinterCallback

        torch.manual_seed(0)
        longest = self.layout.text[1] + self.layout.speech[1] + 2
        config = Qwen2Config(vocab_size=self.layout.rows, max_position_embeddings=longest, **self.layout.size())
        peft = LoraConfig(r=self.rank, lora_alpha=2 * self.rank, target_modules=LINEARS, task_type="CAUSAL_LM")
        model = get_peft_model(Qwen2ForCausalLM(config), peft)
        data = [_example(*self.layout.draw(i)) for i in range(self.layout.utterances)]
        place, repeat = tempfile.TemporaryDirectory(prefix="bench-"), 0

        def work() -> int:
            nonlocal repeat
            arguments = TrainingArguments(
                place.name, per_device_train_batch_size=BATCH, max_steps=self.steps, learning_rate=1e-4, seed=repeat, report_to=[],
                save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
            )  # fmt: skip
            seen: list[int] = []

            def collate(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
                batch = _padded(items)
                seen.append(int(batch["attention_mask"].sum()))
                return batch

            trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate)  # type: ignore[arg-type]
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            repeat += 1
            return sum(seen[: self.steps])  # it looks one batch ahead

        return work


def _example(text: Tensor, speech: Tensor) -> dict[str, Tensor]:
    return {"input_ids": torch.cat([text, speech]), "labels": torch.cat([torch.full_like(text, IGNORED), speech])}


def _padded(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    def pad(name: str, value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True, padding_value=value)

    lengths = torch.tensor([len(item["input_ids"]) for item in items])
    ids = pad("input_ids", 0)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return {"input_ids": ids, "labels": pad("labels", IGNORED), "attention_mask": mask.long()}
