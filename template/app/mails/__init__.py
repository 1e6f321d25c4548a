"""The emails that the app sends. The text of each is a file, such as `password_reset.txt`.

Its first line is the subject. `$name` is a placeholder, and `$$` is a dollar sign. The HTML version
has the same paragraphs, in the frame of `layout.html`. For other HTML, write a file such as
`password_reset.html`, which takes the place of the paragraphs. Values are escaped in HTML.
"""
