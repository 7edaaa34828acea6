"""A language model in this process, by transformers."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class LocalModel:
    """Greedy answers of a causal language model in a folder (or a hub name).

    Args:
        name: folder with weights and tokeniser. device: torch device.
        max_new_tokens: limit of an answer.

    Raises:
        FileNotFoundError: nothing of that name can be loaded.
    """

    parallel = 1

    def __init__(self, name: str, device: torch.device, max_new_tokens: int = 1024) -> None:
        self.name, self.max_new_tokens = name, max_new_tokens
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            self._model = AutoModelForCausalLM.from_pretrained(name).to(device).eval()
        except (OSError, ValueError) as error:
            raise FileNotFoundError(f"--local {name}: no such language model ({error})") from error

    @torch.inference_mode()
    def complete(self, prompt: str) -> str:
        """The answer's text; a chat model is asked by its own chat template."""
        if self._tokenizer.chat_template:
            message = [{"role": "user", "content": prompt}]
            prompt = self._tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True
            )
        ids = self._tokenizer(prompt, return_tensors="pt").to(self._model.device)
        output = self._model.generate(
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
        )
        answer = output[0, ids["input_ids"].shape[1] :]
        return self._tokenizer.decode(answer, skip_special_tokens=True)
