"""Tests of the login: `app/auth`."""
