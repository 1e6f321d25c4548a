"""Writes new code in the style of this project: the templates here are yours to change.

This folder is for development. The app does not import it, and production does not install it.
"""
