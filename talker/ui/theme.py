"""Colours, fonts and the style sheet. Light and dark share one set of names; nothing is fetched from outside."""

from __future__ import annotations

from pathlib import Path

from gradio import themes
from gradio.themes.utils.fonts import LocalFont

STYLE = Path(__file__).with_name("style.css")

INK = themes.Color(
    name="ink",
    c50="#fbfaf8",
    c100="#f4f2ef",
    c200="#e8e5e1",
    c300="#d5d1cc",
    c400="#a29da3",
    c500="#77727e",
    c600="#56525f",
    c700="#3b3844",
    c800="#26242e",
    c900="#1a1920",
    c950="#121117",
)
IRIS = themes.Color(
    name="iris",
    c50="#f1f0ff",
    c100="#e4e2ff",
    c200="#cdc9ff",
    c300="#aea7ff",
    c400="#8f85fb",
    c500="#6f62ef",
    c600="#5546dd",
    c700="#4636b8",
    c800="#3a2f93",
    c900="#2b2469",
    c950="#1a1642",
)


# Of the fonts in Gradio 6.31's wheel only some files hold the whole alphabet: these do in these weights.


def theme() -> themes.Base:
    """The one theme of the app; ``style.css`` refines it."""
    base = themes.Base(
        primary_hue=IRIS,
        secondary_hue=IRIS,
        neutral_hue=INK,
        radius_size=themes.sizes.radius_lg,
        font=(LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=(LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="#efedf4",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="#a5a1b0",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="#312e3a",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="#a5a1b0",
        block_title_text_weight="600",
        block_title_text_color="*neutral_900",
        block_title_text_color_dark="#efedf4",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#312e3a",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_border_width="1px",
        input_radius="12px",
        input_border_color="*neutral_300",
        input_border_color_dark="#3c3947",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#3c3947",
        button_border_width="1px",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
        panel_background_fill="transparent",
        panel_background_fill_dark="transparent",
        panel_border_width="0px",
    )


def display_fonts() -> str:
    """Font faces of the headings, served from the installed package like all others."""
    return str(LocalFont("Quicksand", weights=(700,)).stylesheet()["css"])
