"""The name of a model in every form in which code needs it, and what it refers to."""

import keyword
import re
import unicodedata
from dataclasses import dataclass

UNCOUNTABLE = {"equipment", "fish", "information", "money", "news", "series", "sheep", "species"}
IRREGULAR = {
    "child": "children",
    "half": "halves",
    "knife": "knives",
    "leaf": "leaves",
    "life": "lives",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "shelf": "shelves",
}
# Names that the generated code uses itself: of variables and functions, and of modules.
TAKEN_VARIABLES = {
    "add",
    "client",
    "data",
    "datetime",
    "filters",
    "load",
    "load_all",
    "make_body",
    "page",
    "paginate",
    "path",
    "require",
    "require_owner",
    "router",
    "rows",
    "search",
    "select",
    "session",
    "update",
    "user",
}
TAKEN_MODULES = {"base", "file", "iter_modules", "metadata", "module"}


class BadName(Exception):
    """A name or a field that cannot be used; the sentence says what to write instead."""


@dataclass(frozen=True)
class Names:
    """`BookShelf` in every form in which the code needs it."""

    model: str
    plural: str

    @classmethod
    def parse(cls, model: str, plural: str | None = None) -> "Names":
        if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", model):
            example = camel(to_ascii(model)) or "Book"
            raise BadName(f"write the name as a class in English letters, such as {example}")
        singular = snake(model)
        is_keyword = keyword.iskeyword(model) or keyword.iskeyword(singular)
        if is_keyword or singular in TAKEN_VARIABLES | TAKEN_MODULES:
            raise BadName(
                f"{model} would clash with Python or with generated code; add a word, such as "
                f"Library{model}"
            )
        names = cls(model, plural or pluralize(singular))
        if not re.fullmatch(r"[a-z][a-z0-9_]*", names.plural) or keyword.iskeyword(names.plural):
            raise BadName("write the plural like a table: --plural book_shelves")
        return names

    @property
    def singular(self) -> str:
        return snake(self.model)

    @property
    def words(self) -> str:
        return self.singular.replace("_", " ")

    @property
    def plural_words(self) -> str:
        return self.plural.replace("_", " ")

    @property
    def path(self) -> str:
        return self.plural.replace("_", "-")

    @property
    def article(self) -> str:
        return "an" if self.singular[0] in "aeiou" else "a"


def to_ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def snake(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text).lower()


def camel(text: str) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", text) if word]
    return "".join(word[0].upper() + word[1:] for word in words).lstrip("0123456789")


def pluralize(singular: str) -> str:
    head, separator, word = singular.rpartition("_")
    if word in UNCOUNTABLE:
        plural = word
    elif word in IRREGULAR:
        plural = IRREGULAR[word]
    elif re.search(r"[^aeiou]y$", word):
        plural = f"{word[:-1]}ies"
    elif re.search(r"(s|x|z|ch|sh)$", word):
        plural = f"{word}es"
    else:
        plural = f"{word}s"
    return head + separator + plural


def singularize(plural: str) -> str:
    """`tags` becomes `tag`. Other words stay."""
    head, separator, word = plural.rpartition("_")
    found = {many: one for one, many in IRREGULAR.items()}
    guesses = [found.get(word, ""), f"{word[:-3]}y", word[:-2], word[:-1]]
    return head + separator + next((g for g in guesses if g and pluralize(g) == word), word)


@dataclass(frozen=True)
class Target:
    """The model that a foreign key refers to."""

    model: str
    module: str
    table: str

    @property
    def singular(self) -> str:
        return snake(self.model)


@dataclass(frozen=True)
class Above:
    """A row that others are nested in, directly or not."""

    target: Target
    # How a statement joins it.
    on: str
    is_soft: bool

    @property
    def is_there(self) -> str:
        return f"{self.target.model}.deleted_at.is_(None)"
