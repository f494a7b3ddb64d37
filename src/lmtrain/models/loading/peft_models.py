"""PEFT's model classes with their saving as a run needs it. Importing this module needs peft."""

from __future__ import annotations

from typing import Any

from peft import PeftModel, PeftModelForCausalLM


class _SavesItselfOnly:
    """Saves the adapter alone, without asking the hub and without a page about itself.

    The library compares the vocabulary with that of the base model, for which it asks the hub at every checkpoint, and
    adds both whole embeddings where it grew; the rows that grew are trained and saved here as they are.
    """

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("save_embedding_layers", False)
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def create_or_update_model_card(self, output_dir: str) -> None:
        """None: the folder holds a run and its records."""


class CausalAdapter(_SavesItselfOnly, PeftModelForCausalLM):
    """A causal model with an adapter."""


class OtherAdapter(_SavesItselfOnly, PeftModel):
    """A model with an adapter whose kind PEFT has no class for, such as a masked one."""
