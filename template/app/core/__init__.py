"""The template's machinery: `copier update` replaces it, so import from it and never edit it."""
