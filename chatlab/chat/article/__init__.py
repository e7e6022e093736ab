"""The article's two builds of the chat, in Python, held to the original: see `builds.py`."""

from chatlab.chat.article.builds import ArticleServer, Build, start

__all__ = ["ArticleServer", "Build", "start"]
