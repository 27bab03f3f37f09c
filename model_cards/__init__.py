"""Model cards for the Hub, rendered from the zoo and from measurements. Installed as `hf_models.model_cards`."""

from .render import render_card, render_default_card

__all__ = ["render_card", "render_default_card"]
