from hypertts_toys import aligned, frontend, given, items, model

__all__ = ["aligned", "frontend", "given", "items", "model"]
