"""The settings: what there is to set (``settings``) and where it is read from (``loading``). Only the top floor reads them."""

from __future__ import annotations

from tornado_rt.config.loading import ENV_FILES, SettingsFault, load_settings, mask_password, names_of, option_of
from tornado_rt.config.settings import Settings

__all__ = ["ENV_FILES", "Settings", "SettingsFault", "load_settings", "mask_password", "names_of", "option_of"]
