"""The settings: what there is to set, where it is read from, what is said of it. Only the top floor reads them."""

from __future__ import annotations

from tornado_rt.config.loading import ENV_FILES, SettingsFault, load_settings, mask_password
from tornado_rt.config.settings import Settings
from tornado_rt.config.words import About, about, names_of, option_of

__all__ = [
    "ENV_FILES",
    "About",
    "Settings",
    "SettingsFault",
    "about",
    "load_settings",
    "mask_password",
    "names_of",
    "option_of",
]
