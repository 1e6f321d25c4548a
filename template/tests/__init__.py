"""The tests of this project. Run `pytest` in any of its folders."""
