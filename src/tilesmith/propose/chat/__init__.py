"""Language models, asked: providers, limits, retries, prices."""

from tilesmith.propose.chat.book import ModelBook, Price, Provider, Rates
from tilesmith.propose.chat.file import default_path, read_book
from tilesmith.propose.chat.hosted import Retry
from tilesmith.propose.chat.models import Model, Models, open_models
from tilesmith.propose.chat.seam import Call, Chat

__all__ = [
    "Call",
    "Chat",
    "Model",
    "ModelBook",
    "Models",
    "Price",
    "Provider",
    "Rates",
    "Retry",
    "default_path",
    "open_models",
    "read_book",
]
