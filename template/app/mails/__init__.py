"""The mails that the app sends: the text of each, and optionally the same as HTML.

The first line of `password_reset.txt` is the subject. `$name` is a placeholder, and $$ a dollar
sign. A mail also has an HTML version if there is a `password_reset.html` with the same placeholders.
"""
